"""The overview's list of recommendations: cards in full, and in short what would repeat them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from gpu_advisor.documents.advice_groups import AdviceGroup

#: Cards of the same kind and cause one after another; a longer run is shown in short from here on.
MAX_ALIKE = 3


@dataclass(frozen=True, slots=True)
class ListedAdvice:
    """An entry of the list. `rank` counts recommendations from 1: a group takes as many as it has open."""

    group: AdviceGroup
    rank: int

    @property
    def numbers(self) -> str:
        """`4`, or of a group from the first to the last."""
        last = self.rank + len(self.group.open) - 1
        return f"{self.rank}–{last}" if last > self.rank else f"{self.rank}"


@dataclass(frozen=True, slots=True)
class AdviceRun:
    """Entries of the same kind and cause, the first in full, the others in short."""

    cards: tuple[ListedAdvice, ...]
    others: tuple[ListedAdvice, ...]


@dataclass(frozen=True, slots=True)
class AdviceList:
    """`more`: what follows the last card, in short. `shown` counts recommendations."""

    runs: tuple[AdviceRun, ...]
    more: tuple[ListedAdvice, ...]
    shown: int


def advice_list(groups: Sequence[AdviceGroup], max_cards: int, max_listed: int) -> AdviceList:
    """The open ones of these, at most `max_cards` in full, and `max_listed` in all."""
    listed = list(_numbered(groups))[:max_listed]
    runs: list[AdviceRun] = []
    cards, place = 0, 0
    for _, found in groupby(listed, lambda each: (each.group.advice.kind, each.group.advice.diagnosis)):
        if cards == max_cards:
            break
        alike = tuple(found)
        full = len(alike) if len(alike) <= MAX_ALIKE + 1 else MAX_ALIKE
        full = min(full, max_cards - cards)
        runs.append(AdviceRun(alike[:full], alike[full:]))
        cards, place = cards + full, place + len(alike)
    return AdviceList(tuple(runs), tuple(listed[place:]), sum(len(each.group.open) for each in listed))


def _numbered(groups: Sequence[AdviceGroup]) -> Iterator[ListedAdvice]:
    rank = 1
    for group in groups:
        if group.open:
            yield ListedAdvice(group, rank)
            rank += len(group.open)
