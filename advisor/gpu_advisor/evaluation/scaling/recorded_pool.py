"""A pool's recorded past, as the key of what is computed from it: cheap to look up, and compared as a whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter

from gpu_advisor.evaluation.history import PoolSample
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, reported_points
from gpu_advisor.promql.expressions import TimeSeries


@dataclass(frozen=True, slots=True)
class SignalUnits:
    """What one replica does of a demand signal, and whether the signal is only what waits."""

    per_replica: float
    is_waiting: bool


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """Samples and demand signal of a pool, both ordered by time; `signal` is empty and `units` None without one.

    The hash is that of the ends. Pasts with the same hash are compared as a whole, so that none is taken for another:
    completed steps are the same objects from one evaluation to the next, and compare by identity.
    """

    samples: tuple[PoolSample, ...]
    gpus_per_replica: int
    signal: TimeSeries = ()
    units: SignalUnits | None = None

    def __hash__(self) -> int:
        ends = (self.samples[:1], self.samples[-1:], self.signal[:1], self.signal[-1:])
        return hash((len(self.samples), len(self.signal), *ends, self.gpus_per_replica, self.units))

    def between(self, after: float, until: float) -> RecordedPool:
        """The steps that end after `after`, up to `until` (Unix time)."""
        first, last = (bisect_right(self.samples, at, key=attrgetter("at")) for at in (after, until))
        earliest, latest = (bisect_right(self.signal, at, key=itemgetter(0)) for at in (after, until))
        return replace(self, samples=self.samples[first:last], signal=self.signal[earliest:latest])

    def points(self) -> tuple[DemandPoint, ...]:
        """The demand by step; with a signal, at the steps that have one."""
        samples = [(each.at, each.gpus, each.busy) for each in self.samples]
        return with_signal(reported_points(samples, self.gpus_per_replica), self.signal, self.units)


def with_signal(
    points: Sequence[DemandPoint], signal: TimeSeries, units: SignalUnits | None
) -> tuple[DemandPoint, ...]:
    """The same points with the demand by the signal, without those that have none; as they are without `units`."""
    if units is None:
        return tuple(points)
    by_time = {at: value / units.per_replica for at, value in signal}
    return tuple(
        replace(point, signal_demand=by_time[point.at] + (point.demand if units.is_waiting else 0.0))
        for point in points
        if point.at in by_time
    )
