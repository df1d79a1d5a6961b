"""What PyTorch's caching allocator makes of a sequence of allocations: bytes allocated and bytes reserved.

Sizes in bytes. The rules and constants are those of the allocator's own description and source
(https://zdevito.github.io/2022/08/04/cuda-caching-allocator.html, and c10/cuda/CUDACachingAllocator.h in
https://github.com/pytorch/pytorch): blocks are rounded up to 512 B; up to 1 MiB they are cut from segments of 2 MiB,
below 10 MiB from segments of 20 MiB, above that a segment is the request rounded up to 2 MiB; a free block is reused by
best fit, its rest split off, and neighbours that are both free are joined.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

BLOCK_BYTES = 512
SMALL_BYTES = 1 << 20
SMALL_SEGMENT_BYTES = 2 << 20
LARGE_SEGMENT_BYTES = 20 << 20
LARGE_REQUEST_BYTES = 10 << 20
ROUND_LARGE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that was in use, and the most that was taken from the device."""

    allocated_bytes: int
    reserved_bytes: int


def block_bytes(request: int) -> int:
    """What a request takes of a segment."""
    return max(BLOCK_BYTES, -(-request // BLOCK_BYTES) * BLOCK_BYTES)


def segment_bytes(block: int) -> int:
    """What is asked of the device when no free block holds `block` bytes."""
    if block <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if block < LARGE_REQUEST_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-block // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


class _Block:
    __slots__ = ("after", "before", "free", "number", "size", "small")

    def __init__(self, number: int, size: int, small: bool) -> None:
        self.number, self.size, self.small = number, size, small
        self.free = False
        self.before: _Block | None = None
        self.after: _Block | None = None


class CachingAllocator:
    """Replays allocations by key. Raises KeyError for a key that is freed but not held."""

    def __init__(self) -> None:
        self.allocated = self.reserved = self.peak_allocated = 0
        self._held: dict[int, _Block] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._blocks: dict[int, _Block] = {}
        self._count = 0

    def allocate(self, key: int, request: int) -> None:
        size = block_bytes(request)
        small = size <= SMALL_BYTES
        block = self._take(size, small)
        rest = block.size - size
        if rest >= BLOCK_BYTES and (small or rest > SMALL_BYTES):
            self._split(block, size, rest)
        self._held[key] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def free(self, key: int) -> None:
        block = self._held.pop(key)
        self.allocated -= block.size
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                self._unlist(neighbour)
                self._join(block, neighbour)
        block.free = True
        insort(self._free[block.small], (block.size, block.number))

    @property
    def peak(self) -> Peak:
        return Peak(self.peak_allocated, self.reserved)

    def _take(self, size: int, small: bool) -> _Block:
        pool = self._free[small]
        index = bisect_left(pool, (size, -1))
        if index < len(pool):
            block = self._blocks[pool.pop(index)[1]]
            block.free = False
            return block
        segment = segment_bytes(size)
        self.reserved += segment
        return self._new(segment, small)

    def _new(self, size: int, small: bool) -> _Block:
        block = _Block(self._count, size, small)
        self._blocks[self._count] = block
        self._count += 1
        return block

    def _split(self, block: _Block, size: int, rest: int) -> None:
        other = self._new(rest, block.small)
        block.size = size
        other.before, other.after = block, block.after
        if block.after is not None:
            block.after.before = other
        block.after = other
        other.free = True
        insort(self._free[block.small], (rest, other.number))

    def _unlist(self, block: _Block) -> None:
        pool = self._free[block.small]
        pool.pop(bisect_left(pool, (block.size, block.number)))
        del self._blocks[block.number]

    def _join(self, block: _Block, neighbour: _Block) -> None:
        block.size += neighbour.size
        if neighbour is block.before:
            block.before = neighbour.before
            if block.before is not None:
                block.before.after = block
        else:
            block.after = neighbour.after
            if block.after is not None:
                block.after.before = block


def replay(events: Iterable[tuple[int, int]]) -> Peak:
    """Peak of a sequence of (key, bytes): an allocation, or with a negative size the release of that key."""
    allocator = CachingAllocator()
    for key, size in events:
        if size < 0:
            allocator.free(key)
        else:
            allocator.allocate(key, size)
    return allocator.peak
