"""Response schemas under /api/v1/gpu/. Ratios are 0..1, memory is in nominal GB, null is unknown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gpu_advisor.documents.schema import Rfc3339Time

Ratio = Annotated[float | None, Field(description="0..1")]
Gigabytes = Annotated[float | None, Field(description="nominal GB of each GPU")]


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
    """Source and age of the inventory."""

    total_nodes: int
    timestamp: Annotated[Rfc3339Time, Field(description="of the evaluation, or of the inventory file")]
    stale: Annotated[bool, Field(description="the data source does not respond: nothing is allocated")]
    simulated: bool


class GpuStatus(InventoryHeader):
    utilization: Utilization
    available_nodes: list[AvailableNode]


class GpuState(TypedDict):
    index: int
    uuid: Annotated[str, Field(description="NODE/INDEX if the inventory file gives none")]
    available: bool
    why_not: Annotated[str, Field(description="why it is not available; empty if it is")]
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
    address: Annotated[str, Field(description="for connections between a job's processes; empty if unknown")]


class AllocationDocument(TypedDict):
    id: str
    client_token: str
    nodes: Annotated[list[ShareOfNode], Field(description="empty on the CPU")]
    gpu_count: int
    gpu_type: Annotated[str, Field(description="cpu after a fallback to the CPU")]
    vendor: str
    resource_name: Annotated[str, Field(description="in Kubernetes; empty on the CPU")]
    memory_per_gpu: Gigabytes
    on_cpu: bool
    made: Rfc3339Time
    expires: Annotated[Rfc3339Time, Field(description="then the GPUs may be leased to another job: renew in time")]
    expires_in_seconds: Annotated[float, Field(description="at the time of the response; independent of clock skew")]
    request: RequestFields
    reasons: Annotated[list[str], Field(description="why these GPUs were chosen")]


class AllocateAnswer(AllocationDocument):
    """The allocation, and a short form of it."""

    success: Annotated[bool, Field(description="true: errors have a status of 400 or more")]
    node_name: Annotated[str, Field(description="the first node; empty on the CPU")]
    gpu_config: Annotated[RequestFields, Field(description="the same as `request`")]


class Allocations(TypedDict):
    total: int
    allocations: list[AllocationDocument]


class ValidationDocument(TypedDict):
    valid: Annotated[bool, Field(description="the inventory can serve it, if enough GPUs are free")]
    available_now: bool
    message: str
    field: Annotated[str, Field(description="the unsatisfiable field; empty if none")]
    request: Annotated[RequestFields, Field(description="as parsed")]
    nodes: Annotated[list[ShareOfNode], Field(description="the GPUs that it would get now")]
    reasons: list[str]


class HealthPart(TypedDict):
    ok: bool
    message: Annotated[str, Field(description="what is wrong, and how to fix it; empty if ok")]


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
    changes: Annotated[list[Change], Field(description="since startup, newest first, at most 500")]


#: Settings of a framework: they differ by framework, see docs/frameworks.md.
Setup = dict[str, Any]
