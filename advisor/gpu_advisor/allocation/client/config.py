"""What a training job asks the manager for, and what it asks for next where that cannot be had. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import DEFAULT_MEMORY_FRACTION, GpuRequest, with_gpu_type


@dataclass(frozen=True, slots=True)
class TrainingGPUConfig:
    """The fields of the API's bodies, and how hard to try.

    gpu_type: in any spelling, as A100-SXM4-80GB or nvidia.com/gpu; "" for any.
    min_memory_gb: where GPUs of `memory_gb` cannot be had, smaller ones down to this do too. None: they do not.
    cpu_fallback: where no GPU can be had, and where training runs out of memory whatever is tried, go on without.
    wait_seconds: for GPUs to become free, before it is an error, or the CPU.
    lease_seconds: how long a lease holds without renewal, which happens by itself; None: as the service has it.
    client_token: the same token asks for the same allocation again; None: a new one.
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
            raise InvalidRequestError("wait_seconds", f"{self.wait_seconds:g}: give seconds, 0 not to wait")
        memory = self.needed_memory_gb
        if self.min_memory_gb is not None and not (memory is not None and 0 < self.min_memory_gb <= memory):
            raise InvalidRequestError(
                "min_memory_gb", f"{self.min_memory_gb:g}: give GB above 0, at most memory_gb ({memory})"
            )

    @property
    def needed_memory_gb(self) -> float | None:
        """What is asked for at first, also if only the type says it."""
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
            "cpu_fallback": False,  # what is to be tried before is the manager's matter
        }

    def with_memory(self, memory_gb: float) -> TrainingGPUConfig:
        """The same, but for the memory of each GPU: a size that the type says is let go of."""
        found = self._with_type()
        kind = found.gpu_type or (self.gpu_type if found.vendor else "")
        return replace(self, gpu_type=kind, memory_gb=memory_gb, min_memory_gb=None)

    def _with_type(self) -> GpuRequest:
        return with_gpu_type(GpuRequest(memory_gb=self.memory_gb), self.gpu_type)


def candidate_bodies(config: TrainingGPUConfig, sizes: Iterable[float | None]) -> list[dict[str, Any]]:
    """Bodies of requests, to be tried in this order; `sizes` are the GB of the GPUs that are there.

    What is asked for, then the next smaller sizes, the largest first, as far down as the config allows.
    """
    wanted, least = config.needed_memory_gb, config.min_memory_gb
    found = [config.fields()]
    if wanted is not None and least is not None:
        smaller = {size for size in sizes if size is not None and least <= size < wanted}
        found += [config.with_memory(size).fields() for size in sorted(smaller, reverse=True)]
    return found
