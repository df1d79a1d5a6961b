"""A pool's trail: what was seen of it, point by point, and between what bounds its demand lies where little was seen.

Demand is in replicas' worth of work. A point that is missing, and a replica that was not heard, is not read as idle:
the demand is then known between bounds only. Growing looks at the estimate, shrinking at the upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: From here on utilization does not tell the demand any more: it cannot be above 100 %.
SATURATION_RATIO = 0.98

#: A rate is extrapolated to the edges of its window, and may be above 100 % by so much.
MAX_OVERSHOOT = 0.1


@dataclass(frozen=True, slots=True)
class DemandPoint:
    """One point of a pool's trail, over the step that ends at `at` (seconds since 1970).

    `known` replicas were there, `heard` of them reported, and `utilization_ratio` (0..1) is the mean of those heard.
    `told` is the demand by a signal that does not saturate, in replicas' worth of work; without one, utilization tells.
    """

    at: float
    replicas: float
    reporting: float
    utilization_ratio: float
    signal_demand: float | None = None

    @property
    def demand(self) -> float:
        """Replicas' worth of work, if those not heard were as busy as the others. At saturation a lower bound."""
        return self.utilization_ratio * self.replicas if self.signal_demand is None else self.signal_demand

    @property
    def min_demand(self) -> float:
        return self.utilization_ratio * self.reporting if self.signal_demand is None else self.signal_demand

    @property
    def max_demand(self) -> float:
        """What the sensor could have shown at most: every replica that was not heard may have been busy throughout."""
        return self.min_demand + (self.replicas - self.reporting if self.signal_demand is None else 0.0)

    @property
    def complete(self) -> bool:
        return self.reporting >= self.replicas

    @property
    def saturated(self) -> bool:
        return self.signal_demand is None and self.utilization_ratio >= SATURATION_RATIO


@dataclass(frozen=True, slots=True)
class DemandEstimate:
    """The demand of a trail at its steps, oldest first: as estimated, and its bounds. All three have equal length."""

    estimate: tuple[float, ...]
    lower_bound: tuple[float, ...]
    upper_bound: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, so that the bounds are the estimate."""
        return self.lower_bound == self.upper_bound


def align_to_steps(
    trail: Sequence[DemandPoint], at: float, step_seconds: float, steps: int
) -> tuple[DemandPoint | None, ...]:
    """The points of the last `steps` steps up to `at`, oldest first; None where one is missing.

    Begins with the first point there is: what was before is not missing, it was not yet recorded. `trail` is ordered
    by time, and may reach further back.
    """
    found: dict[int, DemandPoint] = {}
    for point in reversed(trail):
        ago = round((at - point.at) / step_seconds)
        if ago >= steps:
            break
        if ago >= 0:
            found.setdefault(ago, point)
    return tuple(found.get(ago) for ago in range(max(found, default=-1), -1, -1))


def estimate_demand(points: Sequence[DemandPoint | None]) -> DemandEstimate:
    """The demand and its bounds. Of a missing point it is only known that it was not above the largest size around."""
    if all(point is not None and point.complete for point in points):
        told = tuple(point.demand for point in points if point is not None)
        return DemandEstimate(told, told, told)
    largest = max((max(point.replicas, point.max_demand) for point in points if point is not None), default=0.0)
    estimate: list[float] = []
    for point in points:  # an unseen step is taken to be as the one before it
        estimate.append(point.demand if point is not None else estimate[-1] if estimate else 0.0)
    return DemandEstimate(
        tuple(estimate),
        tuple(0.0 if point is None else point.min_demand for point in points),
        tuple(largest if point is None else point.max_demand for point in points),
    )


def demand_points(heard: Sequence[tuple[float, int, float]], gpus: int, per_replica: int) -> tuple[DemandPoint, ...]:
    """Points from (seconds, GPUs heard, their work in GPUs), of a pool that has `gpus` now.

    How many were there at a time is not recorded, only how many were heard. A number that falls and rises again was a
    silence: as many as before and after, whichever is fewer, were there in between. One that rises or falls for good
    was a change of the pool's size.
    """
    after = [0] * len(heard)
    most = gpus
    for index in range(len(heard) - 1, -1, -1):
        most = max(most, heard[index][1])
        after[index] = most
    before = 0
    points: list[DemandPoint] = []
    for (at, count, busy), later in zip(heard, after, strict=True):
        before = max(before, count)
        known = min(before, later)
        if (
            count and -MAX_OVERSHOOT <= busy / count <= 1 + MAX_OVERSHOOT
        ):  # what cannot be true is as if it were missing
            points.append(DemandPoint(at, known / per_replica, count / per_replica, min(1.0, max(0.0, busy / count))))
    return tuple(points)
