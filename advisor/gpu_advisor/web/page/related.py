"""Which recommendations belong to a check. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.recommendation import Check, Recommendation
from gpu_advisor.evaluation.savings import SIZE_UNITS
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.state.measures import MEASURES


def _measured_by(signal: Signal) -> frozenset[str]:
    return frozenset(kind for kind, measures in MEASURES.items() if any(each.signal is signal for each in measures))


#: Kinds that change what an item measures: those whose outcome is measured by it, and those without a measure of their
#: own, or with another.
_KINDS: Mapping[str, frozenset[str]] = {
    "gpu_utilization": _measured_by(signals.IDLE_UTILIZATION) | {"smaller_gpu"},
    "gpu_memory": _measured_by(signals.IDLE_MEMORY_USED) | {"batch_size", "idle_reclaim", "smaller_gpu"},
}


def belongs_to(item: str, advice: Recommendation) -> bool:
    """Whether a recommendation changes what the item measures, or saves GPUs, which the cost counts.

    The size of a pool decides the utilization of its GPUs, and what they cost.
    """
    sizes = item in ("gpu_utilization", "cost") and advice.unit in SIZE_UNITS
    saves = item == "cost" and advice.savings is not None
    return sizes or saves or advice.kind in _KINDS.get(item, frozenset())


def is_related(check: Check, advice: Recommendation) -> bool:
    """Whether the recommendation is about the check's GPUs, or changes what it measures."""
    of = check.scope
    return (
        (of.kind == "fleet" and belongs_to(check.item, advice))
        or of == advice.scope
        or (of.kind == "gpu" and of.name in advice.gpus)
        or (of.kind == "node" and of.name in advice.nodes)
    )
