"""Recommendations as people act on them: those for several GPUs of one node with the same remedy are one. Pure.

Each keeps its id, alert and page: a group is only how page and commands show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpu_advisor.documents.savings import by_urgency
from gpu_advisor.evaluation.recommendation import Recommendation, Savings
from gpu_advisor.evaluation.savings import bounded_savings, savings_together
from gpu_advisor.state.view import PublishedRecommendation, View


@dataclass(frozen=True, slots=True)
class AdviceGroup:
    """One recommendation or several, the most urgent first. `gpus_of_node` is 0 for one, or if unknown."""

    members: tuple[PublishedRecommendation, ...]
    gpus_of_node: int = 0

    @property
    def first(self) -> PublishedRecommendation:
        return self.members[0]

    @property
    def advice(self) -> Recommendation:
        return self.first.recommendation

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(each.id for each in self.members)

    @property
    def is_several(self) -> bool:
        return len(self.members) > 1

    @property
    def node(self) -> str:
        return next(iter(self.advice.nodes), "")

    @property
    def open(self) -> tuple[PublishedRecommendation, ...]:
        """Those that are not snoozed."""
        return tuple(each for each in self.members if not each.snoozed)

    @property
    def summary(self) -> str:
        """`3 of 8 GPUs of node-1 are lost: ...`"""
        if not self.is_several:
            return self.advice.summary
        of_all = f" of {self.gpus_of_node}" if self.gpus_of_node >= len(self.members) else ""
        return f"{len(self.members)}{of_all} GPUs of {self.node} {self.advice.of_several}"

    @property
    def explanation(self) -> str:
        """What the members say, each sentence once."""
        return " ".join(dict.fromkeys(each.recommendation.explanation for each in self.members))

    @property
    def current(self) -> float:
        """Of `advice.unit`, as `recommended`."""
        return sum(each.recommendation.current for each in self.members)

    @property
    def recommended(self) -> float:
        return sum(each.recommendation.recommended for each in self.members)

    @property
    def apply(self) -> tuple[str, ...]:
        """The steps of all members: what they share once, and before and after it what each has of its own."""
        return tuple(merge_steps([each.recommendation.apply for each in self.members]))


def merge_steps(lists: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lists of steps as one, each step once. A step that all have stands after what any of them has before it."""
    return iter(dict.fromkeys(_merged(lists)))


def _merged(rests: Sequence[Sequence[str]]) -> Iterator[str]:
    for step in rests[0]:
        if all(step in rest for rest in rests):
            places = [rest.index(step) for rest in rests]
            for rest, place in zip(rests, places, strict=True):
                yield from rest[:place]
            yield step
            rests = [rest[place + 1 :] for rest, place in zip(rests, places, strict=True)]
    for rest in rests:
        yield from rest


def group_by_node(view: View) -> list[AdviceGroup]:
    """All active recommendations, the most urgent first. A group stands where its first member does."""
    groups: dict[tuple[object, ...], list[PublishedRecommendation]] = {}
    for each in by_urgency(view.issued):
        groups.setdefault(_key(each), []).append(each)
    gpus = _gpus_by_node(view) if len(groups) < len(view.issued) else {}
    found = [AdviceGroup(tuple(members)) for members in groups.values()]
    return [AdviceGroup(each.members, gpus.get(each.node, 0)) if each.is_several else each for each in found]


def worth(group: AdviceGroup, view: View) -> Savings | None:
    """What the members that are not snoozed save together, or all if all are; None if they have no measure."""
    if view.evaluation is None:
        return group.advice.savings
    prices = view.evaluation.prices
    if not group.is_several:
        return bounded_savings(group.advice, prices)
    return savings_together([each.recommendation for each in group.open or group.members], prices)


def _key(each: PublishedRecommendation) -> tuple[object, ...]:
    advice = each.recommendation
    if not advice.of_several or len(advice.nodes) != 1:
        return (each.id,)
    return advice.kind, advice.direction, advice.severity, advice.nodes, advice.of_several, each.stale


def _gpus_by_node(view: View) -> dict[str, int]:
    """How many GPUs each node has. A GPU and its slices are one."""
    found: dict[str, set[str]] = {}
    for gpu in view.evaluation.facts.gpus if view.evaluation else ():
        found.setdefault(gpu.node, set()).add(gpu.parent or gpu.uuid)
    return {node: len(uuids) for node, uuids in found.items()}
