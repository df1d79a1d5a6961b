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

from gpu_advisor.allocation.errors import ImpossibleError, NoRoomError
from gpu_advisor.allocation.model import Gpu, Group, Inventory, Kind, Node, Share
from gpu_advisor.allocation.requests import GpuRequest

#: Nodes that an answer tells of one by one; of the others it tells the number.
MOST_REASONS = 20


@dataclass(frozen=True, slots=True)
class Placement:
    """GPUs for a request; `memory_per_gpu` in GB, None if nobody knows."""

    shares: tuple[Share, ...]
    gpu_type: str
    vendor: str
    memory_per_gpu: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Room:
    """GPUs of one kind on one node that could serve, and those of them that are free."""

    group: Group
    free: tuple[Gpu, ...]


def place(request: GpuRequest, inventory: Inventory, held: Collection[str]) -> Placement:
    """The best fit. `held` are the uuids that are leased. Raises ImpossibleError or NoRoomError, with all reasons."""
    rooms = [
        _Room(group, tuple(gpu for gpu in group.idle if gpu.uuid not in held))
        for group in inventory.groups
        if not suits(request, group.kind)
    ]
    chosen = _on_one(request, rooms) or (_on_several(request, rooms) if request.distributed_training else None)
    if chosen is None:
        raise _refusal(request, inventory, rooms, held)
    each = request.gpu_count // len(chosen)
    shares = tuple(_share(room.group.node, room.free[:each]) for room in chosen)
    kind = chosen[0].group.kind
    return Placement(shares, kind.gpu_type, kind.vendor, kind.memory_gb, _praise(chosen, rooms, each))


def suits(request: GpuRequest, kind: Kind) -> str:
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


def _on_one(request: GpuRequest, rooms: Sequence[_Room]) -> list[_Room] | None:
    enough = [room for room in rooms if len(room.free) >= request.gpu_count]
    return [min(enough, key=_tightness)] if enough else None


def _on_several(request: GpuRequest, rooms: Sequence[_Room]) -> list[_Room] | None:
    """The same number on each of as few nodes as can be."""
    by_kind = groupby(sorted(rooms, key=_tightness), key=lambda room: room.group.kind)
    kinds = [list(of_kind) for _, of_kind in by_kind]
    for nodes in range(2, min(request.gpu_count, max(map(len, kinds), default=0)) + 1):
        each, rest = divmod(request.gpu_count, nodes)
        for of_kind in kinds if rest == 0 else ():
            enough = [room for room in of_kind if len(room.free) >= each]
            if len(enough) >= nodes:
                return enough[:nodes]
    return None


def _tightness(room: _Room) -> tuple[Kind, int, str]:
    return room.group.kind, len(room.free), room.group.node.name


def _share(node: Node, gpus: Sequence[Gpu]) -> Share:
    return Share(node.name, tuple(gpu.index for gpu in gpus), tuple(gpu.uuid for gpu in gpus), node.address)


def _praise(chosen: Sequence[_Room], rooms: Sequence[_Room], each: int) -> tuple[str, ...]:
    taken = {room.group.node.name for room in chosen}
    said = [
        f"{room.group.node.name}: {each} of {len(room.free)} free {_called(room.group.kind)}, "
        f"{len(room.free) - each} stay free"
        for room in chosen[:MOST_REASONS]
    ]
    others = [room for room in rooms if len(room.free) >= each and room.group.node.name not in taken]
    if others:
        best = min(others, key=_tightness)
        larger = best.group.kind.size > chosen[0].group.kind.size
        why = "has larger cards" if larger else f"would have {len(best.free) - each} left"
        said.append(f"{best.group.node.name} was next: it {why}")
    return tuple(said)


def _refusal(
    request: GpuRequest, inventory: Inventory, rooms: Sequence[_Room], held: Collection[str]
) -> ImpossibleError | NoRoomError:
    reasons = _reasons(request, inventory, rooms, held)
    wanted = f"{request.gpu_count} x {_wanted(request)}"
    if not rooms:
        of_any_size = replace(request, memory_gb=None)
        alike = [group.kind.memory_gb for group in inventory.groups if not suits(of_any_size, group.kind)]
        if alike:
            sizes = [size for size in alike if size is not None]
            most = f"the largest has {max(sizes):g} GB" if sizes else "their memory is not known"
            return ImpossibleError("memory_gb", f"{request.memory_gb:g} GB: no such GPU here, {most}", reasons)
        types = ", ".join(sorted(inventory.types)) or "no GPUs"
        return ImpossibleError("gpu_type", f"no {_wanted(of_any_size)} here; there are {types}", reasons)
    largest = max(len(room.group.gpus) for room in rooms)
    if request.distributed_training:
        everything = [_Room(room.group, room.group.gpus) for room in rooms]
        if not (_on_one(request, everything) or _on_several(request, everything)):
            return ImpossibleError(
                "gpu_count", f"{wanted}: not here, in equal parts on nodes of one type, even if all were free", reasons
            )
    elif request.gpu_count > largest:
        return ImpossibleError(
            "gpu_count",
            f"{wanted}: the largest node has {largest}; ask for fewer, or for several nodes with distributed_training",
            reasons,
        )
    return NoRoomError(f"{wanted}: not free now; try again later, or ask for less", reasons)


def _reasons(
    request: GpuRequest, inventory: Inventory, rooms: Sequence[_Room], held: Collection[str]
) -> tuple[str, ...]:
    """What each node failed on, those with the most that is free first; of very many nodes only the number."""
    free = Counter[str]()
    for room in rooms:
        free[room.group.node.name] += len(room.free)
    told = nsmallest(MOST_REASONS, inventory.nodes, key=lambda node: (-free[node.name], node.name))
    said = [f"{node.name}: {_failing(request, node, inventory, held)}" for node in told]
    others = len(inventory.nodes) - len(told)
    return (*said, f"and {others} other nodes") if others else tuple(said)


def _failing(request: GpuRequest, node: Node, inventory: Inventory, held: Collection[str]) -> str:
    """Counted over the node's GPUs."""
    why = Counter[str]()
    for group in inventory.groups:
        if group.node is node:
            unfit = suits(request, group.kind)
            why.update(
                unfit or ("leased" if gpu.uuid in held else "" if gpu.free else gpu.why_not) for gpu in group.gpus
            )
    free = why.pop("", 0)
    counted = [f"{count} {reason}" for reason, count in sorted(why.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([f"{free} of {len(node.gpus)} are free and fit", *counted])


def _wanted(request: GpuRequest) -> str:
    name = request.gpu_type or (f"GPU of {request.vendor}" if request.vendor else "GPU")
    return name if request.memory_gb is None else f"{name} with {request.memory_gb:g} GB"


def _called(kind: Kind) -> str:
    return kind.gpu_type if kind.memory_gb is None else f"{kind.gpu_type} ({kind.memory_gb:g} GB)"
