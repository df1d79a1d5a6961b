"""The recommendations of a response as a terminal lists them: those of a group are one entry. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_advisor.commands import money, output

if TYPE_CHECKING:
    from gpu_advisor.documents import schema


@dataclass(frozen=True, slots=True)
class AdviceEntry:
    """One recommendation, or those of a group, the most urgent first."""

    members: tuple[schema.RecommendationDocument, ...]
    group: schema.RecommendationGroupDocument | None = None

    @property
    def first(self) -> schema.RecommendationDocument:
        return self.members[0]

    @property
    def summary(self) -> str:
        return self.group["summary"] if self.group else self.first["summary"]

    @property
    def severity(self) -> str:
        return self.first["severity"]

    @property
    def savings(self) -> str:
        """A month, in short."""
        return money.format_savings(self.group or self.first, short=True)

    @property
    def apply(self) -> list[str]:
        return self.group["apply"] if self.group else self.first["apply"]

    @property
    def owners(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.members for name in each["owners"]))

    @property
    def since(self) -> str:
        """Of the oldest. RFC 3339 times of one precision are in order as text."""
        return min(each["since"] for each in self.members)

    @property
    def marks(self) -> list[str]:
        """`stale`, `snoozed`, and of a group `1 snoozed` if it is not all of it."""
        snoozed = sum(1 for each in self.members if each["snoozed"])
        if 0 < snoozed < len(self.members):
            return [*(mark for mark in output.marks(self.first) if mark != "snoozed"), f"{snoozed} snoozed"]
        return output.marks(self.first)


def entries(answer: schema.Recommendations) -> Iterator[AdviceEntry]:
    """In the response's order; a group stands where its first member does."""
    groups = {id_: group for group in answer["groups"] for id_ in group["ids"]}
    by_id = {each["id"]: each for each in answer["recommendations"]}
    shown: set[str] = set()
    for each in answer["recommendations"]:
        group = groups.get(each["id"])
        if group is None:
            yield AdviceEntry((each,))
        elif each["id"] not in shown:
            shown.update(group["ids"])
            yield AdviceEntry(tuple(by_id[id_] for id_ in group["ids"] if id_ in by_id), group)
