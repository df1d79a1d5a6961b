"""Which query engine a server has, and what it does differently. Pure.

PromQL is not one language: Prometheus 3 excludes the start of a window, VictoriaMetrics computes rates without
extrapolation and with the sample before the window. Versions are no help: VictoriaMetrics claims to be Prometheus
2.24.0, and Thanos and Mimir count their own releases. So the server is asked two queries whose results differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.promql.query_language import METRICSQL, PROMQL, PROMQL_2, QueryLanguage

#: At a time that is a whole minute: 3 results if windows include their start, else 2.
WINDOW_PROBE: Final = "count_over_time(vector(1)[2m:1m])"
WINDOW_PROBE_SECONDS: Final = 60

#: 1, but nothing on VictoriaMetrics, where NaN is no sample. No error anywhere: proxies may not pass errors on.
NAN_PROBE: Final = "count(vector(NaN))"


class EngineKind(Enum):
    """Engines that evaluate alike; Thanos, Mimir and others are of the kind of the Prometheus they are built from."""

    PROMETHEUS_2 = "Prometheus 2"
    PROMETHEUS_3 = "Prometheus 3"
    VICTORIAMETRICS = "VictoriaMetrics"


@dataclass(frozen=True, slots=True)
class EngineBehavior:
    """What an engine does differently. All that depends on the engine is decided by this."""

    language: QueryLanguage
    left_closed: bool  # windows include their start
    nan_marks_staleness: bool  # raw samples include staleness markers, as NaN; a measured NaN is not stored
    parameters: Mapping[str, str]  # of each query


BEHAVIORS: Final[Mapping[EngineKind, EngineBehavior]] = MappingProxyType(
    {
        EngineKind.PROMETHEUS_2: EngineBehavior(PROMQL_2, True, False, {}),
        EngineKind.PROMETHEUS_3: EngineBehavior(PROMQL, False, False, {}),
        # nocache: otherwise results are of up to 30 s before the time asked for, and steps of ranges are moved.
        EngineKind.VICTORIAMETRICS: EngineBehavior(METRICSQL, False, True, {"nocache": "1"}),
    }
)


@dataclass(frozen=True, slots=True)
class Engine:
    """The query engine of a server. `version` is the product's own; None where the server does not report it."""

    kind: EngineKind
    product: str = "unknown"
    version: str | None = None

    @property
    def behavior(self) -> EngineBehavior:
        return BEHAVIORS[self.kind]

    def __str__(self) -> str:
        return f"{self.product} {self.version}" if self.version else self.product


def identify_engine(
    build_info: Any, window_probe: Mapping[Labels, float] | None, nan_probe: Mapping[Labels, float] | None
) -> Engine:
    """The engine by the `data` of /api/v1/status/buildinfo and the results of the probes; None for a failed one."""
    if window_probe and nan_probe is not None and not nan_probe:
        return Engine(EngineKind.VICTORIAMETRICS, "VictoriaMetrics")
    information = build_info if isinstance(build_info, dict) else {}
    reported = information.get("version")
    version = reported if isinstance(reported, str) and reported else None
    samples = list((window_probe or {}).values())
    if samples in ([2.0], [3.0]):
        kind = EngineKind.PROMETHEUS_2 if samples == [3.0] else EngineKind.PROMETHEUS_3
    else:
        kind = EngineKind.PROMETHEUS_2 if version and version.startswith("2.") else EngineKind.PROMETHEUS_3
    return Engine(kind, _product(information, version), version)


def _product(information: Mapping[str, Any], version: str | None) -> str:
    application = information.get("application")  # Mimir has it
    if isinstance(application, str) and application:
        return application
    if version is None:
        return "unknown"
    return "Thanos" if version.startswith("0.") else "Prometheus"
