"""What there is and who holds what. Plain values: no clock, no network.

Memory is in GB as cards are sold (an "80 GB" card has 80), since that is what people ask for; `None` is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpu_advisor.allocation.gpu_request import GpuRequest


@dataclass(frozen=True, slots=True, order=True)
class Gpu:
    """One GPU. `gpu_type` is canonical, as `A100`; `utilization_ratio` is 0..1.

    `uuid` is its key here: `NODE/INDEX` where a file lists it without a uuid, which no framework understands.
    `free` is False for a GPU that somebody uses, or of which it is not known that nobody does; `why_not` says so.
    """

    index: int
    uuid: str
    gpu_type: str
    memory_gb: float | None
    vendor: str = "nvidia"
    utilization_ratio: float | None = None
    memory_used_ratio: float | None = None
    free: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class InventoryNode:
    """A machine and its GPUs, by index. `address` is where processes of one job reach each other, if known."""

    name: str
    gpus: tuple[Gpu, ...]
    address: str = ""


#: Size of a GPU whose memory nobody tells: it comes last among all sizes, and serves no request for one.
UNKNOWN_SIZE = float("inf")


@dataclass(frozen=True, slots=True, order=True)
class GpuKind:
    """GPUs that may serve one allocation together: of one type, size (GB) and vendor. Ordered by size."""

    size: float
    gpu_type: str
    vendor: str

    @property
    def memory_gb(self) -> float | None:
        return None if self.size == UNKNOWN_SIZE else self.size


@dataclass(frozen=True, slots=True)
class NodeGpuGroup:
    """The GPUs of one kind on one node; `idle` are those of them that nobody uses, leased or not."""

    node: InventoryNode
    kind: GpuKind
    gpus: tuple[Gpu, ...]
    idle: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that is known of the machines. `at` is when (seconds since 1970); `stale` if it could not be renewed.

    `groups` are its GPUs by node and kind: put together once, since each request looks at all of them.
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
    kinds: dict[GpuKind, list[Gpu]] = {}
    for gpu in node.gpus:
        size = UNKNOWN_SIZE if gpu.memory_gb is None else gpu.memory_gb
        kinds.setdefault(GpuKind(size, gpu.gpu_type, gpu.vendor), []).append(gpu)
    for kind, gpus in kinds.items():
        yield NodeGpuGroup(node, kind, tuple(gpus), tuple(gpu for gpu in gpus if gpu.free))


@dataclass(frozen=True, slots=True)
class NodeAllocation:
    """The GPUs of one node that belong to an allocation: `indices` and `uuids` go together, in order."""

    node_name: str
    indices: tuple[int, ...]
    uuids: tuple[str, ...]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """GPUs that are somebody's until `expires` (seconds since 1970), unless renewed or released before.

    `shares` is empty for an allocation that fell back to the CPU, which its request asked for. `memory_per_gpu` (GB)
    is that of the smallest GPU of the allocation. `reasons` says why these GPUs were chosen.
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
