"""Splitting a batch into micro-batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from gpu_advisor.training.batches import sample_count
from gpu_advisor.training.memory.errors import MemoryManagerError


def count_samples(batch: Any) -> int:
    """The batch's size. Raises MemoryManagerError if it cannot be determined."""
    count = sample_count(batch)
    if not count:
        raise MemoryManagerError("the batch has no tensor with samples in its first dimension; pass split= and count=")
    return count


def even_part_size(count: int, max_size: int) -> int:
    """Size of the largest part when `count` samples are split evenly into the fewest parts of at most `max_size`."""
    parts = -(-count // max_size)
    return -(-count // parts)


def split_batch(batch: Any, size: int) -> Iterator[Any]:
    """Parts of at most `size` samples, as even as possible: views without copies.

    Tensors are split along their first dimension, lists with one item per sample by item; other values go into each
    part unchanged. Raises MemoryManagerError for a tensor of another length.
    """
    count = count_samples(batch)
    parts = -(-count // size)
    for number in range(parts):
        yield _slice(batch, count * number // parts, count * (number + 1) // parts, count)


def _slice(batch: Any, first: int, end: int, count: int) -> Any:
    if isinstance(batch, torch.Tensor):
        if not batch.dim():
            return batch
        if batch.shape[0] != count:
            raise MemoryManagerError(
                f"a tensor of shape {tuple(batch.shape)} in a batch of {count} samples does not have them in its first "
                "dimension; pass split= to split the batch yourself"
            )
        return batch[first:end]
    if isinstance(batch, Mapping):
        parts = {key: _slice(value, first, end, count) for key, value in batch.items()}
        return parts if type(batch) is dict else type(batch)(parts)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_slice(value, first, end, count) for value in batch))
    if isinstance(batch, list | tuple):
        if len(batch) == count and not any(isinstance(value, torch.Tensor) for value in batch):
            return batch[first:end]
        return type(batch)(_slice(value, first, end, count) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in dataclasses.fields(batch) if field.init]
        return dataclasses.replace(batch, **{name: _slice(getattr(batch, name), first, end, count) for name in names})
    return batch
