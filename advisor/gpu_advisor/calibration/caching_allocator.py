"""A model of PyTorch's caching allocator: allocated and reserved bytes of a sequence of allocations.

Sizes in bytes. The rules and constants are those of the allocator's own description and source
(https://zdevito.github.io/2022/08/04/cuda-caching-allocator.html, and c10/cuda/CUDACachingAllocator.h in
https://github.com/pytorch/pytorch): blocks are rounded up to 512 B; up to 1 MiB they are cut from segments of 2 MiB,
below 10 MiB from segments of 20 MiB, above that a segment is the request rounded up to 2 MiB; a free block is reused by
best fit, its rest split off, and neighbours that are both free are joined. Before it fails with out of memory, it
gives the segments back in which nothing is used, and asks once more.
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
class AllocatorPeak:
    """Peak allocated and reserved bytes, and how often the cache was emptied to serve a request.

    `retries`: PyTorch's num_alloc_retries. Each synchronizes the device, and shows that memory is nearly full.
    """

    allocated_bytes: int
    reserved_bytes: int
    retries: int = 0


def block_bytes(request: int) -> int:
    """The block size for a request."""
    return max(BLOCK_BYTES, -(-request // BLOCK_BYTES) * BLOCK_BYTES)


def segment_bytes(block: int) -> int:
    """The segment to allocate on the device if no free block has `block` bytes."""
    if block <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if block < LARGE_REQUEST_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-block // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


class _Block:
    __slots__ = ("free", "next", "number", "previous", "size", "small")

    def __init__(self, number: int, size: int, small: bool) -> None:
        self.number, self.size, self.small = number, size, small
        self.free = False
        self.previous: _Block | None = None
        self.next: _Block | None = None


class CachingAllocator:
    """Replays allocations by key. Raises KeyError for freeing a key that is not allocated.

    With `limit_bytes`, the device's memory, it raises MemoryError where PyTorch would run out of memory.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = self.retries = 0
        self._allocated_blocks: dict[int, _Block] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._blocks: dict[int, _Block] = {}
        self._count = 0

    def allocate(self, key: int, request: int) -> None:
        size = block_bytes(request)
        small = size <= SMALL_BYTES
        block = self._take_block(size, small)
        rest = block.size - size
        if rest >= BLOCK_BYTES and (small or rest > SMALL_BYTES):
            self._split(block, size, rest)
        self._allocated_blocks[key] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def free(self, key: int) -> None:
        block = self._allocated_blocks.pop(key)
        self.allocated -= block.size
        for neighbour in (block.previous, block.next):
            if neighbour is not None and neighbour.free:
                self._remove_free_block(neighbour)
                self._merge_blocks(block, neighbour)
        block.free = True
        insort(self._free[block.small], (block.size, block.number))

    @property
    def peak(self) -> AllocatorPeak:
        return AllocatorPeak(self.peak_allocated, self.peak_reserved, self.retries)

    def _take_block(self, size: int, small: bool) -> _Block:
        pool = self._free[small]
        index = bisect_left(pool, (size, -1))
        if index < len(pool):
            block = self._blocks[pool.pop(index)[1]]
            block.free = False
            return block
        segment = segment_bytes(size)
        self._release_cached_segments(segment)
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return self._new_block(segment, small)

    def _release_cached_segments(self, segment: int) -> None:
        if self.limit_bytes is None or self.reserved + segment <= self.limit_bytes:
            return
        self.retries += 1
        for pool in self._free.values():
            for _, number in list(pool):
                block = self._blocks[number]
                if block.previous is None and block.next is None:  # a whole segment
                    self._remove_free_block(block)
                    self.reserved -= block.size
        if self.reserved + segment > self.limit_bytes:
            raise MemoryError(f"{segment} bytes more than {self.reserved} do not fit {self.limit_bytes}")

    def _new_block(self, size: int, small: bool) -> _Block:
        block = _Block(self._count, size, small)
        self._blocks[self._count] = block
        self._count += 1
        return block

    def _split(self, block: _Block, size: int, rest: int) -> None:
        other = self._new_block(rest, block.small)
        block.size = size
        other.previous, other.next = block, block.next
        if block.next is not None:
            block.next.previous = other
        block.next = other
        other.free = True
        insort(self._free[block.small], (rest, other.number))

    def _remove_free_block(self, block: _Block) -> None:
        pool = self._free[block.small]
        pool.pop(bisect_left(pool, (block.size, block.number)))
        del self._blocks[block.number]

    def _merge_blocks(self, block: _Block, neighbour: _Block) -> None:
        block.size += neighbour.size
        if neighbour is block.previous:
            block.previous = neighbour.previous
            if block.previous is not None:
                block.previous.next = block
        else:
            block.next = neighbour.next
            if block.next is not None:
                block.next.previous = block


def replay(events: Iterable[tuple[int, int]], limit_bytes: int | None = None) -> AllocatorPeak:
    """Peak of a sequence of (key, bytes): an allocation, or with a negative size the release of that key.

    Raises MemoryError where a device of `limit_bytes` has too little.
    """
    allocator = CachingAllocator(limit_bytes)
    for key, size in events:
        if size < 0:
            allocator.free(key)
        else:
            allocator.allocate(key, size)
    return allocator.peak
