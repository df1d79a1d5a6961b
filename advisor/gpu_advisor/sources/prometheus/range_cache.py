"""Range-query cache: completed steps are immutable.

A history over hours is read at each evaluation, but only its newest steps are new; all others come from the cache. The
cache contains nothing that could not be queried again, so a restart changes no result. A range is first read in pieces,
so that no query times out, and completed pieces are not lost if one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.promql.query_language import PROMQL, QueryLanguage
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import PromqlSource, QueryLanguageSource, SamplesByLabels, Source
from gpu_advisor.sources.prometheus.combined_queries import CombinedQuery, read_combined_queries

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


@dataclass(slots=True)
class CachingSource:
    """A Source that caches ranges whose times are whole multiples of their step; all else is passed through."""

    source: Source
    name: str = field(init=False)
    address: str = field(init=False)
    _cache: dict[CacheKey, dict[float, Vector]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name, self.address = self.source.name, self.source.address

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        return self.source.instant(expressions, at)

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        return read_combined_queries(self.source, combined, at)

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        """As Source.range, one query per missing piece. Raises SourceError."""
        if start % step or end < start:
            return self.source.range(expression, start, end, step)
        times = [start + step * index for index in range(int((end - start) // step) + 1)]
        cached = self._cache.pop((expression, step), {})
        self._cache[expression, step] = cached = {
            at: cached[at] for at in times if at in cached
        }  # moves it to the end: least recently used first
        found = dict(cached)
        missing = [at for at in times if at not in cached]
        for piece in _split_times(missing, step):
            found |= self._read(expression, piece, step)
            cached |= {at: found[at] for at in piece if at <= end - LATE_SAMPLE_SECONDS}
        self._forget_oldest()
        return _series_by_labels(found, times)

    def _forget_oldest(self) -> None:
        """Down to the limits; the range used last stays."""
        samples = {key: sum(map(len, steps.values())) for key, steps in self._cache.items()}
        total = sum(samples.values())
        for key in list(self._cache)[:-1]:
            if len(self._cache) <= MAX_CACHED_RANGES and total <= MAX_CACHED_SAMPLES:
                return
            total -= samples[key]
            del self._cache[key]

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        return self.source.samples(selectors, at)

    def close(self) -> None:
        self.source.close()

    def _read(self, expression: Expression, times: list[float], step: float) -> dict[float, Vector]:
        """The results of each step; a step without any is cached as empty."""
        found: dict[float, dict[Labels, float]] = {at: {} for at in times}
        for labels, points in self.source.range(expression, times[0], times[-1], step).items():
            for at, value in points:
                found[at][labels] = value
        return dict(found)


class CachingPromqlSource(CachingSource):
    """The same for a source that evaluates PromQL text, which is not cached."""

    def range_promql(self, promql: str, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        assert isinstance(self.source, PromqlSource)
        return self.source.range_promql(promql, start, end, step)

    def query_language(self) -> QueryLanguage:
        return self.source.query_language() if isinstance(self.source, QueryLanguageSource) else PROMQL


def with_range_cache(source: Source) -> Source:
    """Wrap a source in a range cache."""
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
    series: dict[Labels, list[tuple[float, float]]] = {}
    for at in times:
        for labels, value in found[at].items():
            series.setdefault(labels, []).append((at, value))
    return {labels: tuple(points) for labels, points in series.items()}
