"""Gradient checkpointing, where a model supports it: the backward pass recomputes activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

#: Methods that enable it, with their arguments. Non-reentrant checkpointing also works with inputs that require no
#: gradient and with hooks on parameters (https://docs.pytorch.org/docs/stable/checkpoint.html).
_ENABLE_METHODS: dict[str, dict[str, Any]] = {
    "activation_checkpointing_enable": {"activation_checkpointing_kwargs": {"use_reentrant": False}},  # transformers
    "gradient_checkpointing_enable": {
        "gradient_checkpointing_kwargs": {"use_reentrant": False}
    },  # transformers before 5
    "set_grad_checkpointing": {"enable": True},  # timm, open_clip
    "enable_gradient_checkpointing": {},  # diffusers
}


def can_checkpoint(model: nn.Module) -> bool:
    """Whether the model, or a part of it, supports gradient checkpointing."""
    return any(True for _ in _enable_methods(model))


def enable_checkpointing(model: nn.Module) -> bool:
    """Enable it in every module that supports it. False if none does."""
    found = list(_enable_methods(model))
    for module, name in found:
        getattr(module, name)(**_ENABLE_METHODS[name])
        config: Any = getattr(module, "config", None)
        if getattr(config, "use_cache", None):
            config.use_cache = False  # the key-value cache for generation would undo the saving
    return bool(found)


def _enable_methods(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The outermost modules with such a method."""
    # All transformers models have the method; this attribute says whether it works.
    if getattr(module, "supports_gradient_checkpointing", True):
        for name in _ENABLE_METHODS:
            if callable(getattr(module, name, None)):
                yield module, name
                return
    for child in module.children():
        yield from _enable_methods(child)
