"""The number of samples of a batch: a tensor, or tensors nested in containers. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def sample_count(batch: Any) -> int | None:
    """The length of the first dimension of the first tensor, depth first; None without one."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    for part in _children(batch):
        found = sample_count(part)
        if found is not None:
            return found
    return None


def _children(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return batch.values()
    if isinstance(batch, list | tuple):
        return batch
    if dataclasses.is_dataclass(batch):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    data = getattr(batch, "data", None)  # transformers' BatchEncoding keeps its tensors there
    return data.values() if isinstance(data, Mapping) else ()
