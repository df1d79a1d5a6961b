"""PrefetchLoader: copies the next batch to the GPU while the current step computes."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from gpu_advisor.training.loaders.nested import map_leaves

B = TypeVar("B")


class _PrefetchedBatch(NamedTuple):
    """A batch that is being copied to the device, complete once the event `copied` has been reached. `state`: of a
    loader that can be resumed, after this batch."""

    batch: Any
    copied: torch.cuda.Event | None
    state: Any


class PrefetchLoader(Generic[B]):
    """Yields any loader's batches, each once and in order, on `device`.

    On CUDA a separate stream copies them; the copy overlaps with computation only from pinned memory
    (`pin_memory=True` of a DataLoader). On other devices they are copied when they are yielded.

    It takes `depth` batches more from the loader than it yields: with a loader that can be iterated only once, they are
    lost when the loop ends early. An error of the loader is raised in place of its batch, after the batches before it.
    `state_dict()` of a loader that can be resumed, as torchdata's StatefulDataLoader, is that after the batch that was
    yielded last, not after those ahead of it.
    """

    def __init__(self, loader: Iterable[B], device: torch.device | str | int | None = None, *, depth: int = 1) -> None:
        """device: the current CUDA device if None, the CPU without one. depth: batches ahead, in device memory."""
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1; to prefetch nothing, use the loader itself")
        self.loader = loader
        self.depth = depth
        self.device = _device(device)
        self._state: Any = None
        """The loader's state after the batch that was last yielded; None before the first."""

    def __getattr__(self, name: str) -> Any:
        """The loader's own attributes: `dataset`, `sampler`, `batch_size` and others."""
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        found = getattr(self.loader, name)
        return {"state_dict": self._state_dict, "load_state_dict": self._load_state_dict}.get(name, found)

    def _state_dict(self) -> Any:
        return self._loader_state() if self._state is None else self._state

    def _load_state_dict(self, state: Any) -> Any:
        self._state = None  # of the batches before
        loader: Any = self.loader
        return loader.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the loader's sampler, which shuffles by it, if it has one."""
        for each in (self.loader, getattr(self.loader, "batch_sampler", None), getattr(self.loader, "sampler", None)):
            if callable(set_epoch := getattr(each, "set_epoch", None)):
                set_epoch(epoch)

    def __len__(self) -> int:
        """The loader's length. Raises TypeError if it has none."""
        if not isinstance(self.loader, Sized):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return len(self.loader)

    def __iter__(self) -> Iterator[B]:
        copy_stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        ahead: deque[_PrefetchedBatch] = deque()
        error_to_raise: Exception | None = None
        source: Iterator[B] | None = None
        ended = False
        while True:
            while not ended and len(ahead) <= self.depth:
                if ahead and (copied := ahead[-1].copied) is not None:
                    # The loader may reuse the pinned buffer. The copy has had a whole step's time.
                    copied.synchronize()
                try:
                    source = iter(self.loader) if source is None else source
                    batch = next(source)
                    ahead.append(self._copy_async(batch, copy_stream, self._loader_state()))
                except StopIteration:
                    ended = True
                except Exception as error:  # noqa: BLE001  # raised in place of its batch
                    error_to_raise, ended = error, True
            if not ahead:
                break
            self._state = ahead[0].state
            yield self._deliver(ahead.popleft())
        self._state = None
        if error_to_raise is not None:
            raise error_to_raise

    def _loader_state(self) -> Any:
        state_dict = getattr(self.loader, "state_dict", None)
        return copy.deepcopy(state_dict()) if callable(state_dict) else None

    def _copy_async(self, batch: B, copy_stream: torch.cuda.Stream | None, state: Any) -> _PrefetchedBatch:
        if copy_stream is None:
            return _PrefetchedBatch(batch, None, state)
        with torch.cuda.stream(copy_stream):
            sent = map_leaves(batch, self._copy)
            copied = torch.cuda.Event()
            copied.record(copy_stream)
        return _PrefetchedBatch(sent, copied, state)

    def _copy(self, leaf: Any) -> Any:
        # A tensor that is already on a GPU belongs to another stream, which this one does not wait for: see _deliver.
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
                # record_stream cannot be called on tensors inside an opaque leaf: copy it on the consumer's stream.
                return leaf.to(self.device) if hasattr(leaf, "to") else leaf
            if stream is None or leaf.device != self.device:
                return leaf.to(self.device)
            # The allocator knows only the stream that allocated the memory: keep it until the consumer's is done.
            leaf.record_stream(stream)
            return leaf

        delivered: B = map_leaves(ahead.batch, finish)
        return delivered


def _device(device: torch.device | str | int | None) -> torch.device:
    """A device with its index: a tensor's device has one, and `cuda` != `cuda:0`."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found
