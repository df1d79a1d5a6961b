"""Memory of tensors on a CPU, counted as they come and go: what a GPU's allocator would be asked for.

Every operation, the backward pass and the optimizer included, passes a dispatch mode that sees the storages it makes; a
storage counts until nothing refers to it. What an operation uses within itself (a convolution's workspace) is not seen.
Under a fake tensor mode nothing is computed and the count is the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):
    """Counts bytes of tensors made while it is entered.

    With `limit_bytes` it raises torch.OutOfMemoryError where a GPU of that size would, in the words of the real one, so
    that a search for them finds them. With `record` it keeps the events for `allocator.replay`: (key, bytes), with
    negative bytes for a release.
    """

    def __init__(self, limit_bytes: int | None = None, record: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit_bytes = limit_bytes
        self.current_bytes = self.peak_bytes = 0
        self.events: list[tuple[int, int]] | None = [] if record else None
        self._live: dict[int, tuple[int, int]] = {}
        self._count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._track_storage(leaf.untyped_storage())
        return out

    def _track_storage(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        known = self._live.get(address)
        if known is not None and known[1] == size:
            return
        if known is not None:  # resized in place
            self._untrack_storage(address, known[0])
        self._count += 1
        self._live[address] = (self._count, size)
        self.current_bytes += size
        if self.events is not None:
            self.events.append((self._count, size))
        weakref.finalize(storage, self._untrack_storage, address, self._count).atexit = False
        if self.limit_bytes is not None and self.current_bytes > self.limit_bytes:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Simulated: {self.current_bytes} bytes of tensors, limit {self.limit_bytes}"
            )
        self.peak_bytes = max(self.peak_bytes, self.current_bytes)

    def _untrack_storage(self, address: int, number: int) -> None:
        known = self._live.get(address)
        if known is None or known[0] != number:
            return
        del self._live[address]
        self.current_bytes -= known[1]
        if self.events is not None:
            self.events.append((number, -1))
