"""Many expressions in few queries: what they share is read once, what is small is computed here.

An expression is taken apart into its leaves, the largest parts that are selectors, aggregations and unions of these;
ratios and scales of them are computed here, by the same rules. Leaves are packed together, each tagged with its
number, so that the number of queries depends neither on the fleet nor much on the number of signals. Packing saves
round trips and reads nothing twice; what is left to read costs Prometheus the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from gpu_advisor.promql.expressions import (
    Aggregate,
    ConstantLabel,
    Expression,
    LabelReplace,
    Selector,
    Union,
    Vector,
    selectors_of,
    subexpressions,
)
from gpu_advisor.sources.algebra import MutableVector, evaluate_expression
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.prometheus.combined_queries import CombinedQuery, combined_expressions, read_combined_queries

#: A query holds this many leaves if it can: a small one ends well within its time limit, and its answer, some 0.13 KiB
#: a leaf and GPU, is not large in memory.
DEFAULT_LEAVES_PER_QUERY = 4

#: There are never more packs than this, however many leaves.
MAX_WINDOW_QUERIES, MAX_INSTANT_QUERIES = 8, 6


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Queries that answer some expressions. `packs` hold the leaves of each query."""

    expressions: Mapping[str, Expression]
    combined: tuple[CombinedQuery, ...]

    @property
    def queries(self) -> dict[str, Expression]:
        """What is asked, by number."""
        return combined_expressions(self.combined)

    @property
    def window_query_count(self) -> int:
        """How many of the queries read windows."""
        return sum(1 for query in self.combined if any(map(_window, query)))

    @property
    def window_selector_count(self) -> int:
        """How many windows the server reads: what the queries cost it."""
        return sum(
            1 for query in self.combined for leaf in query for select in selectors_of(leaf) if select.window_seconds
        )

    def read(self, source: Source, at: float) -> dict[str, Vector]:
        """Each expression at time `at` (seconds since 1970). Raises SourceError."""
        known: dict[Expression, MutableVector] = {}
        for query, values in zip(self.combined, read_combined_queries(source, self.combined, at), strict=True):
            known.update(zip(query, values, strict=True))
        return {key: evaluate_expression(expression, known.get) for key, expression in self.expressions.items()}


def plan_queries(expressions: Mapping[str, Expression], leaves_per_query: int = DEFAULT_LEAVES_PER_QUERY) -> QueryPlan:
    """The queries for some expressions. The same for equal expressions."""
    leaves = list(dict.fromkeys(leaf for expression in expressions.values() for leaf in leaves_of(expression)))
    windowed = sorted((leaf for leaf in leaves if _window(leaf)), key=_window)
    instant = [leaf for leaf in leaves if not _window(leaf)]
    return QueryPlan(
        expressions,
        (
            *_split(windowed, MAX_WINDOW_QUERIES, leaves_per_query),
            *_split(instant, MAX_INSTANT_QUERIES, leaves_per_query),
        ),
    )


def leaves_of(expression: Expression) -> Iterator[Expression]:
    """The largest parts of an expression that the server computes, from left to right."""
    if _is_server_side(expression):
        yield expression
    else:
        for part in subexpressions(expression):
            yield from leaves_of(part)


def _is_server_side(expression: Expression) -> bool:
    if not isinstance(expression, Selector | Aggregate | Union | LabelReplace | ConstantLabel):
        return False
    return all(map(_is_server_side, subexpressions(expression)))


def _window(leaf: Expression) -> int:
    return max((select.window_seconds or 0 for select in selectors_of(leaf)), default=0)


def _split(leaves: Sequence[Expression], most: int, few: int) -> Iterator[CombinedQuery]:
    size = max(few, ceil(len(leaves) / most))
    for start in range(0, len(leaves), size):
        yield tuple(leaves[start : start + size])
