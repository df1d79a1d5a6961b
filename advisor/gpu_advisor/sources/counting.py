"""A source for one evaluation: it counts the queries, and reads ranges through a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.promql.query_language import QueryLanguage
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import PromqlSource, SamplesByLabels, Source
from gpu_advisor.sources.prometheus.combined_queries import CombinedQuery, read_combined_queries
from gpu_advisor.sources.prometheus.range_cache import RangeCache


class CountingSource:
    """A Source over another one. `queries` were sent so far: of a range, as many as the cache splits it into."""

    def __init__(self, source: Source, ranges: RangeCache | None = None) -> None:
        """Without `ranges`, each range is one query."""
        self.name, self.address = source.name, source.address
        self.queries = 0
        self._source = source
        self._ranges = ranges

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        self.queries += len(expressions)
        return self._source.instant(expressions, at)

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        self.queries += len(combined)
        return read_combined_queries(self._source, combined, at)

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        if self._ranges is None:
            return self._range(expression, start, end, step)
        return self._ranges.read(self._range, expression, start, end, step)

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        self.queries += len(selectors)
        return self._source.samples(selectors, at)

    def close(self) -> None:
        self._source.close()

    def _range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.queries += 1
        return self._source.range(expression, start, end, step)


class CountingPromqlSource(CountingSource):
    """The same for a source that evaluates PromQL text, which is not cached."""

    def __init__(self, source: Source, promql: PromqlSource, ranges: RangeCache | None = None) -> None:
        super().__init__(source, ranges)
        self._promql = promql

    def range_promql(self, promql: str, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        self.queries += 1
        return self._promql.range_promql(promql, start, end, step)

    def query_language(self) -> QueryLanguage:
        return self._promql.query_language()


def count_queries(source: Source, ranges: RangeCache | None = None) -> CountingSource:
    """The source with its queries counted from now on."""
    if isinstance(source, PromqlSource):
        return CountingPromqlSource(source, source, ranges)
    return CountingSource(source, ranges)
