"""The operations under /api/v1/gpu/, with their request bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gpu_advisor.allocation.documents import schema
from gpu_advisor.allocation.gpu_request import DEFAULT_MEMORY_FRACTION, MAX_GPUS, MAX_MEMORY_GB
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.web.api.base import JSON, Operation
from gpu_advisor.web.api.query_parameters import Parameter

Lease = Annotated[float, Field(gt=0, description="time to expiry without renewal")]


class GpuRequestBody(StrictModel):
    """A GPU request. `{}` requests one GPU of any type."""

    gpu_count: int = Field(1, ge=1, le=MAX_GPUS, description="number of GPUs, all of one type and size")
    gpu_type: str | None = Field(
        None, max_length=100, description="e.g. A100, A100-SXM4-80GB (at least 80 GB) or nvidia.com/gpu (vendor)"
    )
    memory_gb: float | None = Field(None, gt=0, le=MAX_MEMORY_GB, description="minimum nominal GB per GPU")
    distributed_training: bool = Field(False, description="allow several nodes, with the same number of GPUs on each")
    mixed_precision: bool = Field(False, description="enable it in the framework settings")
    gpu_memory_fraction: float = Field(
        DEFAULT_MEMORY_FRACTION, gt=0, le=1, description="fraction of a GPU's memory that the framework may use"
    )
    cpu_fallback: bool = Field(False, description="if no GPU is free, return an allocation without GPUs")

    def fields(self) -> dict[str, Any]:
        """The fields of the GPU request, without those of a subclass."""
        return self.model_dump(include=set(GpuRequestBody.model_fields))


class AllocateRequestBody(GpuRequestBody):
    """A GPU request, and the duration of the lease."""

    client_token: str | None = Field(
        None, min_length=1, max_length=200, description="idempotency key: the same token returns the same allocation"
    )
    lease_seconds: Lease | None = None


class RenewRequestBody(StrictModel):
    """The new time to expiry; `{}` for the default."""

    lease_seconds: Lease | None = None


class SetupRequestBody(GpuRequestBody):
    """Framework settings for an allocation, or for what a request would get now (without a lease)."""

    allocation_id: str | None = Field(None, max_length=100, description="instead of a GPU request")
    memory_strategy: Literal["conservative", "aggressive", "dynamic"] | None = Field(
        None, description="0.8, 0.95, or by model size; default: gpu_memory_fraction"
    )
    model_parameters: float | None = Field(None, gt=0, description="parameters on one GPU: for dynamic")
    model_activation_bytes: float | None = Field(
        None, gt=0, description="activations on one GPU, if known: for dynamic"
    )
    model_peak_bytes: float | None = Field(None, gt=0, description="peak memory, planned or measured: for dynamic")
    script: str = Field("train.py", min_length=1, max_length=1000, description="training script in the launch command")
    port: int = Field(29500, ge=1, le=65535, description="rendezvous port on the first node")
    framework_version: str = Field("", max_length=50, description="e.g. 2.4.1")
    growth: bool = Field(False, description="TensorFlow: allow memory growth, without a limit")


_ROOT = "/api/v1/gpu"
_MEMORY = Parameter("min_memory_gb", "minimum GB per GPU", Annotated[float, Field(ge=0, le=MAX_MEMORY_GB)])

GPU_OPERATIONS: dict[str, Operation] = {
    "gpu_status": Operation(
        "GET", f"{_ROOT}/status", "GPU utilization and free GPUs", {JSON: schema.GpuStatus}, errors=(503,)
    ),
    "gpu_nodes": Operation(
        "GET", f"{_ROOT}/nodes", "Nodes with matching GPUs, and their leases", {JSON: schema.GpuNodes},
        (Parameter("gpu_type", "e.g. A100 or nvidia.com/gpu"), _MEMORY), errors=(503,),
    ),
    "gpu_allocate": Operation(
        "POST", f"{_ROOT}/allocate", "Lease the best-fitting GPUs", {JSON: schema.AllocateAnswer},
        body=AllocateRequestBody, errors=(409, 503), changes_state=True,
    ),
    "gpu_validate": Operation(
        "POST", f"{_ROOT}/validate", "Whether a request can be met, at all and now. Changes nothing",
        {JSON: schema.ValidationDocument}, body=GpuRequestBody, errors=(503,),
    ),
    "gpu_setup_tensorflow": Operation(
        "POST", f"{_ROOT}/setup-tensorflow", "TensorFlow settings for an allocation", {JSON: schema.Setup},
        body=SetupRequestBody, errors=(404, 409, 503),
    ),
    "gpu_setup_pytorch": Operation(
        "POST", f"{_ROOT}/setup-pytorch", "PyTorch settings for an allocation", {JSON: schema.Setup},
        body=SetupRequestBody, errors=(404, 409, 503),
    ),
    "gpu_health": Operation(
        "GET", f"{_ROOT}/health", "Whether GPUs can be leased, and if not, why", {JSON: schema.GpuHealth},
        errors=(503,),
    ),
    "gpu_monitoring": Operation(
        "GET", f"{_ROOT}/monitoring", "All GPUs, their leases and recent changes", {JSON: schema.GpuMonitoring},
        errors=(503,),
    ),
    "gpu_allocations": Operation(
        "GET", f"{_ROOT}/allocations", "All allocations, soonest expiry first", {JSON: schema.Allocations},
        errors=(503,),
    ),
    "gpu_allocation": Operation(
        "GET", f"{_ROOT}/allocations/{{id}}", "One allocation", {JSON: schema.AllocationDocument}, errors=(404, 503)
    ),
    "gpu_renew": Operation(
        "POST", f"{_ROOT}/allocations/{{id}}/renew", "Renew an allocation's lease", {JSON: schema.AllocationDocument},
        body=RenewRequestBody, errors=(404, 503), changes_state=True,
    ),
    "gpu_release": Operation(
        "DELETE", f"{_ROOT}/allocations/{{id}}", "Release its GPUs. Idempotent", {}, status=204,
        errors=(404, 503), changes_state=True,
    ),
}  # fmt: skip
