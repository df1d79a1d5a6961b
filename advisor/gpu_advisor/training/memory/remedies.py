"""What can be done about memory that is short, from two readings. Pure."""

from __future__ import annotations

from enum import Enum

from gpu_advisor.training.memory.device_memory import MemoryStats

#: Cached and not in use, as a share of the limit: less is not worth the device's time to give back.
MIN_CACHE_RATIO = 0.05


class Remedy(Enum):
    EMPTY_CACHE = "empty_cache"
    CHECKPOINTING = "gradient_checkpointing"
    SMALLER_BATCH = "smaller_batch"


def remedies(
    reading: MemoryStats, before: MemoryStats | None, threshold_ratio: float, can_checkpoint: bool
) -> tuple[Remedy, ...]:
    """What would help now, in order. `before`: the reading of the last time.

    Giving back the cache helps against fragments alone, and they show as retries: the allocator emptied its cache by
    itself because no piece was large enough. Where tensors fill the memory it helps nothing, and costs time.
    """
    found: list[Remedy] = []
    cached = reading.reserved_bytes - reading.allocated_bytes
    retries = reading.allocation_retries - (before.allocation_retries if before else 0)
    if retries > 0 and cached >= MIN_CACHE_RATIO * reading.limit_bytes:
        found.append(Remedy.EMPTY_CACHE)
    if reading.peak_allocated_bytes > threshold_ratio * reading.limit_bytes:
        found.append(Remedy.CHECKPOINTING if can_checkpoint else Remedy.SMALLER_BATCH)
    return tuple(found)
