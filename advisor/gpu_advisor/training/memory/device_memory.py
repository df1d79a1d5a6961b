"""A job's device memory, as its allocator counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes of one device. `allocated`: used by tensors; `reserved`: taken from the driver, including the cache.

    `peak_*`: maximum since `reset_peak`. `free`: available from the driver, None if unknown.
    `allocation_retries`: times the allocator emptied its cache because the driver had no free memory.
    """

    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    limit_bytes: int
    free_bytes: int | None = None
    allocation_retries: int = 0
    out_of_memory_errors: int = 0

    @property
    def used_bytes(self) -> int:
        """What this process has reserved, or all that is not free, if that is known and more."""
        taken = 0 if self.free_bytes is None else self.limit_bytes - self.free_bytes
        return max(self.reserved_bytes, taken)


class DeviceMemory(Protocol):
    """Thread-safe to read."""

    def read(self) -> MemoryStats: ...

    def reset_peak(self) -> None: ...

    def empty_cache(self) -> None:
        """Return reserved memory that is not allocated to the driver."""


class CudaMemory:
    """A CUDA or ROCm device, by index."""

    def __init__(self, device: int) -> None:
        self._device = device

    def read(self) -> MemoryStats:
        import torch

        # Keys of torch.cuda.memory_stats; a device without allocations has none.
        stats = torch.cuda.memory_stats(self._device)
        free, total = torch.cuda.mem_get_info(self._device)
        get_fraction = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # PyTorch 2.7 and newer
        fraction = get_fraction(self._device) if get_fraction else 1.0
        return MemoryStats(
            allocated_bytes=stats.get("allocated_bytes.all.current", 0),
            reserved_bytes=stats.get("reserved_bytes.all.current", 0),
            peak_allocated_bytes=stats.get("allocated_bytes.all.peak", 0),
            peak_reserved_bytes=stats.get("reserved_bytes.all.peak", 0),
            limit_bytes=int(total * fraction),
            free_bytes=free,
            allocation_retries=stats.get("num_alloc_retries", 0),
            out_of_memory_errors=stats.get("num_ooms", 0),
        )

    def reset_peak(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)

    def empty_cache(self) -> None:
        import torch

        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()
