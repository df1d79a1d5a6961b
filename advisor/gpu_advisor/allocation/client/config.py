"""A training job's GPU requirements, and the requests to try in turn. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import DEFAULT_MEMORY_FRACTION, GpuRequest, with_gpu_type


@dataclass(frozen=True, slots=True)
class TrainingGPUConfig:
    """The fields of the API's bodies, and fallbacks.

    gpu_type: in any spelling, as A100-SXM4-80GB or nvidia.com/gpu; "" for any.
    min_memory_gb: accept smaller GPUs, down to this size, if none with `memory_gb` is available. None: do not.
    cpu_fallback: continue on the CPU if no GPU is available, or if training runs out of memory despite all retries.
    wait_seconds: for GPUs to become free, before falling back or raising.
    lease_seconds: duration of a lease, which is renewed automatically; None: the service's default.
    client_token: idempotency key, the same token returns the same allocation; None: a new one.
    """

    gpu_count: int = 1
    gpu_type: str = ""
    memory_gb: float | None = None
    distributed_training: bool = False
    mixed_precision: bool = False
    gpu_memory_fraction: float = DEFAULT_MEMORY_FRACTION
    cpu_fallback: bool = False
    min_memory_gb: float | None = None
    wait_seconds: float = 0.0
    lease_seconds: float | None = None
    client_token: str | None = None

    def __post_init__(self) -> None:
        if self.wait_seconds < 0:
            raise InvalidRequestError("wait_seconds", f"{self.wait_seconds:g}: must be at least 0 seconds")
        memory = self.needed_memory_gb
        if self.min_memory_gb is not None and not (memory is not None and 0 < self.min_memory_gb <= memory):
            raise InvalidRequestError(
                "min_memory_gb", f"{self.min_memory_gb:g}: must be above 0 and at most memory_gb ({memory})"
            )

    @property
    def needed_memory_gb(self) -> float | None:
        """The memory of the first request, which may come from the type."""
        return self._with_type().memory_gb

    def fields(self) -> dict[str, Any]:
        """The body of a request."""
        return {
            "gpu_count": self.gpu_count,
            "gpu_type": self.gpu_type or None,
            "memory_gb": self.memory_gb,
            "distributed_training": self.distributed_training,
            "mixed_precision": self.mixed_precision,
            "gpu_memory_fraction": self.gpu_memory_fraction,
            "cpu_fallback": False,  # the manager first tries the other candidates
        }

    def with_memory(self, memory_gb: float) -> TrainingGPUConfig:
        """The same with another memory of each GPU, which also replaces a size in the type."""
        request = self._with_type()
        kind = request.gpu_type or (self.gpu_type if request.vendor else "")
        return replace(self, gpu_type=kind, memory_gb=memory_gb, min_memory_gb=None)

    def _with_type(self) -> GpuRequest:
        return with_gpu_type(GpuRequest(memory_gb=self.memory_gb), self.gpu_type)


def candidate_bodies(config: TrainingGPUConfig, sizes: Iterable[float | None]) -> list[dict[str, Any]]:
    """Request bodies to try in order; `sizes`: GB of the GPUs in the inventory.

    The config's own request, then smaller sizes in descending order, down to `min_memory_gb`.
    """
    memory, minimum = config.needed_memory_gb, config.min_memory_gb
    bodies = [config.fields()]
    if memory is not None and minimum is not None:
        smaller = {size for size in sizes if size is not None and minimum <= size < memory}
        bodies += [config.with_memory(size).fields() for size in sorted(smaller, reverse=True)]
    return bodies
