"""Several expressions in one query: an index label on each, so that the results can be split again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gpu_advisor.promql.expressions import ConstantLabel, Expression, Labels, Vector, union
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import Source

#: The label that distinguishes the leaves of a query. No exporter uses it. It sorts before all other labels (`UUID`,
#: `__name__`), so that results of one leaf begin with the same text: see fast_response_parser.py.
INDEX_LABEL = "A0_part"

#: The leaves of one query. A single leaf gets no index label.
CombinedQuery = tuple[Expression, ...]


@runtime_checkable
class CombinedQuerySource(Protocol):
    """A source that splits the results of combined queries while it parses them."""

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        """The result of each leaf of each query at time `at` (Unix time). Raises SourceError."""
        ...


def read_combined_queries(
    source: Source, combined: Sequence[CombinedQuery], at: float
) -> list[tuple[MutableVector, ...]]:
    """CombinedQuerySource.read_combined for any source."""
    if isinstance(source, CombinedQuerySource):
        return source.read_combined(combined, at)
    results = source.instant(combined_expressions(combined), at)
    return [results_in_order(query, split_results(results[str(number)])) for number, query in enumerate(combined)]


def combined_expressions(combined: Sequence[CombinedQuery]) -> dict[str, Expression]:
    """One expression per query, by index."""
    return {str(number): _combine(query) for number, query in enumerate(combined)}


def _combine(query: CombinedQuery) -> Expression:
    return (
        query[0]
        if len(query) == 1
        else union(*(ConstantLabel(leaf, INDEX_LABEL, str(i)) for i, leaf in enumerate(query)))
    )


def split_results(vector: Vector) -> dict[str, MutableVector]:
    """Results by index label, with that label removed; "" for results without one."""
    parts: dict[str, MutableVector] = {}
    for labels, value in vector.items():
        index, rest = _pop_index_label(labels)
        parts.setdefault(index, {})[rest] = value
    return parts


def results_in_order(query: CombinedQuery, parts: Mapping[str, MutableVector]) -> tuple[MutableVector, ...]:
    """The result of each leaf. Raises ValueError for results with an unknown index."""
    indexes = [str(number) for number in range(len(query))] if len(query) > 1 else [""]
    if not parts.keys() <= set(indexes):
        raise ValueError(f"results with index {', '.join(sorted(parts))} for a query of {len(query)} leaves")
    return tuple(parts.get(index, {}) for index in indexes)


def _pop_index_label(labels: Labels) -> tuple[str, Labels]:
    for place, (name, value) in enumerate(labels):
        if name == INDEX_LABEL:
            return value, labels[:place] + labels[place + 1 :]
    return "", labels
