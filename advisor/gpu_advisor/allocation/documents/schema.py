"""The shapes of the answers under /api/v1/gpu/. Ratios are 0..1, memory is in GB as cards are sold, null is unknown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gpu_advisor.documents.schema import Rfc3339Time

Ratio = Annotated[float | None, Field(description="0..1")]
Gigabytes = Annotated[float | None, Field(description="GB of each GPU, as cards are sold")]


class Utilization(TypedDict):
    gpu_utilization: Ratio
    gpu_memory_usage: Ratio


class AvailableNode(TypedDict):
    """GPUs of one type and size on one node."""

    node_name: str
    gpu_type: str
    available_gpus: int
    memory_per_gpu: Gigabytes
    utilization: Ratio


class InventoryHeader(TypedDict):
    """How the answer came about."""

    total_nodes: int
    timestamp: Annotated[Rfc3339Time, Field(description="of the evaluation that saw the machines, or of their file")]
    stale: Annotated[bool, Field(description="the data source does not answer: nothing is given out")]
    simulated: bool


class GpuStatus(InventoryHeader):
    utilization: Utilization
    available_nodes: list[AvailableNode]


class GpuState(TypedDict):
    index: int
    uuid: Annotated[str, Field(description="NODE/INDEX where a file lists the GPU without one")]
    available: bool
    why_not: Annotated[str, Field(description="who uses it, or what is not known; empty if available")]
    allocation_id: str | None
    utilization: Ratio
    memory_usage: Ratio


class NodeGpus(AvailableNode):
    total_gpus: int
    vendor: str
    resource_name: Annotated[str, Field(description="in Kubernetes")]
    gpus: list[GpuState]


class GpuNodes(InventoryHeader):
    nodes: list[NodeGpus]


class RequestFields(TypedDict):
    gpu_count: int
    gpu_type: Annotated[str, Field(description="canonical; empty for any")]
    vendor: Annotated[str, Field(description="empty for any")]
    memory_gb: Gigabytes
    distributed_training: bool
    mixed_precision: bool
    gpu_memory_fraction: float
    cpu_fallback: bool


class ShareOfNode(TypedDict):
    node_name: str
    gpu_indices: list[int]
    gpu_uuids: list[str]
    address: Annotated[str, Field(description="where processes of one job reach each other; empty if not known")]


class AllocationDocument(TypedDict):
    id: str
    client_token: str
    nodes: Annotated[list[ShareOfNode], Field(description="empty on the CPU")]
    gpu_count: int
    gpu_type: Annotated[str, Field(description="cpu for a fallback that was asked for")]
    vendor: str
    resource_name: Annotated[str, Field(description="in Kubernetes; empty on the CPU")]
    memory_per_gpu: Gigabytes
    on_cpu: bool
    made: Rfc3339Time
    expires: Annotated[Rfc3339Time, Field(description="from then on these GPUs may be somebody else's: renew in time")]
    expires_in_seconds: Annotated[float, Field(description="at the time of the answer; holds whatever clocks say")]
    request: RequestFields
    reasons: Annotated[list[str], Field(description="why these GPUs")]


class Allocations(TypedDict):
    total: int
    allocations: list[AllocationDocument]


class ValidationDocument(TypedDict):
    valid: Annotated[bool, Field(description="the machines here could serve it, if enough were free")]
    available_now: bool
    message: str
    field: Annotated[str, Field(description="what rules it out; empty if nothing does")]
    request: Annotated[RequestFields, Field(description="as it was understood")]
    nodes: Annotated[list[ShareOfNode], Field(description="what it would get now")]
    reasons: list[str]


class HealthPart(TypedDict):
    ok: bool
    message: Annotated[str, Field(description="what is wrong, and the mend; empty if ok")]


class GpuHealth(TypedDict):
    status: Literal["healthy", "degraded"]
    inventory: HealthPart
    leases: HealthPart
    allocations: int
    timestamp: Rfc3339Time


class Change(TypedDict):
    at: Rfc3339Time
    node_name: str
    uuid: str
    what: Literal["present", "utilization", "memory", "in_use", "leased"]
    before: float | None
    after: float | None


class GpuMonitoring(InventoryHeader):
    update_interval_seconds: float
    change_threshold: float
    utilization: Utilization
    total_gpus: int
    available_gpus: int
    leased_gpus: int
    allocations: int
    nodes: list[NodeGpus]
    changes: Annotated[list[Change], Field(description="since the start, the newest first, at most 500")]


#: What a framework is to be told: differs by framework, see docs/allocation.md.
Setup = dict[str, Any]
