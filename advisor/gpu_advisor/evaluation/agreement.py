"""The recommendations of one answer, so that all of them can be followed. Pure.

Each policy sees its own cause. Of two recommendations on the same GPUs, one may rest on what the other changes, or may
reject as an alternative what the other recommends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.recommendation import Recommendation, Scope, Waste
from gpu_advisor.evaluation.serving.decision_table import FEWER_KIND
from gpu_advisor.evaluation.serving.decision_table import KINDS as SERVING_KINDS

Predicate = Callable[[Recommendation], bool]


@dataclass(frozen=True, slots=True)
class Precedence:
    """Where `first` is recommended for some of the GPUs of `then`, `then` waits for it (`note`), or is left out."""

    first: Predicate
    then: Predicate
    note: str = ""


def _is(*kinds: str, direction: str = "", unit: str = "") -> Predicate:
    def holds(of: Recommendation) -> bool:
        return of.kind in kinds and direction in ("", of.direction) and unit in ("", of.unit)

    return holds


_FEWER_REPLICAS = _is("scale_down", FEWER_KIND, direction="down")
_MORE_REPLICAS = _is("scale_up", *SERVING_KINDS, direction="up")
_SERVER_SETTINGS = _is(*SERVING_KINDS, direction="change")
_SMALLER_GPU = _is("smaller_gpu")
_GUESSED_BATCH = _is("batch_size", unit="affected GPUs")

PRECEDENCES: tuple[Precedence, ...] = (
    Precedence(_FEWER_REPLICAS, _SMALLER_GPU,
               "first fewer replicas, each of which does more: then look whether a smaller GPU is still enough"),
    Precedence(_MORE_REPLICAS, _SMALLER_GPU),  # its load grows
    Precedence(_SERVER_SETTINGS, _SMALLER_GPU),  # its requests wait for the GPU
    Precedence(_is("serving_kv_cache"), _is("serving_batch_limit")),  # more sequences need more cache
    Precedence(_is("memory_saving"), _GUESSED_BATCH),  # on some ranks of the job, memory is full
    Precedence(_is("memory_saving"), _is("batch_size", direction="up"),
               "first save memory: then measure again which batch size fits"),
)  # fmt: skip

#: Alternatives by their names, which are not rejected where another recommendation is just that.
ALTERNATIVES: Mapping[str, Predicate] = {
    "a larger batch": _is("batch_size", direction="up"),
    "more GPUs": _MORE_REPLICAS,
    "fewer GPUs": _is("scale_down", "idle_reclaim", FEWER_KIND, direction="down"),
    "fewer replicas": _FEWER_REPLICAS,
}


def merge(advice: Iterable[Recommendation]) -> list[Recommendation]:
    """One of each kind, scope and direction: pools find the same of a job that has GPUs in several of them."""
    found: dict[tuple[str, Scope, str], Recommendation] = {}
    for each in advice:
        key = each.kind, each.scope, each.direction
        found[key] = _merged(found[key], each) if key in found else each
    return list(found.values())


def _merged(one: Recommendation, other: Recommendation) -> Recommendation:
    counted = one.unit == other.unit and one.recommended == other.recommended == 0
    return replace(
        one,
        summary=f"{one.summary}; in another pool, {other.summary}",
        current=one.current + other.current if counted else one.current,
        evidence=(*one.evidence, *other.evidence),
        rejected=tuple(dict.fromkeys((*one.rejected, *other.rejected))),
        actions=(*one.actions, *(each for each in other.actions if each not in one.actions)),
        gpus=(*one.gpus, *other.gpus),
        nodes=tuple(sorted({*one.nodes, *other.nodes})),
        waste=(*_of_its_gpus(one), *_of_its_gpus(other)),
    )


def _of_its_gpus(advice: Recommendation) -> Iterator[Waste]:
    for waste in advice.waste:
        yield replace(waste, gpus=waste.gpus or advice.gpus)


def agree(advice: Sequence[Recommendation]) -> Iterator[Recommendation]:
    """Those that can be followed together, in the same order."""
    rules = [(rule, [each for each in advice if rule.first(each)]) for rule in PRECEDENCES]
    kept: list[tuple[Recommendation, tuple[Action, ...]]] = []
    for each in advice:
        found = [rule for rule, firsts in rules if rule.then(each) and _any_concerns(firsts, each)]
        if all(rule.note for rule in found):
            kept.append((each, notes(*(rule.note for rule in found))))
    recommended = {name: [each for each, _ in kept if is_it(each)] for name, is_it in ALTERNATIVES.items()}
    for each, first in kept:
        rejected = tuple(other for other in each.rejected if not _any_concerns(recommended.get(other.action, ()), each))
        unchanged = not first and len(rejected) == len(each.rejected)
        yield each if unchanged else replace(each, actions=(*first, *each.actions), rejected=rejected)


def contradicts(one: Recommendation, others: Sequence[Recommendation]) -> bool:
    """Whether it cannot be followed together with all of the others: of some two, one would be left out."""
    for rule in PRECEDENCES:
        if rule.note:
            continue
        if rule.then(one) and _any_concerns((each for each in others if rule.first(each)), one):
            return True
        if rule.first(one) and any(rule.then(each) and _any_concerns((one,), each) for each in others):
            return True
    return False


def _any_concerns(others: Iterable[Recommendation], one: Recommendation) -> bool:
    """Whether another of them is on some of its GPUs, or on its job."""
    gpus: frozenset[str] = frozenset()
    for other in others:
        gpus = gpus or frozenset(one.gpus)
        same_job = other.scope == one.scope and one.scope.kind == "job"
        if other is not one and (same_job or not gpus.isdisjoint(other.gpus)):
            return True
    return False
