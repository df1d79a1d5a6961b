"""Which recommendations belong to an item of the fleet's checklist. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_advisor.evaluation.recommendation import Recommendation

#: Kinds that change what an item measures, by item.
_KINDS: Mapping[str, frozenset[str]] = {
    "gpu_memory": frozenset({"memory_saving", "smaller_gpu", "batch_size"}),
    "cpu": frozenset({"data_loading"}),
    "memory": frozenset({"data_loading"}),
    "storage": frozenset({"data_loading"}),
    "network": frozenset({"communication", "data_loading"}),
    "exporters": frozenset({"lost_gpu"}),
}

#: Kinds that leave utilization as it is; every other raises it, or lowers it where a pool is too small.
_NOT_UTILIZATION = frozenset({"memory_saving", "failing_gpu", "lost_gpu"})


def belongs_to(item: str, advice: Recommendation) -> bool:
    """Whether a recommendation changes what the item measures; the cost is changed by those that save GPUs."""
    if item == "cost":
        return advice.savings is not None
    if item == "gpu_utilization":
        return advice.kind not in _NOT_UTILIZATION
    return advice.kind in _KINDS.get(item, frozenset())
