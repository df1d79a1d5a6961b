"""A pool's demand history, point by point, with bounds where data is missing.

Demand is in replicas' worth of work. A missing point, or a replica that did not report, does not count as idle: the
demand is then known only between bounds. Scaling up uses the estimate, scaling down the upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: From here on utilization does not show the demand: it cannot exceed 100 %.
SATURATION_RATIO = 0.98

#: A rate is extrapolated to the edges of its window, and may exceed 100 % by this much.
MAX_OVERSHOOT = 0.1


@dataclass(frozen=True, slots=True)
class DemandPoint:
    """One point of a pool's demand history, over the step that ends at `at` (Unix time).

    `replicas` existed, `reporting` of them reported, and `utilization_ratio` (0..1) is the mean over those.
    `signal_demand` is the demand by a signal that does not saturate, in replicas' worth of work; without one, demand is
    derived from utilization.
    """

    at: float
    replicas: float
    reporting: float
    utilization_ratio: float
    signal_demand: float | None = None

    @property
    def demand(self) -> float:
        """Replicas' worth of work, if those not reporting were as busy as the others. A lower bound at saturation."""
        return self.utilization_ratio * self.replicas if self.signal_demand is None else self.signal_demand

    @property
    def min_demand(self) -> float:
        return self.utilization_ratio * self.reporting if self.signal_demand is None else self.signal_demand

    @property
    def max_demand(self) -> float:
        """The most that the sensor could have shown: every replica not reporting may have been busy throughout."""
        return self.min_demand + (self.replicas - self.reporting if self.signal_demand is None else 0.0)

    @property
    def complete(self) -> bool:
        return self.reporting >= self.replicas

    @property
    def saturated(self) -> bool:
        return self.signal_demand is None and self.utilization_ratio >= SATURATION_RATIO


@dataclass(frozen=True, slots=True)
class DemandEstimate:
    """Demand by step, oldest first: the estimate and its bounds, of equal length."""

    estimate: tuple[float, ...]
    lower_bound: tuple[float, ...]
    upper_bound: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether no data is missing, so that the bounds equal the estimate."""
        return self.lower_bound == self.upper_bound


def align_to_steps(
    history: Sequence[DemandPoint], at: float, step_seconds: float, steps: int
) -> tuple[DemandPoint | None, ...]:
    """The points of the last `steps` steps up to `at`, oldest first; None where one is missing.

    Starts at the first recorded point: earlier steps are not missing, recording had not begun. `history` is ordered by
    time, and may reach further back.
    """
    found: dict[int, DemandPoint] = {}
    for point in reversed(history):
        ago = round((at - point.at) / step_seconds)
        if ago >= steps:
            break
        if ago >= 0:
            found.setdefault(ago, point)
    return tuple(found.get(ago) for ago in range(max(found, default=-1), -1, -1))


def estimate_demand(points: Sequence[DemandPoint | None]) -> DemandEstimate:
    """The demand and its bounds. A missing point is only known not to exceed the largest size around it."""
    if all(point is not None and point.complete for point in points):
        exact = tuple(point.demand for point in points if point is not None)
        return DemandEstimate(exact, exact, exact)
    largest = max((max(point.replicas, point.max_demand) for point in points if point is not None), default=0.0)
    estimate: list[float] = []
    for point in points:  # a missing step repeats the one before it
        estimate.append(point.demand if point is not None else estimate[-1] if estimate else 0.0)
    return DemandEstimate(
        tuple(estimate),
        tuple(0.0 if point is None else point.min_demand for point in points),
        tuple(largest if point is None else point.max_demand for point in points),
    )


def reported_points(samples: Sequence[tuple[float, int, float]], per_replica: int) -> tuple[DemandPoint, ...]:
    """Points from (Unix time, GPUs reporting, their work in GPUs), of a pool whose size was what reported.

    For a history of days, in which a pool is smaller every night: `demand_points` would take that for an outage.
    """
    return tuple(
        DemandPoint(at, size := count / per_replica, size, min(1.0, max(0.0, busy / count)))
        for at, count, busy in samples
        if _is_possible(count, busy)
    )


def _is_possible(count: int, busy: float) -> bool:
    """An impossible value counts as missing."""
    return count > 0 and -MAX_OVERSHOOT <= busy / count <= 1 + MAX_OVERSHOOT


def demand_points(samples: Sequence[tuple[float, int, float]], gpus: int, per_replica: int) -> tuple[DemandPoint, ...]:
    """Points from (Unix time, GPUs reporting, their work in GPUs), of a pool that has `gpus` now.

    The past size is not recorded, only how many GPUs reported. A count that falls and rises again was an outage: the
    smaller of the sizes before and after held in between. A lasting rise or fall changed the pool's size.
    """
    after = [0] * len(samples)
    highest = gpus
    for index in range(len(samples) - 1, -1, -1):
        highest = max(highest, samples[index][1])
        after[index] = highest
    before = 0
    points: list[DemandPoint] = []
    for (at, count, busy), later in zip(samples, after, strict=True):
        before = max(before, count)
        replicas = min(before, later)
        if _is_possible(count, busy):
            points.append(
                DemandPoint(at, replicas / per_replica, count / per_replica, min(1.0, max(0.0, busy / count)))
            )
    return tuple(points)
