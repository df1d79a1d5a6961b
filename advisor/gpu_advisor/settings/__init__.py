"""Settings: typed and validated at start; an error names file, line and key and says how to fix it."""

from gpu_advisor.settings.allocation import AllocationSettings
from gpu_advisor.settings.cost import CostSettings
from gpu_advisor.settings.evaluation import EvaluationSettings
from gpu_advisor.settings.field_types import validate_host_port
from gpu_advisor.settings.loader import ConfigError, load_settings
from gpu_advisor.settings.notification import AlertmanagerSettings, OutcomeSettings, WebSettings
from gpu_advisor.settings.pools import PoolKind, PoolSettings
from gpu_advisor.settings.resources import CpuLimits, GpuLimits, MemoryLimits, ResourceSettings
from gpu_advisor.settings.root import Settings
from gpu_advisor.settings.slo import SloSettings
from gpu_advisor.settings.source import EmbeddedSourceSettings, PrometheusSourceSettings, SourceSettings
from gpu_advisor.settings.teams import TeamSettings

__all__ = [
    "AlertmanagerSettings",
    "AllocationSettings",
    "ConfigError",
    "CostSettings",
    "CpuLimits",
    "EmbeddedSourceSettings",
    "EvaluationSettings",
    "GpuLimits",
    "MemoryLimits",
    "OutcomeSettings",
    "PoolKind",
    "PoolSettings",
    "PrometheusSourceSettings",
    "ResourceSettings",
    "Settings",
    "SloSettings",
    "SourceSettings",
    "TeamSettings",
    "WebSettings",
    "load_settings",
    "validate_host_port",
]
