"""Which GPUs serve a request best, and why the others do not. Pure: no clock, no database.

The GPUs of one allocation are of one type and size. One node that has room is taken before several; of those with room,
the smallest cards that do, and of these the node on which the fewest stay over (best fit, which keeps whole nodes for
those who need whole nodes). Several nodes, where the request allows them, give the same number each, as torchrun and
MPI start the same number of processes on every node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import groupby

from gpu_advisor.allocation.errors import InsufficientCapacityError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.model import Gpu, GpuKind, Inventory, InventoryNode, NodeAllocation, NodeGpuGroup

#: Nodes that an answer tells of one by one; of the others it tells the number.
MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class Placement:
    """GPUs for a request; `memory_per_gpu` in GB, None if nobody knows."""

    shares: tuple[NodeAllocation, ...]
    gpu_type: str
    vendor: str
    memory_per_gpu: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _NodeCapacity:
    """GPUs of one kind on one node that could serve, and those of them that are free."""

    group: NodeGpuGroup
    free: tuple[Gpu, ...]


def place(request: GpuRequest, inventory: Inventory, held: Collection[str]) -> Placement:
    """The best fit. `held` are the uuids that are leased. Raises UnsatisfiableRequestError or InsufficientCapacityError, with all reasons."""
    capacities = [
        _NodeCapacity(group, tuple(gpu for gpu in group.idle if gpu.uuid not in held))
        for group in inventory.groups
        if not mismatch_reason(request, group.kind)
    ]
    chosen = _fit_one_node(request, capacities) or (
        _fit_several_nodes(request, capacities) if request.distributed_training else None
    )
    if chosen is None:
        raise _refusal_error(request, inventory, capacities, held)
    each = request.gpu_count // len(chosen)
    shares = tuple(_node_allocation(capacity.group.node, capacity.free[:each]) for capacity in chosen)
    kind = chosen[0].group.kind
    return Placement(shares, kind.gpu_type, kind.vendor, kind.memory_gb, _explain_choice(chosen, capacities, each))


def mismatch_reason(request: GpuRequest, kind: GpuKind) -> str:
    """Empty if such a GPU could serve the request when it is free; else what rules it out."""
    if request.gpu_type and kind.gpu_type != request.gpu_type:
        return kind.gpu_type
    if request.vendor and kind.vendor != request.vendor:
        return f"of {kind.vendor}"
    if request.memory_gb is not None:
        if kind.memory_gb is None:
            return "of unknown memory"
        if kind.memory_gb < request.memory_gb:
            return f"with {kind.memory_gb:g} GB"
    return ""


def _fit_one_node(request: GpuRequest, capacities: Sequence[_NodeCapacity]) -> list[_NodeCapacity] | None:
    enough = [capacity for capacity in capacities if len(capacity.free) >= request.gpu_count]
    return [min(enough, key=_best_fit_key)] if enough else None


def _fit_several_nodes(request: GpuRequest, capacities: Sequence[_NodeCapacity]) -> list[_NodeCapacity] | None:
    """The same number on each of as few nodes as can be."""
    by_kind = groupby(sorted(capacities, key=_best_fit_key), key=lambda capacity: capacity.group.kind)
    kinds = [list(of_kind) for _, of_kind in by_kind]
    for nodes in range(2, min(request.gpu_count, max(map(len, kinds), default=0)) + 1):
        each, rest = divmod(request.gpu_count, nodes)
        for of_kind in kinds if rest == 0 else ():
            enough = [capacity for capacity in of_kind if len(capacity.free) >= each]
            if len(enough) >= nodes:
                return enough[:nodes]
    return None


def _best_fit_key(capacity: _NodeCapacity) -> tuple[GpuKind, int, str]:
    return capacity.group.kind, len(capacity.free), capacity.group.node.name


def _node_allocation(node: InventoryNode, gpus: Sequence[Gpu]) -> NodeAllocation:
    return NodeAllocation(node.name, tuple(gpu.index for gpu in gpus), tuple(gpu.uuid for gpu in gpus), node.address)


def _explain_choice(chosen: Sequence[_NodeCapacity], capacities: Sequence[_NodeCapacity], each: int) -> tuple[str, ...]:
    taken = {capacity.group.node.name for capacity in chosen}
    said = [
        f"{capacity.group.node.name}: {each} of {len(capacity.free)} free {_kind_label(capacity.group.kind)}, "
        f"{len(capacity.free) - each} stay free"
        for capacity in chosen[:MAX_REASONS]
    ]
    others = [
        capacity for capacity in capacities if len(capacity.free) >= each and capacity.group.node.name not in taken
    ]
    if others:
        best = min(others, key=_best_fit_key)
        larger = best.group.kind.size > chosen[0].group.kind.size
        why = "has larger cards" if larger else f"would have {len(best.free) - each} left"
        said.append(f"{best.group.node.name} was next: it {why}")
    return tuple(said)


def _refusal_error(
    request: GpuRequest, inventory: Inventory, capacities: Sequence[_NodeCapacity], held: Collection[str]
) -> UnsatisfiableRequestError | InsufficientCapacityError:
    reasons = _node_reasons(request, inventory, capacities, held)
    wanted = f"{request.gpu_count} x {_request_label(request)}"
    if not capacities:
        of_any_size = replace(request, memory_gb=None)
        alike = [group.kind.memory_gb for group in inventory.groups if not mismatch_reason(of_any_size, group.kind)]
        if alike:
            sizes = [size for size in alike if size is not None]
            most = f"the largest has {max(sizes):g} GB" if sizes else "their memory is not known"
            return UnsatisfiableRequestError(
                "memory_gb", f"{request.memory_gb:g} GB: no such GPU here, {most}", reasons
            )
        types = ", ".join(sorted(inventory.types)) or "no GPUs"
        return UnsatisfiableRequestError(
            "gpu_type", f"no {_request_label(of_any_size)} here; there are {types}", reasons
        )
    largest = max(len(capacity.group.gpus) for capacity in capacities)
    if request.distributed_training:
        all_capacities = [_NodeCapacity(capacity.group, capacity.group.gpus) for capacity in capacities]
        if not (_fit_one_node(request, all_capacities) or _fit_several_nodes(request, all_capacities)):
            return UnsatisfiableRequestError(
                "gpu_count", f"{wanted}: not here, in equal parts on nodes of one type, even if all were free", reasons
            )
    elif request.gpu_count > largest:
        return UnsatisfiableRequestError(
            "gpu_count",
            f"{wanted}: the largest node has {largest}; ask for fewer, or for several nodes with distributed_training",
            reasons,
        )
    return InsufficientCapacityError(f"{wanted}: not free now; try again later, or ask for less", reasons)


def _node_reasons(
    request: GpuRequest, inventory: Inventory, capacities: Sequence[_NodeCapacity], held: Collection[str]
) -> tuple[str, ...]:
    """What each node failed on, those with the most that is free first; of very many nodes only the number."""
    free = Counter[str]()
    for capacity in capacities:
        free[capacity.group.node.name] += len(capacity.free)
    listed_nodes = nsmallest(MAX_REASONS, inventory.nodes, key=lambda node: (-free[node.name], node.name))
    said = [f"{node.name}: {_node_summary(request, node, inventory, held)}" for node in listed_nodes]
    others = len(inventory.nodes) - len(listed_nodes)
    return (*said, f"and {others} other nodes") if others else tuple(said)


def _node_summary(request: GpuRequest, node: InventoryNode, inventory: Inventory, held: Collection[str]) -> str:
    """Counted over the node's GPUs."""
    why = Counter[str]()
    for group in inventory.groups:
        if group.node is node:
            unfit = mismatch_reason(request, group.kind)
            why.update(
                unfit or ("leased" if gpu.uuid in held else "" if gpu.free else gpu.why_not) for gpu in group.gpus
            )
    free = why.pop("", 0)
    counted = [f"{count} {reason}" for reason, count in sorted(why.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([f"{free} of {len(node.gpus)} are free and fit", *counted])


def _request_label(request: GpuRequest) -> str:
    name = request.gpu_type or (f"GPU of {request.vendor}" if request.vendor else "GPU")
    return name if request.memory_gb is None else f"{name} with {request.memory_gb:g} GB"


def _kind_label(kind: GpuKind) -> str:
    return kind.gpu_type if kind.memory_gb is None else f"{kind.gpu_type} ({kind.memory_gb:g} GB)"
