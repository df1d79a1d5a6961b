"""The operations under /api/v1/gpu/: what each is asked and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gpu_advisor.allocation.documents import schema
from gpu_advisor.allocation.gpu_request import DEFAULT_MEMORY_FRACTION, MAX_GPUS, MAX_MEMORY_GB
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.web.api.base import JSON, Operation
from gpu_advisor.web.api.query_parameters import Parameter

Lease = Annotated[float, Field(gt=0, description="how long it holds without renewal")]


class GpuRequestBody(StrictModel):
    """What is asked for. What is not given is as in `{}`: one GPU of any type."""

    gpu_count: int = Field(1, ge=1, le=MAX_GPUS, description="GPUs, all of one type and size")
    gpu_type: str | None = Field(
        None, max_length=100, description="as A100, A100-SXM4-80GB (at least 80 GB) or nvidia.com/gpu (of this vendor)"
    )
    memory_gb: float | None = Field(None, gt=0, le=MAX_MEMORY_GB, description="least GB of each GPU, as cards are sold")
    distributed_training: bool = Field(False, description="may be spread over several nodes, the same number on each")
    mixed_precision: bool = Field(False, description="for the framework's settings")
    gpu_memory_fraction: float = Field(
        DEFAULT_MEMORY_FRACTION, gt=0, le=1, description="share of a GPU's memory that the framework may take"
    )
    cpu_fallback: bool = Field(False, description="where no GPU can be had: an allocation without GPUs, not an error")

    def fields(self) -> dict[str, Any]:
        """The request's own fields."""
        return self.model_dump(include=set(GpuRequestBody.model_fields))


class AllocateRequestBody(GpuRequestBody):
    """What is asked for, and for how long."""

    client_token: str | None = Field(
        None, min_length=1, max_length=200, description="the same token gives the same allocation: repeat it at will"
    )
    lease_seconds: Lease | None = None


class RenewRequestBody(StrictModel):
    """How long it holds from now on; `{}` for the default."""

    lease_seconds: Lease | None = None


class SetupRequestBody(GpuRequestBody):
    """Of an allocation, or of what a request would get now (which is not leased by asking)."""

    allocation_id: str | None = Field(None, max_length=100, description="instead of a request")
    memory_strategy: Literal["conservative", "aggressive", "dynamic"] | None = Field(
        None, description="0.8 or 0.95 of the memory, or by the model's size; without it gpu_memory_fraction holds"
    )
    model_parameters: float | None = Field(None, gt=0, description="of the model, on one GPU: for dynamic")
    model_activation_bytes: float | None = Field(None, gt=0, description="on one GPU, if known: for dynamic")
    model_peak_bytes: float | None = Field(
        None, gt=0, description="of everything, from a plan or measured: for dynamic"
    )
    script: str = Field("train.py", min_length=1, max_length=1000, description="stands in the line that starts the job")
    port: int = Field(29500, ge=1, le=65535, description="where the processes meet, on the first node")
    framework_version: str = Field("", max_length=50, description="as 2.4.1")
    growth: bool = Field(False, description="TensorFlow: take memory as it is needed, without a limit")


_ROOT = "/api/v1/gpu"
_MEMORY = Parameter("min_memory_gb", "least GB of each GPU", Annotated[float, Field(ge=0, le=MAX_MEMORY_GB)])

GPU_OPERATIONS: dict[str, Operation] = {
    "gpu_status": Operation(
        "GET", f"{_ROOT}/status", "How busy the GPUs are, and which are free", {JSON: schema.GpuStatus}, errors=(503,)
    ),
    "gpu_nodes": Operation(
        "GET", f"{_ROOT}/nodes", "The nodes with such GPUs, and who has each of them", {JSON: schema.GpuNodes},
        (Parameter("gpu_type", "as A100, or nvidia.com/gpu"), _MEMORY), errors=(503,),
    ),
    "gpu_allocate": Operation(
        "POST", f"{_ROOT}/allocate", "Lease the best-fitting GPUs", {JSON: schema.AllocationDocument}, body=AllocateRequestBody,
        errors=(409, 503),
    ),
    "gpu_validate": Operation(
        "POST", f"{_ROOT}/validate", "Whether a request could be met, at all and now. Changes nothing",
        {JSON: schema.ValidationDocument}, body=GpuRequestBody, errors=(503,),
    ),
    "gpu_setup_tensorflow": Operation(
        "POST", f"{_ROOT}/setup-tensorflow", "What TensorFlow is to be told", {JSON: schema.Setup}, body=SetupRequestBody,
        errors=(404, 409, 503),
    ),
    "gpu_setup_pytorch": Operation(
        "POST", f"{_ROOT}/setup-pytorch", "What PyTorch is to be told", {JSON: schema.Setup}, body=SetupRequestBody,
        errors=(404, 409, 503),
    ),
    "gpu_health": Operation(
        "GET", f"{_ROOT}/health", "Whether GPUs can be given out, and if not, why", {JSON: schema.GpuHealth},
        errors=(503,),
    ),
    "gpu_monitoring": Operation(
        "GET", f"{_ROOT}/monitoring", "All GPUs, who has them, and what changed lately", {JSON: schema.GpuMonitoring},
        errors=(503,),
    ),
    "gpu_allocations": Operation(
        "GET", f"{_ROOT}/allocations", "All allocations, the one that ends first at first", {JSON: schema.Allocations},
        errors=(503,),
    ),
    "gpu_allocation": Operation(
        "GET", f"{_ROOT}/allocations/{{id}}", "One allocation", {JSON: schema.AllocationDocument}, errors=(404, 503)
    ),
    "gpu_renew": Operation(
        "POST", f"{_ROOT}/allocations/{{id}}/renew", "Keep an allocation longer", {JSON: schema.AllocationDocument},
        body=RenewRequestBody, errors=(404, 503),
    ),
    "gpu_release": Operation(
        "DELETE", f"{_ROOT}/allocations/{{id}}", "Give its GPUs back; again is no error", {}, status=204,
        errors=(404, 503),
    ),
}  # fmt: skip
