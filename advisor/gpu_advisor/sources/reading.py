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

from gpu_advisor.expressions import (
    Aggregate,
    Expression,
    Labels,
    Renamed,
    Select,
    Tagged,
    Union,
    Vector,
    parts_of,
    selects_of,
    union,
)
from gpu_advisor.sources.algebra import Values, evaluate
from gpu_advisor.sources.base import Source

#: The label that tells the leaves of a pack apart. No exporter has it.
PART = "gpu_advisor_part"

#: A pack holds this many leaves if it can: a small one ends well within its time limit, and its answer, some 0.13 KiB
#: a leaf and GPU, is not large in memory.
FEW_LEAVES = 4

#: There are never more packs than this, however many leaves.
MOST_WINDOWED, MOST_INSTANT = 8, 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Queries that answer some expressions. `packs` hold the leaves of each query."""

    expressions: Mapping[str, Expression]
    packs: tuple[tuple[Expression, ...], ...]

    @property
    def queries(self) -> dict[str, Expression]:
        """What is asked, by number."""
        return {str(number): _packed(pack) for number, pack in enumerate(self.packs)}

    @property
    def windowed(self) -> int:
        """How many of the queries read windows."""
        return sum(1 for pack in self.packs if any(map(_window, pack)))

    @property
    def window_selectors(self) -> int:
        """How many windows the server reads: what the queries cost it."""
        return sum(1 for pack in self.packs for leaf in pack for select in selects_of(leaf) if select.window_seconds)

    def read(self, source: Source, at: float) -> dict[str, Vector]:
        """Each expression at time `at` (seconds since 1970). Raises SourceError."""
        known: dict[Expression, Values] = {}
        same: dict[Labels, Labels] = {}
        answers = dict(source.instant(self.queries, at))
        for number, pack in enumerate(self.packs):
            known |= _unpacked(pack, answers.pop(str(number)), same)  # let go of: half of what is needed at most
        return {key: evaluate(expression, known.get) for key, expression in self.expressions.items()}


def plan(expressions: Mapping[str, Expression], leaves_in_a_pack: int = FEW_LEAVES) -> Plan:
    """The queries for some expressions. The same for equal expressions."""
    leaves = list(dict.fromkeys(leaf for expression in expressions.values() for leaf in leaves_of(expression)))
    windowed = sorted((leaf for leaf in leaves if _window(leaf)), key=_window)
    instant = [leaf for leaf in leaves if not _window(leaf)]
    return Plan(
        expressions,
        (*_packs(windowed, MOST_WINDOWED, leaves_in_a_pack), *_packs(instant, MOST_INSTANT, leaves_in_a_pack)),
    )


def leaves_of(expression: Expression) -> Iterator[Expression]:
    """The largest parts of an expression that the server computes, from left to right."""
    if _is_plain(expression):
        yield expression
    else:
        for part in parts_of(expression):
            yield from leaves_of(part)


def _is_plain(expression: Expression) -> bool:
    if not isinstance(expression, Select | Aggregate | Union | Renamed | Tagged):
        return False
    return all(map(_is_plain, parts_of(expression)))


def _window(leaf: Expression) -> int:
    return max((select.window_seconds or 0 for select in selects_of(leaf)), default=0)


def _packs(leaves: Sequence[Expression], most: int, few: int) -> Iterator[tuple[Expression, ...]]:
    size = max(few, ceil(len(leaves) / most))
    for start in range(0, len(leaves), size):
        yield tuple(leaves[start : start + size])


def _packed(pack: tuple[Expression, ...]) -> Expression:
    return pack[0] if len(pack) == 1 else union(*(Tagged(leaf, PART, str(i)) for i, leaf in enumerate(pack)))


def _unpacked(pack: tuple[Expression, ...], answer: Vector, same: dict[Labels, Labels]) -> dict[Expression, Values]:
    """The answer of each leaf. Equal label sets become one object, those of `same`."""
    if len(pack) == 1:
        return {pack[0]: dict(answer)}
    parts: dict[str, Values] = {str(number): {} for number in range(len(pack))}
    for labels, value in answer.items():
        if labels[0][0] == PART:  # nearly always, as labels are sorted
            rest = labels[1:]
            parts[labels[0][1]][same.setdefault(rest, rest)] = value
        else:
            number, rest = _untagged(labels)
            parts[number][rest] = value
    return {leaf: parts[str(number)] for number, leaf in enumerate(pack)}


def _untagged(labels: Labels) -> tuple[str, Labels]:
    for place, (name, value) in enumerate(labels):
        if name == PART:
            return value, labels[:place] + labels[place + 1 :]
    raise ValueError(f"a result of a packed query without {PART}: {labels}")
