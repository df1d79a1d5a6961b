"""PrefetchLoader: while a step computes, the next batch is already on its way to the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from gpu_advisor.training.loaders.nested import map_leaves

B = TypeVar("B")


class _PrefetchedBatch(NamedTuple):
    """A batch on its way to the device; there, on the device's own clock, when `copied` has happened."""

    batch: Any
    copied: torch.cuda.Event | None


class PrefetchLoader(Generic[B]):
    """Any loader's batches, each once and in order, on `device`.

    On CUDA they are copied on a stream of their own: that overlaps with computing only from pinned memory
    (`pin_memory=True` of a DataLoader). On other devices they are copied when they are due.

    One batch more than asked for is taken from the loader (`depth` of them): of a loader that can be iterated only once
    they are lost when the loop is left early. An error of the loader is raised when its batch is due, after those
    before it.
    """

    def __init__(self, loader: Iterable[B], device: torch.device | str | int | None = None, *, depth: int = 1) -> None:
        """device: the current CUDA device if None, the CPU without one. depth: batches ahead, each takes its memory."""
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1; without a batch ahead use the loader itself")
        self.loader = loader
        self.depth = depth
        self.device = _device(device)

    def __len__(self) -> int:
        """The loader's. Raises TypeError where that has none."""
        if not isinstance(self.loader, Sized):
            raise TypeError(f"{type(self.loader).__name__} does not tell its length")
        return len(self.loader)

    def __iter__(self) -> Iterator[B]:
        copy_stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        ahead: deque[_PrefetchedBatch] = deque()
        error_to_raise: Exception | None = None
        source: Iterator[B] | None = None
        ended = False
        while True:
            while not ended and len(ahead) <= self.depth:
                if ahead and (copied := ahead[-1].copied) is not None:
                    # The loader may fill the same pinned buffer again. This copy has had a whole step's time.
                    copied.synchronize()
                try:
                    source = iter(self.loader) if source is None else source
                    ahead.append(self._copy_async(next(source), copy_stream))
                except StopIteration:
                    ended = True
                except Exception as error:  # noqa: BLE001  # raised when its turn has come
                    error_to_raise, ended = error, True
            if not ahead:
                break
            yield self._deliver(ahead.popleft())
        if error_to_raise is not None:
            raise error_to_raise

    def _copy_async(self, batch: B, copy_stream: torch.cuda.Stream | None) -> _PrefetchedBatch:
        if copy_stream is None:
            return _PrefetchedBatch(batch, None)
        with torch.cuda.stream(copy_stream):
            sent = map_leaves(batch, self._copy)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(copy_stream)
        return _PrefetchedBatch(sent, copied)

    def _copy(self, leaf: Any) -> Any:
        # What is on a GPU already was made on another stream, which this one does not wait for: see _deliver.
        if isinstance(leaf, torch.Tensor) and not leaf.is_cuda:
            return leaf.to(self.device, non_blocking=True)
        return leaf

    def _deliver(self, ahead: _PrefetchedBatch) -> B:
        stream = None
        if ahead.copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ahead.copied)

        def finish(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                # Its tensors cannot be seen from here, so their memory could not be kept from being used again too
                # early: such a one is copied on the stream that uses it.
                return leaf.to(self.device) if hasattr(leaf, "to") else leaf
            if stream is None or leaf.device != self.device:
                return leaf.to(self.device)
            # The allocator knows only the stream that the memory was taken on: it must not give it away before what
            # the consumer does with it is done (torch.Tensor.record_stream).
            leaf.record_stream(stream)
            return leaf

        delivered: B = map_leaves(ahead.batch, finish)
        return delivered


def _device(device: torch.device | str | int | None) -> torch.device:
    """With its index: a tensor's device has one, and `cuda` is not equal to `cuda:0`."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found
