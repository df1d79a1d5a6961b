"""Settings: typed, validated at start, refused with file, line, key and the mend. One file a section."""

from gpu_advisor.settings.allocation import AllocationSettings
from gpu_advisor.settings.cost import Cost
from gpu_advisor.settings.evaluation import Evaluation
from gpu_advisor.settings.kinds import host_and_port
from gpu_advisor.settings.loading import ConfigError, load
from gpu_advisor.settings.pools import PoolKind, PoolSettings
from gpu_advisor.settings.publishing import AlertmanagerSettings, Outcomes, Web
from gpu_advisor.settings.resources import CpuLimits, GpuLimits, MemoryLimits, Resources
from gpu_advisor.settings.root import Settings
from gpu_advisor.settings.source import EmbeddedSource, PrometheusSource, SourceSettings

__all__ = [
    "AlertmanagerSettings",
    "AllocationSettings",
    "ConfigError",
    "Cost",
    "CpuLimits",
    "EmbeddedSource",
    "Evaluation",
    "GpuLimits",
    "MemoryLimits",
    "Outcomes",
    "PoolKind",
    "PoolSettings",
    "PrometheusSource",
    "Resources",
    "Settings",
    "SourceSettings",
    "Web",
    "host_and_port",
    "load",
]
