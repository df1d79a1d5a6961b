"""The inventory from the signals. A GPU is free only if it is known to be unused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gpu_advisor.allocation.model import Inventory, InventoryGpu, InventoryNode
from gpu_advisor.evaluation import facts as observed
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB, nominal_gb, parse_gpu_type, vendor_of_type

#: If an exporter does not count processes, a GPU with more memory used than this is in use. The driver alone uses a few
#: hundred MB.
MAX_IDLE_MEMORY_RATIO = 0.05


def inventory_from_facts(
    facts: Facts, stale: bool = False, specs: Mapping[str, float] = DEFAULT_MEMORY_GB
) -> Inventory | None:
    """The inventory of an evaluation; None without GPUs. `specs`: GB by type, for nodes that do not report memory."""
    if not facts.gpus:
        return None
    partitioned = {(gpu.node, _parent_index(gpu)) for gpu in facts.gpus if _is_mig_instance(gpu)}
    by_node: dict[str, list[InventoryGpu]] = {}
    for gpu in facts.gpus:
        known = by_node.setdefault(gpu.node, [])
        found = _inventory_gpu(facts, gpu, len(known), specs)
        if (gpu.node, gpu.index) in partitioned:  # the GPU and its MIG instances must not be leased separately
            found = replace(found, free=False, unavailable_reason="partitioned: its MIG instances are allocated")
        known.append(found)
    addresses = {node.name: observed.host_of(node.instance) for node in facts.nodes}
    nodes = [InventoryNode(name, tuple(gpus), addresses.get(name, "")) for name, gpus in by_node.items()]
    return Inventory(tuple(sorted(nodes, key=lambda node: node.name)), facts.at, stale)


def _inventory_gpu(facts: Facts, gpu: observed.Gpu, position: int, specs: Mapping[str, float]) -> InventoryGpu:
    kind = parse_gpu_type(gpu.name)
    reported = facts.value(signals.MEMORY_TOTAL, gpu.uuid)
    if _is_mig_instance(gpu) and "MIG" not in kind.name:  # a request for an A100 does not mean a seventh of one
        kind = replace(kind, name=f"{kind.name}MIG")
    stated_gb = kind.memory_gb or specs.get(kind.name)
    fallback = None if "MIG" in kind.name else stated_gb  # a MIG instance has less memory than its GPU
    unavailable_reason = busy_reason(facts, gpu)
    return InventoryGpu(
        index=int(gpu.index) if gpu.index.isdecimal() else position,
        uuid=gpu.uuid,
        gpu_type=kind.name or "UNKNOWN",
        memory_gb=nominal_gb(kind.name, reported) if reported else fallback,
        vendor=gpu.vendor.lower() or vendor_of_type(kind.name, gpu.name),
        utilization_ratio=facts.value(signals.UTILIZATION, gpu.uuid),
        memory_used_ratio=facts.value(signals.MEMORY_USED, gpu.uuid),
        free=not unavailable_reason,
        unavailable_reason=unavailable_reason,
    )


def _is_mig_instance(gpu: observed.Gpu) -> bool:
    """gpu-exporter's index of a MIG instance is GPU:INSTANCE; its UUID from the driver also shows it."""
    return ":" in gpu.index or gpu.uuid.startswith("MIG-")


def _parent_index(gpu: observed.Gpu) -> str:
    return gpu.index.partition(":")[0]


def busy_reason(facts: Facts, gpu: observed.Gpu) -> str:
    """Why a GPU cannot be allocated; empty if it is known to be healthy and unused."""
    if gpu.up is not True:
        return "down" if gpu.up is False else "not reporting"
    for signal in (signals.FATAL_ERRORS, signals.ROW_REMAP_FAILED):
        if (facts.value(signal, gpu.uuid) or 0) > 0:
            return "failed recently"
    if gpu.node in facts.slurm_nodes:  # a second book of leases beside a scheduler's would give GPUs twice
        return "on a node that Slurm schedules: submit the request there (gpu-advisor allocate --backend slurm)"
    owner = facts.jobs.get(gpu.uuid) or facts.reported_jobs.get(gpu.uuid)
    if owner:
        return f"used by {owner}"
    processes = facts.value(signals.PROCESSES, gpu.uuid)
    if processes is not None:
        return "used by a process" if processes > 0 else ""
    memory, work = facts.value(signals.MEMORY_USED, gpu.uuid), facts.value(signals.UTILIZATION, gpu.uuid)
    if memory is None or work is None:
        return "not known to be free: neither processes nor memory and utilization are reported"
    if memory > MAX_IDLE_MEMORY_RATIO:
        return "memory allocated"
    return "busy" if 100 * work >= facts.evaluation.idle_utilization else ""
