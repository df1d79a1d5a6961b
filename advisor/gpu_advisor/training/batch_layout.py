"""Where the samples of a batch are: which dimension or list has one entry per sample. Does not import torch.

A batch is arrays nested in containers. Arrays have the samples in their first dimension; a list has either one entry
per sample (the images of a detection batch, which differ in size) or one per field (`[inputs, labels]`). Only one
number of samples makes all parts of most batches agree. Where several do, the less unusual reading of the lists
decides, and a tie is an error: a wrong guess would train on parts of samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from typing import Any

#: Values that are the same for all samples.
PLAIN_TYPES = (str, bytes, bool, int, float, complex, type(None), range, slice, type, Enum)
#: Batches of fields with more entries of one shape than this are unusual: three are an anchor, a positive, a negative.
MAX_EQUAL_FIELDS = 3
#: First dimensions of an image, channels first.
IMAGE_CHANNELS = (1, 3, 4)


class BatchLayoutError(ValueError):
    """The number of samples cannot be determined. The message says why."""


class NodeKind(Enum):
    """What a value in a batch is."""

    ARRAY = "array"
    FIELDS = "fields"
    """A container whose entries are fields, by name."""
    LIST = "list"
    """A list or tuple with arrays or containers: one entry per field, or per sample."""
    PLAIN_LIST = "plain list"
    """A list or tuple of plain values."""
    PLAIN = "plain"
    OPAQUE = "opaque"


def node_kind(value: Any) -> NodeKind:
    if is_array(value):
        return NodeKind.ARRAY
    if isinstance(value, PLAIN_TYPES):
        return NodeKind.PLAIN
    if isinstance(value, Mapping) or _is_named_tuple(value) or is_dataclass_instance(value):
        return NodeKind.FIELDS
    if isinstance(value, list | tuple):
        kinds = {node_kind(item) for item in value}
        return NodeKind.PLAIN_LIST if kinds <= {NodeKind.PLAIN, NodeKind.PLAIN_LIST} else NodeKind.LIST
    if isinstance(getattr(value, "data", None), Mapping):  # a BatchEncoding before it was a Mapping
        return NodeKind.FIELDS
    return NodeKind.OPAQUE if _may_hold_samples(value) else NodeKind.PLAIN


def fields(value: Any) -> Sequence[Any]:
    """The values of a node of kind FIELDS."""
    if isinstance(value, Mapping):
        return list(value.values())
    if _is_named_tuple(value):
        return list(value)
    if is_dataclass_instance(value):
        return [getattr(value, each.name) for each in dataclasses.fields(value)]
    return list(value.data.values())


def is_array(value: Any) -> bool:
    """A tensor, a NumPy array, or what can be sliced like one. A PackedSequence counts: it has a number of samples."""
    if is_packed_sequence(value) or is_nested_tensor(value):
        return True
    return hasattr(value, "shape")


def is_packed_sequence(value: Any) -> bool:
    return type(value).__name__ == "PackedSequence" and hasattr(value, "batch_sizes")


def is_nested_tensor(value: Any) -> bool:
    """Its `shape` raises."""
    return getattr(value, "is_nested", False) is True


def is_dataclass_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def first_dimension(array: Any) -> int | None:
    """None for an array without dimensions."""
    if is_packed_sequence(array):
        return int(array.batch_sizes[0])
    if is_nested_tensor(array):
        return int(array.size(0))
    return int(array.shape[0]) if len(array.shape) else None


def find_sample_count(batch: Any) -> int:
    """The number of samples. Raises BatchLayoutError if there is none, or if several numbers are possible."""
    possible = {count: cost for count in _candidates(batch) if (cost := _cost(batch, count)) is not None}
    if not possible:
        raise BatchLayoutError(_why_none(batch))
    # Arrays of one sample fit any number: `[inputs, labels]` of one sample are not two.
    possible = {count: cost for count, cost in possible.items() if _has_samples(batch, count)} or possible
    least = min(possible.values())
    best = sorted(count for count, cost in possible.items() if cost == least)
    if len(best) > 1:
        found = " or ".join(map(str, best))
        raise BatchLayoutError(f"the batch may have {found} samples: its lists can be read both ways")
    _check_lists(batch, best[0])
    return best[0]


def _check_lists(value: Any, count: int) -> None:
    """Raises BatchLayoutError for a list that may be either."""
    kind = node_kind(value)
    if kind is NodeKind.FIELDS:
        for each in fields(value):
            _check_lists(each, count)
    elif kind is NodeKind.LIST and not is_sample_list(value, count):
        for each in value:
            _check_lists(each, count)


def is_sample_list(items: Sequence[Any], count: int) -> bool:
    """Whether a node of kind LIST has one entry per sample. Raises BatchLayoutError if it may be either."""
    by_field, by_sample = _field_cost(items, count), _sample_cost(items, count)
    if by_field is None or by_sample is None:
        return by_field is None
    if by_field == by_sample:
        raise BatchLayoutError(f"a list of {count} may have one entry per sample, or per field")
    return by_sample < by_field


def _candidates(batch: Any) -> set[int]:
    arrays_and_lists = set(_sizes(batch))
    # Without any array, a list of texts is a batch.
    return {size for size in arrays_and_lists or set(_plain_sizes(batch)) if size > 0}


def _sizes(value: Any) -> Iterator[int]:
    kind = node_kind(value)
    if kind is NodeKind.ARRAY:
        size = first_dimension(value)
        if size is not None:
            yield size
    elif kind is NodeKind.FIELDS:
        for each in fields(value):
            yield from _sizes(each)
    elif kind is NodeKind.LIST:
        yield len(value)
        for each in value:
            yield from _sizes(each)


def _plain_sizes(value: Any) -> Iterator[int]:
    kind = node_kind(value)
    if kind is NodeKind.PLAIN_LIST:
        yield len(value)
    elif kind is NodeKind.FIELDS:
        for each in fields(value):
            yield from _plain_sizes(each)


def _cost(value: Any, count: int) -> int | None:
    """How unusual the value is as a part of a batch of `count` samples; None if it cannot be."""
    kind = node_kind(value)
    if kind is NodeKind.ARRAY:
        return 0 if first_dimension(value) in (count, 1, None) else None
    if kind is NodeKind.FIELDS:
        return _sum_costs(fields(value), count)
    if kind is NodeKind.LIST:
        costs = [cost for cost in (_field_cost(value, count), _sample_cost(value, count)) if cost is not None]
        return min(costs, default=None)
    return None if kind is NodeKind.OPAQUE else 0


def _has_samples(value: Any, count: int) -> bool:
    """Whether an array, or a list of samples, has this number."""
    kind = node_kind(value)
    if kind is NodeKind.ARRAY:
        return first_dimension(value) == count
    if kind is NodeKind.FIELDS:
        return any(_has_samples(each, count) for each in fields(value))
    if kind is NodeKind.LIST:
        by_field, by_sample = _field_cost(value, count), _sample_cost(value, count)
        if by_sample is not None and (by_field is None or by_sample <= by_field):
            return True
        return any(_has_samples(each, count) for each in value)
    return kind is NodeKind.PLAIN_LIST and len(value) == count


def _sum_costs(values: Sequence[Any], count: int) -> int | None:
    costs = [_cost(each, count) for each in values]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _field_cost(items: Sequence[Any], count: int) -> int | None:
    """Of a list as fields."""
    inner = _sum_costs(items, count)
    if inner is None:
        return None
    if not _are_alike(items):
        return inner
    if _are_images(items):
        return inner + (1 if len(items) <= MAX_EQUAL_FIELDS else 2)
    if all(dimensions(each) >= 4 for each in items):
        return inner  # several views of each image
    return inner + (len(items) > MAX_EQUAL_FIELDS)


def _sample_cost(items: Sequence[Any], count: int) -> int | None:
    """Of a list with one entry per sample."""
    if len(items) != count or any(node_kind(each) is NodeKind.OPAQUE for each in items):
        return None
    if not _are_alike(items):
        return 2  # `[inputs, labels]` of two samples
    if _are_images(items):
        return 1 if len(items) <= MAX_EQUAL_FIELDS else 0
    if all(node_kind(each) is NodeKind.FIELDS for each in items):
        return int(len(items) <= MAX_EQUAL_FIELDS)
    if any(node_kind(each) is NodeKind.LIST for each in items):
        return 2  # `(images, boxes)`, two lists
    return 1


def _are_alike(items: Sequence[Any]) -> bool:
    """Whether they could be samples of one kind: arrays that differ in size only, or containers of the same fields."""
    kinds = {node_kind(each) for each in items}
    if kinds == {NodeKind.ARRAY}:
        return len({(dimensions(each), str(getattr(each, "dtype", ""))) for each in items}) == 1
    if kinds == {NodeKind.FIELDS}:
        return len({tuple(each) if isinstance(each, Mapping) else type(each) for each in items}) == 1
    return len(kinds) == 1


def _are_images(items: Sequence[Any]) -> bool:
    """Images or videos, channels first."""
    return all(dimensions(each) in (3, 4) and first_dimension(each) in IMAGE_CHANNELS for each in items)


def dimensions(value: Any) -> int:
    """Of an array, else 0."""
    if node_kind(value) is not NodeKind.ARRAY or is_nested_tensor(value):
        return 0
    return len(getattr(value, "shape", ()))


def _why_none(batch: Any) -> str:
    opaque = next(_opaque_types(batch), None)
    if opaque:
        return f"the batch holds a {opaque}, which cannot be divided"
    sizes = sorted(set(_sizes(batch)))
    if len(sizes) > 1:
        return f"its tensors and lists disagree on the number of samples: {', '.join(map(str, sizes))}"
    return "the batch has no tensor with samples in its first dimension"


def _opaque_types(value: Any) -> Iterator[str]:
    kind = node_kind(value)
    if kind is NodeKind.OPAQUE:
        yield type(value).__name__
    elif kind in (NodeKind.FIELDS, NodeKind.LIST):
        for each in fields(value) if kind is NodeKind.FIELDS else value:
            yield from _opaque_types(each)


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _may_hold_samples(value: Any) -> bool:
    """An object that is moved, sized or iterated, or that has an array as an attribute."""
    if isinstance(value, Set | Iterator) or hasattr(value, "to") or hasattr(value, "__len__"):
        return True
    names = {*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())}
    return any(is_array(getattr(value, name, None)) for name in names)
