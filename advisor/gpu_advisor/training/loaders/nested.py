"""Apply a function to every leaf of a batch: tensors nested in containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch


def map_leaves(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Return a batch of the same structure with `function` applied to every leaf.

    Containers are mappings, lists, tuples (including named ones) and dataclasses. An object with a method `to`, such as
    a PackedSequence, is a leaf unless it is a mapping. So is a container that cannot be rebuilt from its parts.
    """
    if isinstance(batch, torch.Tensor | str | bytes):
        return function(batch)
    if isinstance(batch, Mapping):
        return _like(batch, {key: map_leaves(value, function) for key, value in batch.items()}, function)
    if hasattr(batch, "to"):
        return function(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(value, function) for value in batch))
    if isinstance(batch, list | tuple):
        return _like(batch, [map_leaves(value, function) for value in batch], function)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = [field.name for field in dataclasses.fields(batch) if field.init]
        return dataclasses.replace(batch, **{name: map_leaves(getattr(batch, name), function) for name in fields})
    return function(batch)


def _like(batch: Any, parts: Any, function: Callable[[Any], Any]) -> Any:
    if type(batch) is type(parts):
        return parts
    try:
        return type(batch)(parts)
    except TypeError:
        return function(batch)
