"""What makes two recommendations of one answer impossible to follow together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from gpu_advisor.evaluation.actions import Action
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import is_lost
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.savings import SIZE_UNITS

#: Kinds that change how the work on a GPU runs: pointless where there is none, or where it is to end.
TUNING = frozenset(
    {
        "batch_size", "communication", "data_loading", "memory_saving", "mixed_precision", "profiling", "smaller_gpu",
        "straggler",
    }
)  # fmt: skip
RELEASING = frozenset({"idle_reclaim"})
ASKING = frozenset({"hung_job", "idle_lease"})

#: Names of alternatives, and what recommends just that.
ALTERNATIVES: Mapping[str, Callable[[Recommendation], bool]] = {
    "a larger batch": lambda of: of.kind == "batch_size" and of.direction == "up",
    "more GPUs": lambda of: _grows(of),
    "fewer GPUs": lambda of: _shrinks(of),
    "fewer replicas": lambda of: _shrinks(of) and of.kind != "idle_reclaim",
    "release its GPUs": lambda of: of.kind in RELEASING,
    "release them": lambda of: of.kind in RELEASING,
    "reset the GPU": lambda of: any("--gpu-reset" in _argv(each) for each in of.actions),
}


def contradictions(advice: Sequence[Recommendation], facts: Facts) -> list[str]:
    """A line for each; empty if all can be followed."""
    return [*_of_one(advice, facts), *(line for pair in itertools.combinations(advice, 2) for line in _of_two(*pair))]


def _of_one(advice: Sequence[Recommendation], facts: Facts) -> Iterator[str]:
    ids = [each.id("") for each in advice]
    if len(set(ids)) < len(ids):
        yield f"one id for several: {sorted(each.summary for each in advice if ids.count(each.id('')) > 1)}"
    lost = {gpu.uuid for gpu in facts.gpus if is_lost(facts, gpu)}
    for each in advice:
        if each.kind != "lost_gpu" and lost & set(each.gpus):
            yield f"{each.kind} counts on lost GPUs {lost & set(each.gpus)}"


def _of_two(one: Recommendation, other: Recommendation) -> Iterator[str]:
    both = f"{one.kind} ({one.summary}) and {other.kind} ({other.summary})"
    if not (set(one.gpus) & set(other.gpus) or (one.scope == other.scope and one.scope.kind == "job")):
        return
    for first, then in ((one, other), (other, one)):
        if _grows(first) and _shrinks(then) and first.scope == then.scope and not _works_together(first, then):
            yield f"grow and shrink: {both}"
        shared = set(first.gpus) & set(then.gpus)
        if first.kind in RELEASING | ASKING and then.kind in TUNING and shared:
            yield f"tune work that is not there: {both}"
        if first.kind in RELEASING and then.kind in ASKING and shared:
            yield f"release what is only to be asked about: {both}"
        if (first.kind, then.kind) == ("serving_kv_cache", "serving_batch_limit") and shared:
            yield f"more sequences where their cache is full: {both}"
        if _grows(first) and then.kind == "smaller_gpu" and shared:
            yield f"more load on smaller GPUs: {both}"
        larger = then.kind == "batch_size" and then.direction == "up"
        if first.kind == "memory_saving" and larger and not any("first save" in each.note for each in then.actions):
            yield f"a larger batch where memory is full: {both}"
        for alternative in first.rejected:
            if (is_it := ALTERNATIVES.get(alternative.action)) and is_it(then) and shared:
                yield f"rejects what the other recommends: {both}"
    yield from (f"{line}: {both}" for line in _opposite_commands(one.actions, other.actions))


def _works_together(grows: Recommendation, shrinks: Recommendation) -> bool:
    """Owners release idle GPUs to the work that waits, and more are added for what does not fit on these."""
    stay = any("leave the GPUs in the pool" in each.note for each in shrinks.actions)
    return shrinks.kind in RELEASING and grows.kind == "scale_up" and stay


def _grows(of: Recommendation) -> bool:
    return of.unit in SIZE_UNITS and of.direction == "up"


def _shrinks(of: Recommendation) -> bool:
    return of.unit in SIZE_UNITS and of.direction == "down"


def _opposite_commands(one: Sequence[Action], other: Sequence[Action]) -> Iterator[str]:
    """The same command on the same thing with another value, as two power limits."""
    for first, then in itertools.product(one, other):
        a, b = _argv(first), _argv(then)
        sets_value = "-pl" in a or "scale" in a
        if sets_value and a != b and len(a) == len(b) and a[:-1] == b[:-1] and first.target == then.target:
            yield f"{' '.join(a)} and {' '.join(b)}"


def _argv(action: Action) -> tuple[str, ...]:
    argv = action.parameters.get("argv", ())
    return argv if isinstance(argv, tuple) else ()
