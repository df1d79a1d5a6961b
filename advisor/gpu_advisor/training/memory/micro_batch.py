"""Splitting a batch into micro-batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from gpu_advisor.calibration.out_of_memory import memory_failure
from gpu_advisor.training.batch_layout import (
    BatchLayoutError,
    NodeKind,
    find_sample_count,
    first_dimension,
    is_dataclass_instance,
    is_nested_tensor,
    is_packed_sequence,
    is_sample_list,
    node_kind,
)
from gpu_advisor.training.memory.errors import MemoryManagerError

HOW_TO_SPLIT = "pass split= and count= to split the batch yourself"


def count_samples(batch: Any) -> int:
    """The batch's size. Raises MemoryManagerError if it cannot be determined, or if the batch cannot be split."""
    try:
        return find_sample_count(batch)
    except BatchLayoutError as error:
        raise MemoryManagerError(f"{error}; {HOW_TO_SPLIT}") from error


def part_count(count: int, max_size: int, min_size: int = 1) -> int:
    """The number of parts: the fewest of at most `max_size` samples, but none of less than `min_size`.

    If both cannot be, as for 5 samples in parts of exactly 2, parts are larger than `max_size`.
    """
    return max(min(-(-count // max_size), count // min_size), 1)


def even_part_size(count: int, max_size: int, min_size: int = 1) -> int:
    """The size of the largest part when `count` samples are split evenly into `part_count` parts."""
    return -(-count // part_count(count, max_size, min_size))


def part_ranges(count: int, max_size: int, min_size: int = 1) -> list[tuple[int, int]]:
    """First and last (exclusive) sample of each part, as even as possible."""
    parts = part_count(count, max_size, min_size)
    return [(count * number // parts, count * (number + 1) // parts) for number in range(parts)]


def split_batch(batch: Any, size: int) -> Iterator[Any]:
    """Parts of at most `size` samples, as even as possible: views without copies, where slicing gives views.

    Arrays (tensors, NumPy) are split along their first dimension, lists with one entry per sample by entry. Other
    values, arrays without dimensions, and arrays whose first dimension is 1 go into each part unchanged. Raises
    MemoryManagerError for what cannot be split.
    """
    count = count_samples(batch)
    for first, end in part_ranges(count, size):
        yield take_samples(batch, slice(first, end), count)


#: Samples of a batch: a range, or their numbers.
Samples = slice | Sequence[int]


def take_samples(batch: Any, samples: Samples, count: int) -> Any:
    """These samples of `count`; copies, if they are given by numbers."""
    kind = node_kind(batch)
    if kind is NodeKind.ARRAY:
        return batch if first_dimension(batch) != count else _take_from_array(batch, samples)
    if kind is NodeKind.FIELDS:
        return _take_from_fields(batch, samples, count)
    if kind is NodeKind.PLAIN_LIST:
        return _take_from_list(batch, samples) if len(batch) == count else batch
    if kind is NodeKind.LIST:
        if is_sample_list(batch, count):
            return _take_from_list(batch, samples)
        return type(batch)(take_samples(value, samples, count) for value in batch)
    return batch


def _take_from_list(items: Any, samples: Samples) -> Any:
    return items[samples] if isinstance(samples, slice) else type(items)(items[number] for number in samples)


def _take_from_array(array: Any, samples: Samples) -> Any:
    if is_packed_sequence(array):
        sequences = _take_from_list(torch.nn.utils.rnn.unpack_sequence(array), samples)
        return torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    if is_nested_tensor(array):
        return torch.nested.as_nested_tensor(_take_from_list(list(array.unbind()), samples), layout=array.layout)
    try:
        if isinstance(samples, slice):
            return array[samples]
        taken = array[list(samples)]
    except (RuntimeError, NotImplementedError, TypeError, IndexError) as error:  # sparse tensors cannot be sliced
        if memory_failure(error) is not None:
            raise
        raise MemoryManagerError(
            f"a {type(array).__name__} of the batch cannot be sliced ({error}); {HOW_TO_SPLIT}"
        ) from error
    # Copies serve several passes: a graph back to the batch would be freed by the first one.
    return taken.detach().requires_grad_() if getattr(array, "requires_grad", False) else taken


def _take_from_fields(batch: Any, samples: Samples, count: int) -> Any:
    def cut(value: Any) -> Any:
        return take_samples(value, samples, count)

    try:
        if isinstance(batch, Mapping):
            rebuild: Callable[[dict[Any, Any]], Any] = type(batch)
            return rebuild({key: cut(value) for key, value in batch.items()})
        if isinstance(batch, tuple):
            return type(batch)(*map(cut, batch))
        if is_dataclass_instance(batch):
            names = [field.name for field in dataclasses.fields(batch) if field.init]
            return dataclasses.replace(batch, **{name: cut(getattr(batch, name)) for name in names})
        return type(batch)({key: cut(value) for key, value in batch.data.items()})
    except TypeError as error:
        raise MemoryManagerError(
            f"a {type(batch).__name__} cannot be rebuilt from its parts ({error}); {HOW_TO_SPLIT}"
        ) from error
