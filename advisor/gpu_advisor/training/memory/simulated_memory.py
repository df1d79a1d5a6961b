"""A device of limited memory, simulated on the CPU: to test a job's out-of-memory handling without a GPU.

    with SimulatedMemory(limit_bytes=2 * 2**20) as memory:
        manager = MemoryManager(model, memory=memory)
        ...

Counts the live storages of all tensors that operations read or create. Temporary memory within an operation is not
counted, and sizes are not rounded, so a real device needs more.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_advisor.training.loaders.nested import map_leaves
from gpu_advisor.training.memory.device_memory import MemoryStats
from gpu_advisor.training.memory.errors import out_of_memory_type


class SimulatedMemory(TorchDispatchMode):
    """Raises PyTorch's out-of-memory error when an operation's result does not fit. For one thread."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit_bytes = limit_bytes
        self._sizes: dict[weakref.ref[torch.UntypedStorage], int] = {}
        self._allocated = 0
        self._peak = 0
        self._errors = 0

    def read(self) -> MemoryStats:
        return MemoryStats(
            allocated_bytes=self._allocated,
            reserved_bytes=self._allocated,
            peak_allocated_bytes=self._peak,
            peak_reserved_bytes=self._peak,
            limit_bytes=self.limit_bytes,
            free_bytes=max(self.limit_bytes - self._allocated, 0),
            out_of_memory_errors=self._errors,
        )

    def reset_peak(self) -> None:
        self._peak = self._allocated

    def empty_cache(self) -> None:
        """Nothing to do: there is no cache."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors((args, result)):
            self._track_storage(tensor.untyped_storage())
        if self._allocated > self.limit_bytes:
            self._errors += 1
            raise out_of_memory_type()(
                f"simulated device out of memory: {self._allocated} bytes in use of {self.limit_bytes}"
            )
        self._peak = max(self._peak, self._allocated)
        return result

    def _track_storage(self, storage: torch.UntypedStorage) -> None:
        reference = weakref.ref(storage, self._release_storage)
        if reference not in self._sizes:
            self._sizes[reference] = storage.nbytes()
            self._allocated += storage.nbytes()

    def _release_storage(self, reference: weakref.ref[torch.UntypedStorage]) -> None:
        self._allocated -= self._sizes.pop(reference, 0)


def _tensors(nested: Any) -> Iterator[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_leaves(nested, lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None)
    return iter(found)
