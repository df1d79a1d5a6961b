"""The machines as the signals show them. A GPU is free only if it is known that nobody uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gpu_advisor.allocation.model import Gpu, Inventory, InventoryNode
from gpu_advisor.evaluation import facts as seen
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB, parse_gpu_type, sold_gb, vendor_of_type

#: Where an exporter does not count processes: a GPU that holds more than this of its memory is in use. A driver alone
#: holds some hundred MB.
MAX_IDLE_MEMORY_RATIO = 0.05


def inventory_from_facts(
    facts: Facts, stale: bool = False, specs: Mapping[str, float] = DEFAULT_MEMORY_GB
) -> Inventory | None:
    """The inventory of an evaluation; None if it saw no GPU. `specs` has the GB of types whose machines do not tell."""
    if not facts.gpus:
        return None
    partitioned = {(gpu.node, _parent_index(gpu)) for gpu in facts.gpus if _is_mig_instance(gpu)}
    by_node: dict[str, list[Gpu]] = {}
    for gpu in facts.gpus:
        known = by_node.setdefault(gpu.node, [])
        found = _inventory_gpu(facts, gpu, len(known), specs)
        if (gpu.node, gpu.index) in partitioned:  # or it and its slices could be given to two
            found = replace(found, free=False, why_not="parted: its slices are given out")
        known.append(found)
    addresses = {node.name: seen.host_of(node.instance) for node in facts.nodes}
    nodes = [InventoryNode(name, tuple(gpus), addresses.get(name, "")) for name, gpus in by_node.items()]
    return Inventory(tuple(sorted(nodes, key=lambda node: node.name)), facts.at, stale)


def _inventory_gpu(facts: Facts, gpu: seen.Gpu, position: int, specs: Mapping[str, float]) -> Gpu:
    kind = parse_gpu_type(gpu.name)
    reported = facts.value(signals.MEMORY_TOTAL, gpu.uuid)
    if _is_mig_instance(gpu) and "MIG" not in kind.name:  # who asks for an A100 does not mean a seventh of one
        kind = replace(kind, name=f"{kind.name}MIG")
    stated_gb = kind.memory_gb or specs.get(kind.name)
    fallback = None if "MIG" in kind.name else stated_gb  # a slice has less than its card
    why_not = busy_reason(facts, gpu)
    return Gpu(
        index=int(gpu.index) if gpu.index.isdecimal() else position,
        uuid=gpu.uuid,
        gpu_type=kind.name or "UNKNOWN",
        memory_gb=sold_gb(kind.name, reported) if reported else fallback,
        vendor=gpu.vendor.lower() or vendor_of_type(kind.name, gpu.name),
        utilization_ratio=facts.value(signals.UTILIZATION, gpu.uuid),
        memory_used_ratio=facts.value(signals.MEMORY_USED, gpu.uuid),
        free=not why_not,
        why_not=why_not,
    )


def _is_mig_instance(gpu: seen.Gpu) -> bool:
    """Part of a card (MIG). gpu-exporter numbers slices CARD:SLICE; the driver's uuid says it too."""
    return ":" in gpu.index or gpu.uuid.startswith("MIG-")


def _parent_index(gpu: seen.Gpu) -> str:
    return gpu.index.partition(":")[0]


def busy_reason(facts: Facts, gpu: seen.Gpu) -> str:
    """Why a GPU cannot be given out; empty if it is known that nobody uses it and that it is well."""
    if gpu.up is not True:
        return "down" if gpu.up is False else "not heard of"
    for signal in (signals.FATAL_ERRORS, signals.ROW_REMAP_FAILED):
        if (facts.value(signal, gpu.uuid) or 0) > 0:
            return "failed lately"
    owner = facts.jobs.get(gpu.uuid) or facts.reported_jobs.get(gpu.uuid)
    if owner:
        return f"used by {owner}"
    processes = facts.value(signals.PROCESSES, gpu.uuid)
    if processes is not None:
        return "used by a process" if processes > 0 else ""
    memory, work = facts.value(signals.MEMORY_USED, gpu.uuid), facts.value(signals.UTILIZATION, gpu.uuid)
    if memory is None or work is None:
        return "not known to be free: neither its processes nor its memory and utilization are told"
    if memory > MAX_IDLE_MEMORY_RATIO:
        return "holding memory"
    return "at work" if 100 * work >= facts.evaluation.idle_utilization else ""
