"""A source whose ranges are asked for once: what a step of the past was does not change any more.

A trail over hours is read at each evaluation, but only its newest steps are new. All else was answered before, and is
kept as it was; nothing is kept that could not be asked for again, so a restart changes no answer. The first time, a
range is read piece by piece, so that no query runs into its time limit, and what came is not lost if one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries, Vector
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import PromqlSource, Source
from gpu_advisor.sources.prometheus.combined_queries import CombinedQuery, read_combined_queries

#: Samples may come late, by remote write or a clock that lags: what is younger than this (seconds) is asked for again.
#: Steps that took longer to be complete are not noticed.
LATE_SAMPLE_SECONDS = 300

#: Steps in one query. A step of 10,000 GPUs takes a Prometheus tens of milliseconds.
MAX_STEPS_PER_QUERY = 15

#: Ranges that are kept; each is some kilobytes, for the source adds up before it answers.
MAX_CACHED_RANGES = 64

CacheKey = tuple[Expression, float]


@dataclass(slots=True)
class CachingSource:
    """A Source. Ranges with whole multiples of their step as times are remembered, all else goes straight on."""

    of: Source
    name: str = field(init=False)
    address: str = field(init=False)
    _cache: dict[CacheKey, dict[float, Vector]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name, self.address = self.of.name, self.of.address

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        return self.of.instant(expressions, at)

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        return read_combined_queries(self.of, combined, at)

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        """As Source.range, in as many queries as there are pieces to read. Raises SourceError."""
        if start % step or end < start:
            return self.of.range(expression, start, end, step)
        times = [start + step * index for index in range(int((end - start) // step) + 1)]
        kept = self._cache.pop((expression, step), {})
        self._cache[expression, step] = kept = {at: kept[at] for at in times if at in kept}  # the last used is the last
        while len(self._cache) > MAX_CACHED_RANGES:
            del self._cache[next(iter(self._cache))]
        found = dict(kept)
        missing = [at for at in times if at not in kept]
        for piece in _split_times(missing, step):
            found |= self._read(expression, piece, step)
            kept |= {at: found[at] for at in piece if at <= end - LATE_SAMPLE_SECONDS}
        return _series_by_labels(found, times)

    def close(self) -> None:
        self.of.close()

    def _read(self, expression: Expression, times: list[float], step: float) -> dict[float, Vector]:
        """Each step's results; a step without any has none, and is known all the same."""
        found: dict[float, dict[Labels, float]] = {at: {} for at in times}
        for labels, trail in self.of.range(expression, times[0], times[-1], step).items():
            for at, value in trail:
                found[at][labels] = value
        return dict(found)


class CachingPromqlSource(CachingSource):
    """The same for a source that evaluates text, which it goes on doing."""

    def range_promql(self, promql: str, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        assert isinstance(self.of, PromqlSource)
        return self.of.range_promql(promql, start, end, step)


def with_range_cache(source: Source) -> Source:
    """The source, with its ranges remembered."""
    return CachingPromqlSource(source) if isinstance(source, PromqlSource) else CachingSource(source)


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
    trails: dict[Labels, list[tuple[float, float]]] = {}
    for at in times:
        for labels, value in found[at].items():
            trails.setdefault(labels, []).append((at, value))
    return {labels: tuple(trail) for labels, trail in trails.items()}
