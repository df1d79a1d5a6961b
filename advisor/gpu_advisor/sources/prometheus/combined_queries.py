"""Several expressions in one query: each tagged with its number, so that the answer can be taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gpu_advisor.promql.expressions import ConstantLabel, Expression, Labels, Vector, union
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import Source

#: The label that tells the leaves of a pack apart. No exporter has it, and it stands before all usual ones.
INDEX_LABEL = "_part"

#: Leaves that are asked for in one query. One alone is asked for as it is.
CombinedQuery = tuple[Expression, ...]


@runtime_checkable
class CombinedQuerySource(Protocol):
    """A source that takes the answers of packs apart while it reads them."""

    def packs(self, packs: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        """The answer of each leaf of each pack at time `at` (seconds since 1970). Raises SourceError."""
        ...


def read_combined_queries(source: Source, packs: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
    """As CombinedQuerySource.packs, from any source."""
    if isinstance(source, CombinedQuerySource):
        return source.packs(packs, at)
    answers = source.instant(queries(packs), at)
    return [results_in_order(pack, split_results(answers[str(number)])) for number, pack in enumerate(packs)]


def queries(packs: Sequence[CombinedQuery]) -> dict[str, Expression]:
    """What is asked, by number."""
    return {str(number): _combine(pack) for number, pack in enumerate(packs)}


def _combine(pack: CombinedQuery) -> Expression:
    return (
        pack[0] if len(pack) == 1 else union(*(ConstantLabel(leaf, INDEX_LABEL, str(i)) for i, leaf in enumerate(pack)))
    )


def split_results(answer: Vector) -> dict[str, MutableVector]:
    """The results by their tag, without it; those that have none, by ""."""
    parts: dict[str, MutableVector] = {}
    for labels, value in answer.items():
        tag, rest = _pop_index_label(labels)
        parts.setdefault(tag, {})[rest] = value
    return parts


def results_in_order(pack: CombinedQuery, parts: Mapping[str, MutableVector]) -> tuple[MutableVector, ...]:
    """The answer of each leaf. Raises ValueError for results that are of none of them."""
    tags = [str(number) for number in range(len(pack))] if len(pack) > 1 else [""]
    if not parts.keys() <= set(tags):
        raise ValueError(f"results tagged {', '.join(sorted(parts))} in the answer to a pack of {len(pack)}")
    return tuple(parts.get(tag, {}) for tag in tags)


def _pop_index_label(labels: Labels) -> tuple[str, Labels]:
    for place, (name, value) in enumerate(labels):
        if name == INDEX_LABEL:
            return value, labels[:place] + labels[place + 1 :]
    return "", labels
