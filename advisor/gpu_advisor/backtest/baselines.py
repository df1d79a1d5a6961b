"""What the advisor is compared with: doing nothing, the usual autoscalers, and knowing the future."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from gpu_advisor.backtest.replay import Observation

#: Shares of whole numbers are not exact: so much above a whole number is still that number.
ROUNDING = 1e-9

#: The utilization that the oracle plans with.
ORACLE_UTILIZATION = 0.9


@dataclass(frozen=True, slots=True)
class StaticPolicy:
    """Always the same number."""

    replicas: int

    def __call__(self, seen: Observation, /) -> int:
        return self.replicas


@dataclass(slots=True)
class HpaPolicy:
    """Kubernetes' HorizontalPodAutoscaler with its defaults: tolerance 0.1, 300 s of stabilization for shrinking.

    Replicas that start yet count as idle when growing, and the direction must not turn thereby:
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    target: float
    tolerance: float = 0.1
    stabilization_seconds: float = 300
    _recommendations: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, seen: Observation, /) -> int:
        present = seen.ready + seen.pending
        wanted = self._desired_replicas(seen, present)
        self._recommendations.append((seen.at, wanted))
        while self._recommendations[0][0] <= seen.at - self.stabilization_seconds:
            self._recommendations.popleft()
        return wanted if wanted >= present else min(present, max(count for _, count in self._recommendations))

    def _desired_replicas(self, seen: Observation, present: int) -> int:
        if seen.utilization_ratio is None:
            return present
        ratio = seen.utilization_ratio / self.target
        if abs(ratio - 1) <= self.tolerance:
            return present
        wanted = ceil(seen.ready * ratio - ROUNDING)
        return max(wanted, present) if ratio > 1 else wanted


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """One more above the upper threshold, one less below the lower one, at every interval."""

    up: float
    down: float

    def __call__(self, seen: Observation, /) -> int:
        present = seen.ready + seen.pending
        if seen.utilization_ratio is None:
            return present
        return present + (seen.utilization_ratio > self.up) - (seen.utilization_ratio < self.down)


@dataclass(frozen=True, slots=True)
class OraclePolicy:
    """Exactly what the next interval needs. To be replayed without start delay, from `needed(first demand)`."""

    demand: Sequence[float | None]
    interval_seconds: float

    def __call__(self, seen: Observation, /) -> int:
        coming = round(seen.at / self.interval_seconds)
        demand = self.demand[coming] if coming < len(self.demand) else None
        return seen.ready if demand is None else oracle_replicas(demand)


def oracle_replicas(demand: float) -> int:
    return ceil(demand / ORACLE_UTILIZATION - ROUNDING)
