"""Which GPUs are lost: down for a window, for a reason that lies in the hardware. Pure.

A driver that is unloaded or was released, or an exporter without permission, says nothing about the GPU: such a GPU is
unknown, and stops the sizing of its pool. A lost one does not come back by itself: it is no capacity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import GPU_UP_COVERAGE, GPU_UP_HIGHEST

#: What gpu_down_info reports of the hardware, and how to say it.
HARDWARE_REASONS: Mapping[str, str] = {
    "lost": "fell off the bus",
    "hung": "does not answer its driver",
}


def is_down_by_hardware(facts: Facts, gpu: Gpu) -> bool:
    """Whether the GPU is down now, for a hardware reason: too early to call it lost."""
    return gpu.up is False and facts.down_reasons.get(gpu.uuid) in HARDWARE_REASONS


def is_lost(facts: Facts, gpu: Gpu) -> bool:
    """Whether the GPU was down for all of a window with enough samples, for a hardware reason."""
    if not is_down_by_hardware(facts, gpu):
        return False
    coverage = facts.value(GPU_UP_COVERAGE, gpu.uuid)
    return (
        facts.value(GPU_UP_HIGHEST, gpu.uuid) == 0
        and coverage is not None
        and coverage >= facts.evaluation.min_coverage_ratio
    )


def without_lost(facts: Facts, gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs that are capacity."""
    return tuple(gpu for gpu in gpus if not is_lost(facts, gpu))


def faulty_nodes(facts: Facts) -> frozenset[str]:
    """Nodes with several GPUs that are all lost: what they share is at fault."""
    by_node: dict[str, list[Gpu]] = {}
    for gpu in facts.gpus:
        by_node.setdefault(gpu.node, []).append(gpu)
    return frozenset(
        node for node, gpus in by_node.items() if len(gpus) > 1 and all(is_lost(facts, gpu) for gpu in gpus)
    )
