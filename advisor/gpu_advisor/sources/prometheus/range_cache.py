"""Range-query cache: completed steps are immutable.

A history over hours is read at each evaluation, but only its newest steps are new; all others come from the cache. The
cache contains nothing that could not be queried again, so a restart changes no result. A range is first read in pieces,
so that no query times out, and completed pieces are not lost if one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries, Vector

#: Samples may arrive late, by remote write or a lagging clock: steps newer than this (seconds) are queried again.
#: Samples that arrive later are missed.
LATE_SAMPLE_SECONDS = 300

#: Steps per query. A step of 10,000 GPUs takes Prometheus tens of milliseconds.
MAX_STEPS_PER_QUERY = 15

#: Cached ranges, and samples in all of them, of 40 to 80 bytes each. Histories of pools are aggregated and small; the
#: day of idle GPUs, a range for each set of them, is not.
MAX_CACHED_RANGES = 64
MAX_CACHED_SAMPLES = 400_000

CacheKey = tuple[Expression, float]

#: Source.range of the source that is read.
RangeQuery = Callable[[Expression, float, float, float], Mapping[Labels, TimeSeries]]


class RangeCache:
    """Completed steps of ranges whose times are whole multiples of their step. For one thread."""

    def __init__(self) -> None:
        self._ranges: dict[CacheKey, dict[float, Vector]] = {}

    def read(
        self, query_range: RangeQuery, expression: Expression, start: float, end: float, step: float
    ) -> Mapping[Labels, TimeSeries]:
        """As Source.range, with one query per missing piece. Raises what `query_range` raises."""
        if start % step or end < start:
            return query_range(expression, start, end, step)
        times = [start + step * index for index in range(int((end - start) // step) + 1)]
        cached = self._ranges.pop((expression, step), {})
        self._ranges[expression, step] = cached = {
            at: cached[at] for at in times if at in cached
        }  # moves it to the end: least recently used first
        found = dict(cached)
        missing = [at for at in times if at not in cached]
        for piece in _split_times(missing, step):
            found |= _by_step(query_range(expression, piece[0], piece[-1], step), piece)
            cached |= {at: found[at] for at in piece if at <= end - LATE_SAMPLE_SECONDS}
        self._forget_oldest()
        return _series_by_labels(found, times)

    def _forget_oldest(self) -> None:
        """Down to the limits; the range used last stays."""
        samples = {key: sum(map(len, steps.values())) for key, steps in self._ranges.items()}
        total = sum(samples.values())
        for key in list(self._ranges)[:-1]:
            if len(self._ranges) <= MAX_CACHED_RANGES and total <= MAX_CACHED_SAMPLES:
                return
            total -= samples[key]
            del self._ranges[key]


def _by_step(series: Mapping[Labels, TimeSeries], times: Sequence[float]) -> dict[float, Vector]:
    """The results of each step; a step without any is cached as empty."""
    found: dict[float, dict[Labels, float]] = {at: {} for at in times}
    for labels, points in series.items():
        for at, value in points:
            found[at][labels] = value
    return dict(found)


def _split_times(times: list[float], step: float) -> list[list[float]]:
    """Runs of times a step apart, of at most MAX_STEPS_PER_QUERY each."""
    pieces: list[list[float]] = []
    for at in times:
        if pieces and len(pieces[-1]) < MAX_STEPS_PER_QUERY and at - pieces[-1][-1] <= step * 1.001:
            pieces[-1].append(at)
        else:
            pieces.append([at])
    return pieces


def _series_by_labels(found: Mapping[float, Vector], times: list[float]) -> dict[Labels, TimeSeries]:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for at in times:
        for labels, value in found[at].items():
            series.setdefault(labels, []).append((at, value))
    return {labels: tuple(points) for labels, points in series.items()}
