"""Remedies for low memory, from two readings. Pure."""

from __future__ import annotations

from enum import Enum

from gpu_advisor.training.memory.device_memory import MemoryStats

#: Minimum cached, unused share of the limit: releasing less is not worth the device's time.
MIN_CACHE_RATIO = 0.05


class Remedy(Enum):
    EMPTY_CACHE = "empty_cache"
    CHECKPOINTING = "gradient_checkpointing"
    SMALLER_BATCH = "smaller_batch"


def choose_remedies(
    reading: MemoryStats, before: MemoryStats | None, threshold_ratio: float, can_checkpoint: bool
) -> tuple[Remedy, ...]:
    """Remedies to apply now, in order. `before`: the previous reading.

    Emptying the cache helps only against fragmentation, which shows as retries: the allocator emptied its cache because
    no block was large enough. If tensors fill the memory, it only costs time.
    """
    found: list[Remedy] = []
    cached = reading.reserved_bytes - reading.allocated_bytes
    retries = reading.allocation_retries - (before.allocation_retries if before else 0)
    if retries > 0 and cached >= MIN_CACHE_RATIO * reading.limit_bytes:
        found.append(Remedy.EMPTY_CACHE)
    if reading.peak_allocated_bytes > threshold_ratio * reading.limit_bytes:
        found.append(Remedy.CHECKPOINTING if can_checkpoint else Remedy.SMALLER_BATCH)
    return tuple(found)
