"""Inventory and allocations as plain values: no clock, no network.

Memory is nominal, in GB as on the data sheet (an "80 GB" card has 80), which is what requests use; None is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpu_advisor.allocation.gpu_request import GpuRequest


@dataclass(frozen=True, slots=True, order=True)
class InventoryGpu:
    """One GPU. `gpu_type` is canonical, as `A100`; `utilization_ratio` is 0..1.

    `uuid` is the key; NODE/INDEX if a file lists the GPU without one, which no framework accepts.
    `free` is False if the GPU is in use, or may be; `unavailable_reason` says why.
    """

    index: int
    uuid: str
    gpu_type: str
    memory_gb: float | None
    vendor: str = "nvidia"
    utilization_ratio: float | None = None
    memory_used_ratio: float | None = None
    free: bool = True
    unavailable_reason: str = ""


@dataclass(frozen=True, slots=True)
class InventoryNode:
    """A node and its GPUs, by index. `address`: for connections between the processes of a job, if known."""

    name: str
    gpus: tuple[InventoryGpu, ...]
    address: str = ""


#: Size of a GPU with unknown memory: sorts last, and matches no request for a size.
UNKNOWN_SIZE = float("inf")


@dataclass(frozen=True, slots=True, order=True)
class GpuKind:
    """GPUs that can be combined in an allocation: one type, size (GB) and vendor. Ordered by size."""

    size: float
    gpu_type: str
    vendor: str

    @property
    def memory_gb(self) -> float | None:
        return None if self.size == UNKNOWN_SIZE else self.size


@dataclass(frozen=True, slots=True)
class NodeGpuGroup:
    """The GPUs of one kind on one node; `idle`: those that are not in use, leased or not."""

    node: InventoryNode
    kind: GpuKind
    gpus: tuple[InventoryGpu, ...]
    idle: tuple[InventoryGpu, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPU nodes as of `at` (Unix time); `stale` if the data source does not respond, or no evaluation
    finishes.

    `groups`: the GPUs by node and kind, computed once because every request scans them.
    """

    nodes: tuple[InventoryNode, ...]
    at: float
    stale: bool = False
    groups: tuple[NodeGpuGroup, ...] = field(init=False, repr=False, compare=False)
    types: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        groups = tuple(group for node in self.nodes for group in _group_by_kind(node))
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "types", frozenset(group.kind.gpu_type for group in groups))


def _group_by_kind(node: InventoryNode) -> Iterable[NodeGpuGroup]:
    kinds: dict[GpuKind, list[InventoryGpu]] = {}
    for gpu in node.gpus:
        size = UNKNOWN_SIZE if gpu.memory_gb is None else gpu.memory_gb
        kinds.setdefault(GpuKind(size, gpu.gpu_type, gpu.vendor), []).append(gpu)
    for kind, gpus in kinds.items():
        yield NodeGpuGroup(node, kind, tuple(gpus), tuple(gpu for gpu in gpus if gpu.free))


@dataclass(frozen=True, slots=True)
class NodeAllocation:
    """The GPUs of an allocation on one node: `indices` and `uuids` in the same order."""

    node_name: str
    indices: tuple[int, ...]
    uuids: tuple[str, ...]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """GPUs leased until `expires` (Unix time), unless renewed or released before.

    `shares` is empty after a fallback to the CPU. `memory_per_gpu`: GB of the smallest GPU. `reasons`: why these GPUs
    were chosen.
    """

    id: str
    client_token: str
    request: GpuRequest
    shares: tuple[NodeAllocation, ...]
    gpu_type: str
    vendor: str
    memory_per_gpu: float | None
    made: float
    expires: float
    reasons: tuple[str, ...] = ()

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(share.node_name for share in self.shares)

    @property
    def gpu_count(self) -> int:
        return sum(len(share.indices) for share in self.shares)

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(uuid for share in self.shares for uuid in share.uuids)

    @property
    def on_cpu(self) -> bool:
        return not self.shares
