"""Several expressions in one query: each tagged with its number, so that the answer can be taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gpu_advisor.promql.expressions import Expression, Labels, Tagged, Vector, union
from gpu_advisor.sources.algebra import Values
from gpu_advisor.sources.base import Source

#: The label that tells the leaves of a pack apart. No exporter has it, and it stands before all usual ones.
PART = "_part"

#: Leaves that are asked for in one query. One alone is asked for as it is.
Pack = tuple[Expression, ...]


@runtime_checkable
class AnswersPacks(Protocol):
    """A source that takes the answers of packs apart while it reads them."""

    def packs(self, packs: Sequence[Pack], at: float) -> list[tuple[Values, ...]]:
        """The answer of each leaf of each pack at time `at` (seconds since 1970). Raises SourceError."""
        ...


def read_packs(source: Source, packs: Sequence[Pack], at: float) -> list[tuple[Values, ...]]:
    """As AnswersPacks.packs, from any source."""
    if isinstance(source, AnswersPacks):
        return source.packs(packs, at)
    answers = source.instant(queries(packs), at)
    return [in_order(pack, parted(answers[str(number)])) for number, pack in enumerate(packs)]


def queries(packs: Sequence[Pack]) -> dict[str, Expression]:
    """What is asked, by number."""
    return {str(number): _packed(pack) for number, pack in enumerate(packs)}


def _packed(pack: Pack) -> Expression:
    return pack[0] if len(pack) == 1 else union(*(Tagged(leaf, PART, str(i)) for i, leaf in enumerate(pack)))


def parted(answer: Vector) -> dict[str, Values]:
    """The results by their tag, without it; those that have none, by ""."""
    parts: dict[str, Values] = {}
    for labels, value in answer.items():
        tag, rest = _untagged(labels)
        parts.setdefault(tag, {})[rest] = value
    return parts


def in_order(pack: Pack, parts: Mapping[str, Values]) -> tuple[Values, ...]:
    """The answer of each leaf. Raises ValueError for results that are of none of them."""
    tags = [str(number) for number in range(len(pack))] if len(pack) > 1 else [""]
    if not parts.keys() <= set(tags):
        raise ValueError(f"results tagged {', '.join(sorted(parts))} in the answer to a pack of {len(pack)}")
    return tuple(parts.get(tag, {}) for tag in tags)


def _untagged(labels: Labels) -> tuple[str, Labels]:
    for place, (name, value) in enumerate(labels):
        if name == PART:
            return value, labels[:place] + labels[place + 1 :]
    return "", labels
