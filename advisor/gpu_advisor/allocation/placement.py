"""Best-fit placement of a request, with reasons. Pure: no clock, no database.

The GPUs of an allocation have one type and size. A single node is preferred to several; among nodes, the smallest
sufficient GPU, then the node with the fewest free GPUs left (best fit keeps whole nodes free for large requests). If
the request allows several nodes, each gets the same number of GPUs, because torchrun and MPI start the same number of
processes on every node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import groupby

from gpu_advisor.allocation.errors import InsufficientCapacityError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.model import GpuKind, Inventory, InventoryGpu, InventoryNode, NodeAllocation, NodeGpuGroup

#: Nodes listed in an answer; of the others it gives the number.
MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class Placement:
    """GPUs for a request; `memory_per_gpu` in GB, None if unknown."""

    shares: tuple[NodeAllocation, ...]
    gpu_type: str
    vendor: str
    memory_per_gpu: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _NodeCapacity:
    """GPUs of one kind on one node that match a request, and the free ones among them."""

    group: NodeGpuGroup
    free: tuple[InventoryGpu, ...]


def place(request: GpuRequest, inventory: Inventory, leased: Collection[str]) -> Placement:
    """The best fit. `leased`: uuids. Raises UnsatisfiableRequestError or InsufficientCapacityError, with reasons."""
    capacities = [
        _NodeCapacity(group, tuple(gpu for gpu in group.idle if gpu.uuid not in leased))
        for group in inventory.groups
        if not mismatch_reason(request, group.kind)
    ]
    chosen = _fit_one_node(request, capacities) or (
        _fit_several_nodes(request, capacities) if request.distributed_training else None
    )
    if chosen is None:
        raise _refusal_error(request, inventory, capacities, leased)
    per_node = request.gpu_count // len(chosen)
    shares = tuple(_node_allocation(capacity.group.node, capacity.free[:per_node]) for capacity in chosen)
    kind = chosen[0].group.kind
    return Placement(shares, kind.gpu_type, kind.vendor, kind.memory_gb, _explain_choice(chosen, capacities, per_node))


def mismatch_reason(request: GpuRequest, kind: GpuKind) -> str:
    """Why GPUs of this kind do not match the request; empty if they do."""
    if request.gpu_type and kind.gpu_type != request.gpu_type:
        return kind.gpu_type
    if request.vendor and kind.vendor != request.vendor:
        return f"by {kind.vendor}"
    if request.memory_gb is not None:
        if kind.memory_gb is None:
            return "with unknown memory"
        if kind.memory_gb < request.memory_gb:
            return f"with {kind.memory_gb:g} GB"
    return ""


def _fit_one_node(request: GpuRequest, capacities: Sequence[_NodeCapacity]) -> list[_NodeCapacity] | None:
    enough = [capacity for capacity in capacities if len(capacity.free) >= request.gpu_count]
    return [min(enough, key=_best_fit_key)] if enough else None


def _fit_several_nodes(request: GpuRequest, capacities: Sequence[_NodeCapacity]) -> list[_NodeCapacity] | None:
    """The same number of GPUs on each of as few nodes as possible."""
    by_kind = groupby(sorted(capacities, key=_best_fit_key), key=lambda capacity: capacity.group.kind)
    kinds = [list(of_kind) for _, of_kind in by_kind]
    for nodes in range(2, min(request.gpu_count, max(map(len, kinds), default=0)) + 1):
        per_node, rest = divmod(request.gpu_count, nodes)
        for of_kind in kinds if rest == 0 else ():
            enough = [capacity for capacity in of_kind if len(capacity.free) >= per_node]
            if len(enough) >= nodes:
                return enough[:nodes]
    return None


def _best_fit_key(capacity: _NodeCapacity) -> tuple[GpuKind, int, str]:
    return capacity.group.kind, len(capacity.free), capacity.group.node.name


def _node_allocation(node: InventoryNode, gpus: Sequence[InventoryGpu]) -> NodeAllocation:
    return NodeAllocation(node.name, tuple(gpu.index for gpu in gpus), tuple(gpu.uuid for gpu in gpus), node.address)


def _explain_choice(
    chosen: Sequence[_NodeCapacity], capacities: Sequence[_NodeCapacity], per_node: int
) -> tuple[str, ...]:
    chosen_names = {capacity.group.node.name for capacity in chosen}
    reasons = [
        f"{capacity.group.node.name}: {per_node} of {len(capacity.free)} free {_kind_label(capacity.group.kind)}, "
        f"{len(capacity.free) - per_node} remain free"
        for capacity in chosen[:MAX_REASONS]
    ]
    others = [
        capacity
        for capacity in capacities
        if len(capacity.free) >= per_node and capacity.group.node.name not in chosen_names
    ]
    if others:
        best = min(others, key=_best_fit_key)
        larger = best.group.kind.size > chosen[0].group.kind.size
        why = "has larger GPUs" if larger else f"would have {len(best.free) - per_node} left"
        reasons.append(f"next best: {best.group.node.name}, which {why}")
    return tuple(reasons)


def _refusal_error(
    request: GpuRequest, inventory: Inventory, capacities: Sequence[_NodeCapacity], leased: Collection[str]
) -> UnsatisfiableRequestError | InsufficientCapacityError:
    reasons = _node_reasons(request, inventory, capacities, leased)
    label = f"{request.gpu_count} x {_request_label(request)}"
    if not capacities:
        of_any_size = replace(request, memory_gb=None)
        alike = [group.kind.memory_gb for group in inventory.groups if not mismatch_reason(of_any_size, group.kind)]
        if alike:
            sizes = [size for size in alike if size is not None]
            most = f"the largest has {max(sizes):g} GB" if sizes else "their memory is unknown"
            return UnsatisfiableRequestError(
                "memory_gb", f"no matching GPU in the inventory has {request.memory_gb:g} GB; {most}", reasons
            )
        types = ", ".join(sorted(inventory.types)) or "no GPUs"
        return UnsatisfiableRequestError(
            "gpu_type", f"no {_request_label(of_any_size)} in the inventory, which has {types}", reasons
        )
    largest = max(len(capacity.group.gpus) for capacity in capacities)
    if request.distributed_training:
        all_capacities = [_NodeCapacity(capacity.group, capacity.group.gpus) for capacity in capacities]
        if not (_fit_one_node(request, all_capacities) or _fit_several_nodes(request, all_capacities)):
            return UnsatisfiableRequestError(
                "gpu_count",
                f"{label}: cannot be split evenly over nodes of one type, even with all GPUs free; change the number",
                reasons,
            )
    elif request.gpu_count > largest:
        return UnsatisfiableRequestError(
            "gpu_count",
            f"{label}: the largest node has {largest}; request fewer, or allow several nodes with distributed_training",
            reasons,
        )
    return InsufficientCapacityError(f"{label}: not free now; retry later, or request less", reasons)


def _node_reasons(
    request: GpuRequest, inventory: Inventory, capacities: Sequence[_NodeCapacity], leased: Collection[str]
) -> tuple[str, ...]:
    """Why each node cannot serve the request, nodes with the most free GPUs first, at most MAX_REASONS."""
    free = Counter[str]()
    for capacity in capacities:
        free[capacity.group.node.name] += len(capacity.free)
    listed_nodes = nsmallest(MAX_REASONS, inventory.nodes, key=lambda node: (-free[node.name], node.name))
    reasons = [f"{node.name}: {_node_summary(request, node, inventory, leased)}" for node in listed_nodes]
    others = len(inventory.nodes) - len(listed_nodes)
    return (*reasons, f"and {others} other nodes") if others else tuple(reasons)


def _node_summary(request: GpuRequest, node: InventoryNode, inventory: Inventory, leased: Collection[str]) -> str:
    """Counts of the node's GPUs by reason."""
    why = Counter[str]()
    for group in inventory.groups:
        if group.node is node:
            unfit = mismatch_reason(request, group.kind)
            why.update(
                unfit or ("leased" if gpu.uuid in leased else "" if gpu.free else gpu.unavailable_reason)
                for gpu in group.gpus
            )
    free = why.pop("", 0)
    counted = [f"{count} {reason}" for reason, count in sorted(why.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([f"{free} of {len(node.gpus)} are free and match", *counted])


def _request_label(request: GpuRequest) -> str:
    name = request.gpu_type or (f"{request.vendor} GPU" if request.vendor else "GPU")
    return name if request.memory_gb is None else f"{name} with {request.memory_gb:g} GB"


def _kind_label(kind: GpuKind) -> str:
    return kind.gpu_type if kind.memory_gb is None else f"{kind.gpu_type} ({kind.memory_gb:g} GB)"
