"""The number of samples of a batch: tensors nested in containers. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_advisor.training.batch_layout import (
    BatchLayoutError,
    NodeKind,
    dimensions,
    fields,
    find_sample_count,
    first_dimension,
    is_array,
    node_kind,
)


def sample_count(batch: Any) -> int | None:
    """The number of samples; that of the first tensor, depth first, if parts disagree. None without a tensor."""
    quick = _quick_count(batch)
    if quick is not None:
        return quick
    try:
        return find_sample_count(batch)
    except BatchLayoutError:
        return _first_count(batch)


def _quick_count(batch: Any) -> int | None:
    """Of a tensor, or of `(inputs, labels)` or `{"inputs": ..., "labels": ...}` in agreement: most batches."""
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    elif not isinstance(batch, list | tuple):
        return first_dimension(batch) if is_array(batch) else None
    elif len(batch) > 2 or len(set(map(dimensions, batch))) != len(batch):
        return None
    counts = {first_dimension(each) if is_array(each) else None for each in batch}
    return counts.pop() if len(counts) == 1 else None


def _first_count(batch: Any) -> int | None:
    kind = node_kind(batch)
    if kind is NodeKind.ARRAY:
        return first_dimension(batch)
    if kind in (NodeKind.FIELDS, NodeKind.LIST):
        for part in fields(batch) if kind is NodeKind.FIELDS else batch:
            found = _first_count(part)
            if found is not None:
                return found
    return None
