"""Several expressions in one query: each tagged with its number, so that the answer can be taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gpu_advisor.promql.expressions import ConstantLabel, Expression, Labels, Vector, union
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import Source

#: The label that tells the leaves of a query apart. No exporter has it, and it stands before all usual ones.
INDEX_LABEL = "_part"

#: Leaves that are asked for in one query. One alone is asked for as it is.
CombinedQuery = tuple[Expression, ...]


@runtime_checkable
class CombinedQuerySource(Protocol):
    """A source that takes the answers of combined apart while it reads them."""

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        """The answer of each leaf of each query at time `at` (seconds since 1970). Raises SourceError."""
        ...


def read_combined_queries(
    source: Source, combined: Sequence[CombinedQuery], at: float
) -> list[tuple[MutableVector, ...]]:
    """As CombinedQuerySource.combined, from any source."""
    if isinstance(source, CombinedQuerySource):
        return source.read_combined(combined, at)
    answers = source.instant(combined_expressions(combined), at)
    return [results_in_order(query, split_results(answers[str(number)])) for number, query in enumerate(combined)]


def combined_expressions(combined: Sequence[CombinedQuery]) -> dict[str, Expression]:
    """What is asked, by number."""
    return {str(number): _combine(query) for number, query in enumerate(combined)}


def _combine(query: CombinedQuery) -> Expression:
    return (
        query[0]
        if len(query) == 1
        else union(*(ConstantLabel(leaf, INDEX_LABEL, str(i)) for i, leaf in enumerate(query)))
    )


def split_results(answer: Vector) -> dict[str, MutableVector]:
    """The results by their tag, without it; those that have none, by ""."""
    parts: dict[str, MutableVector] = {}
    for labels, value in answer.items():
        tag, rest = _pop_index_label(labels)
        parts.setdefault(tag, {})[rest] = value
    return parts


def results_in_order(query: CombinedQuery, parts: Mapping[str, MutableVector]) -> tuple[MutableVector, ...]:
    """The answer of each leaf. Raises ValueError for results that are of none of them."""
    tags = [str(number) for number in range(len(query))] if len(query) > 1 else [""]
    if not parts.keys() <= set(tags):
        raise ValueError(f"results tagged {', '.join(sorted(parts))} in the answer to a query of {len(query)}")
    return tuple(parts.get(tag, {}) for tag in tags)


def _pop_index_label(labels: Labels) -> tuple[str, Labels]:
    for place, (name, value) in enumerate(labels):
        if name == INDEX_LABEL:
            return value, labels[:place] + labels[place + 1 :]
    return "", labels
