"""Baselines: a static size, common autoscalers, and an oracle that knows future demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from gpu_advisor.backtest.replay import Observation

#: Floating-point tolerance: this much above a whole number is still that number.
ROUNDING = 1e-9

#: The utilization that the oracle plans for.
ORACLE_UTILIZATION = 0.9


@dataclass(frozen=True, slots=True)
class StaticPolicy:
    """A constant number of replicas."""

    replicas: int

    def __call__(self, observed: Observation, /) -> int:
        return self.replicas


@dataclass(slots=True)
class HpaPolicy:
    """Kubernetes' HorizontalPodAutoscaler with its defaults: tolerance 0.1, 300 s of stabilization for scale-down.

    When scaling up, starting replicas count as idle, and must not reverse the direction:
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    target: float
    tolerance: float = 0.1
    stabilization_seconds: float = 300
    _recommendations: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, observed: Observation, /) -> int:
        present = observed.ready + observed.pending
        wanted = self._desired_replicas(observed, present)
        self._recommendations.append((observed.at, wanted))
        while self._recommendations[0][0] <= observed.at - self.stabilization_seconds:
            self._recommendations.popleft()
        return wanted if wanted >= present else min(present, max(count for _, count in self._recommendations))

    def _desired_replicas(self, observed: Observation, present: int) -> int:
        if observed.utilization_ratio is None:
            return present
        ratio = observed.utilization_ratio / self.target
        if abs(ratio - 1) <= self.tolerance:
            return present
        wanted = ceil(observed.ready * ratio - ROUNDING)
        return max(wanted, present) if ratio > 1 else wanted


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """At every interval, one more above the upper threshold, one fewer below the lower one."""

    up: float
    down: float

    def __call__(self, observed: Observation, /) -> int:
        present = observed.ready + observed.pending
        if observed.utilization_ratio is None:
            return present
        return present + (observed.utilization_ratio > self.up) - (observed.utilization_ratio < self.down)


@dataclass(frozen=True, slots=True)
class OraclePolicy:
    """Exactly what the next interval needs. Replay it without start delay, from `oracle_replicas(first demand)`."""

    demand: Sequence[float | None]
    interval_seconds: float

    def __call__(self, observed: Observation, /) -> int:
        next_index = round(observed.at / self.interval_seconds)
        demand = self.demand[next_index] if next_index < len(self.demand) else None
        return observed.ready if demand is None else oracle_replicas(demand)


def oracle_replicas(demand: float) -> int:
    return ceil(demand / ORACLE_UTILIZATION - ROUNDING)
