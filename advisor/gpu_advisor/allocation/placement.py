"""Which GPUs serve a request best, and why the others do not. Pure: no clock, no database.

The GPUs of one allocation are of one type and size. One node that has room is taken before several; of those with room,
the smallest cards that do, and of these the node on which the fewest stay over (best fit, which keeps whole nodes for
those who need whole nodes). Several nodes, where the request allows them, give the same number each, as torchrun and
MPI start the same number of processes on every node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from gpu_advisor.allocation.errors import ImpossibleError, NoRoomError
from gpu_advisor.allocation.model import Gpu, Inventory, Node, Share
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


@dataclass(frozen=True, slots=True, order=True)
class _Kind:
    """Cards that may serve one allocation together. Ordered by size; an unknown size comes last."""

    size: float
    gpu_type: str
    vendor: str


@dataclass(frozen=True, slots=True)
class _Room:
    """Cards of one kind on one node: all that could serve, and those of them that are free."""

    node: Node
    kind: _Kind
    could: int
    free: tuple[Gpu, ...]


def place(request: GpuRequest, inventory: Inventory, held: Collection[str]) -> Placement:
    """The best fit. `held` are the uuids that are leased. Raises ImpossibleError or NoRoomError, with all reasons."""
    rooms = _rooms(request, inventory.nodes, held)
    chosen = _on_one(request, rooms) or (_on_several(request, rooms) if request.distributed_training else None)
    if chosen is None:
        raise _refusal(request, inventory, rooms, held)
    each = request.gpu_count // len(chosen)
    shares = tuple(_share(room.node, room.free[:each]) for room in chosen)
    kind = chosen[0].kind
    return Placement(
        shares, kind.gpu_type, kind.vendor, None if kind.size == _UNKNOWN else kind.size,
        _praise(chosen, rooms, each),
    )  # fmt: skip


def suits(request: GpuRequest, gpu: Gpu) -> str:
    """Empty if a GPU could serve the request when it is free; else what rules it out."""
    if request.gpu_type and gpu.gpu_type != request.gpu_type:
        return gpu.gpu_type
    if request.vendor and gpu.vendor != request.vendor:
        return f"of {gpu.vendor}"
    if request.memory_gb is not None:
        if gpu.memory_gb is None:
            return "of unknown memory"
        if gpu.memory_gb < request.memory_gb:
            return f"with {gpu.memory_gb:g} GB"
    return ""


_UNKNOWN = float("inf")


def _rooms(request: GpuRequest, nodes: Iterable[Node], held: Collection[str]) -> list[_Room]:
    rooms = []
    for node in nodes:
        kinds: dict[_Kind, list[Gpu]] = {}
        for gpu in node.gpus:
            if not suits(request, gpu):
                kinds.setdefault(_kind(gpu), []).append(gpu)
        for kind, gpus in kinds.items():
            free = tuple(gpu for gpu in gpus if gpu.free and gpu.uuid not in held)
            rooms.append(_Room(node, kind, len(gpus), free))
    return rooms


def _kind(gpu: Gpu) -> _Kind:
    return _Kind(_UNKNOWN if gpu.memory_gb is None else gpu.memory_gb, gpu.gpu_type, gpu.vendor)


def _on_one(request: GpuRequest, rooms: Sequence[_Room]) -> list[_Room] | None:
    enough = [room for room in rooms if len(room.free) >= request.gpu_count]
    return [min(enough, key=_tightness)] if enough else None


def _on_several(request: GpuRequest, rooms: Sequence[_Room]) -> list[_Room] | None:
    """The same number on each of as few nodes as can be."""
    by_kind = sorted(rooms, key=lambda room: room.kind)
    kinds = [sorted(of, key=_tightness) for _, of in groupby(by_kind, key=lambda room: room.kind)]
    for nodes in range(2, min(request.gpu_count, max(map(len, kinds), default=0)) + 1):
        each, rest = divmod(request.gpu_count, nodes)
        for of_kind in kinds if rest == 0 else ():
            enough = [room for room in of_kind if len(room.free) >= each]
            if len(enough) >= nodes:
                return enough[:nodes]
    return None


def _tightness(room: _Room) -> tuple[_Kind, int, str]:
    return room.kind, len(room.free), room.node.name


def _share(node: Node, gpus: Sequence[Gpu]) -> Share:
    return Share(node.name, tuple(gpu.index for gpu in gpus), tuple(gpu.uuid for gpu in gpus), node.address)


def _praise(chosen: Sequence[_Room], rooms: Sequence[_Room], each: int) -> tuple[str, ...]:
    taken = {room.node.name for room in chosen}
    said = [
        f"{room.node.name}: {each} of {len(room.free)} free {_called(room.kind)}, {len(room.free) - each} stay free"
        for room in chosen
    ]
    others = [room for room in rooms if room.node.name not in taken and len(room.free) >= each]
    if others:
        best = min(others, key=_tightness)
        larger = best.kind.size > chosen[0].kind.size
        why = "has larger cards" if larger else f"would have {len(best.free) - each} left"
        said.append(f"{best.node.name} was next: it {why}")
    return _shortened(said)


def _refusal(
    request: GpuRequest, inventory: Inventory, rooms: Sequence[_Room], held: Collection[str]
) -> ImpossibleError | NoRoomError:
    reasons = _shortened([f"{node.name}: {_failing(request, node, held)}" for node in inventory.nodes])
    wanted = f"{request.gpu_count} x {_wanted(request)}"
    if not rooms:
        every = [gpu for node in inventory.nodes for gpu in node.gpus]
        alike = [gpu for gpu in every if not suits_type(request, gpu)]
        if alike:
            sizes = [gpu.memory_gb for gpu in alike if gpu.memory_gb is not None]
            most = f"the largest has {max(sizes):g} GB" if sizes else "their memory is not known"
            return ImpossibleError("memory_gb", f"{request.memory_gb:g} GB: no such GPU here, {most}", reasons)
        types = ", ".join(sorted({gpu.gpu_type for gpu in every})) or "no GPUs"
        return ImpossibleError("gpu_type", f"no {_wanted(request)} here; there are {types}", reasons)
    largest = max(room.could for room in rooms)
    if request.distributed_training:
        if not _could_span(request, rooms):
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


def suits_type(request: GpuRequest, gpu: Gpu) -> str:
    """As `suits`, whatever the memory."""
    if request.gpu_type:
        return "" if gpu.gpu_type == request.gpu_type else gpu.gpu_type
    return "" if request.vendor in ("", gpu.vendor) else f"of {gpu.vendor}"


def _could_span(request: GpuRequest, rooms: Sequence[_Room]) -> bool:
    by_kind: dict[_Kind, list[int]] = {}
    for room in rooms:
        by_kind.setdefault(room.kind, []).append(room.could)
    return any(
        request.gpu_count % nodes == 0 and sum(could >= request.gpu_count // nodes for could in counts) >= nodes
        for counts in by_kind.values()
        for nodes in range(1, min(len(counts), request.gpu_count) + 1)
    )


def _failing(request: GpuRequest, node: Node, held: Collection[str]) -> str:
    """What a node failed on, counted over its GPUs."""
    if not node.gpus:
        return "no GPUs"
    why: dict[str, int] = {}
    free = 0
    for gpu in node.gpus:
        reason = suits(request, gpu) or ("leased" if gpu.uuid in held else "" if gpu.free else gpu.why_not)
        if reason:
            why[reason] = why.get(reason, 0) + 1
        else:
            free += 1
    counted = [f"{count} {reason}" for reason, count in sorted(why.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([f"{free} of {len(node.gpus)} are free and fit", *counted])


def _wanted(request: GpuRequest) -> str:
    name = request.gpu_type or (f"GPU of {request.vendor}" if request.vendor else "GPU")
    return name if request.memory_gb is None else f"{name} with {request.memory_gb:g} GB"


def _called(kind: _Kind) -> str:
    return kind.gpu_type if kind.size == _UNKNOWN else f"{kind.gpu_type} ({kind.size:g} GB)"


def _shortened(reasons: Sequence[str]) -> tuple[str, ...]:
    if len(reasons) <= MOST_REASONS:
        return tuple(reasons)
    return (*reasons[:MOST_REASONS], f"and {len(reasons) - MOST_REASONS} other nodes")


def free_gpus(node: Node, held: Mapping[str, str] | Collection[str]) -> tuple[Gpu, ...]:
    """The GPUs of a node that nobody has."""
    return tuple(gpu for gpu in node.gpus if gpu.free and gpu.uuid not in held)
