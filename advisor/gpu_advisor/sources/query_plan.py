"""Query plans: many expressions in few queries, with shared parts read once.

An expression is split into leaves, the largest parts that are selectors, aggregations and unions of these; ratios and
scales are computed locally, by the same rules. Several leaves form a combined query, each labeled with its index, so
that the number of queries depends neither on the fleet nor much on the number of signals. That saves round trips and
duplicate reads, not the server's work on each leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from gpu_advisor.promql.expressions import (
    Aggregate,
    ConstantLabel,
    Expression,
    Filter,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Labels,
    Selector,
    TimeSeries,
    Union,
    Vector,
    selectors_of,
    subexpressions,
)
from gpu_advisor.sources.algebra import MutableVector, evaluate_expression
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.prometheus.combined_queries import (
    CombinedQuery,
    combined_expressions,
    read_combined_queries,
    results_in_order,
    split_results,
)

#: Leaves per query, if the maximum number of queries allows: a small query ends well within its timeout, and its
#: response, some 0.13 KiB per leaf and GPU, needs little memory.
DEFAULT_LEAVES_PER_QUERY = 4

#: Maximum numbers of queries, however many leaves.
MAX_WINDOW_QUERIES, MAX_INSTANT_QUERIES = 8, 5


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Queries for some expressions. `combined` has the leaves of each query."""

    expressions: Mapping[str, Expression]
    combined: tuple[CombinedQuery, ...]

    @property
    def queries(self) -> dict[str, Expression]:
        """The queries by index."""
        return combined_expressions(self.combined)

    def read(self, source: Source, at: float) -> dict[str, Vector]:
        """Each expression at time `at` (Unix time). Raises SourceError."""
        return self._evaluate(read_combined_queries(source, self.combined, at))

    def read_twice(self, source: Source, at: float, before: float) -> tuple[dict[str, Vector], dict[str, Vector]]:
        """Each expression at time `at` (Unix time), and `before` seconds earlier; as many queries as `read` sends.

        A time is a millisecond, so that a range of two steps has both. Raises SourceError.
        """
        end = round(at, 3)
        now: list[tuple[MutableVector, ...]] = []
        then: list[tuple[MutableVector, ...]] = []
        for query, combined in zip(self.combined, self.queries.values(), strict=True):
            series = source.range(combined, end - before, end, before)
            for found, time in ((now, end), (then, end - before)):
                found.append(results_in_order(query, split_results(_vector_at(series, time, before / 2))))
        return self._evaluate(now), self._evaluate(then)

    def _evaluate(self, results: Sequence[tuple[MutableVector, ...]]) -> dict[str, Vector]:
        known: dict[Expression, MutableVector] = {}
        for query, values in zip(self.combined, results, strict=True):
            known.update(zip(query, values, strict=True))
        return {key: evaluate_expression(expression, known.get) for key, expression in self.expressions.items()}


def plan_queries(expressions: Mapping[str, Expression], leaves_per_query: int = DEFAULT_LEAVES_PER_QUERY) -> QueryPlan:
    """The queries for some expressions. The same for equal expressions."""
    leaves = _read_once([leaf for expression in expressions.values() for leaf in leaves_of(expression)])
    windowed = sorted((leaf for leaf in leaves if _window(leaf)), key=_window)
    instant = [leaf for leaf in leaves if not _window(leaf)]
    return QueryPlan(
        expressions,
        (
            *_split(windowed, MAX_WINDOW_QUERIES, leaves_per_query),
            *_split(instant, MAX_INSTANT_QUERIES, leaves_per_query),
        ),
    )


def _vector_at(series: Mapping[Labels, TimeSeries], at: float, tolerance: float) -> Vector:
    return {labels: value for labels, points in series.items() for time, value in points if abs(time - at) < tolerance}


def leaves_of(expression: Expression) -> Iterator[Expression]:
    """The largest parts of an expression that the server computes, from left to right."""
    if not isinstance(expression, Filter) and _is_server_side(expression):
        yield expression
    else:
        for part in subexpressions(expression):
            yield from leaves_of(part)


def _read_once(leaves: Sequence[Expression]) -> list[Expression]:
    """Each leaf once. A union is split if one of its parts is read anyway: the server need not compute that twice."""
    known = frozenset(leaves)
    parts = (leaf.parts if isinstance(leaf, Union) and not known.isdisjoint(leaf.parts) else (leaf,) for leaf in leaves)
    return list(dict.fromkeys(part for found in parts for part in found))


def _is_server_side(expression: Expression) -> bool:
    server_side = Selector | Aggregate | Union | LabelReplace | LabelJoin | ConstantLabel | Filter | HistogramQuantile
    if not isinstance(expression, server_side):
        return False
    return all(map(_is_server_side, subexpressions(expression)))


def _window(leaf: Expression) -> int:
    return max((select.window_seconds or 0 for select in selectors_of(leaf)), default=0)


def _split(leaves: Sequence[Expression], max_queries: int, min_size: int) -> Iterator[CombinedQuery]:
    size = max(min_size, ceil(len(leaves) / max_queries))
    for start in range(0, len(leaves), size):
        yield tuple(leaves[start : start + size])
