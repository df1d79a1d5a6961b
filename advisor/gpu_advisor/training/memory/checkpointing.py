"""Gradient checkpointing, where a model has it: activations are computed again in the backward pass, not kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

#: How models offer it, and what they are told. Non-reentrant checkpointing also works with inputs that need no gradient
#: and with hooks on parameters (https://docs.pytorch.org/docs/stable/checkpoint.html).
_ENABLE_METHODS: dict[str, dict[str, Any]] = {
    "activation_checkpointing_enable": {"activation_checkpointing_kwargs": {"use_reentrant": False}},  # transformers
    "gradient_checkpointing_enable": {
        "gradient_checkpointing_kwargs": {"use_reentrant": False}
    },  # transformers before 5
    "set_grad_checkpointing": {"enable": True},  # timm, open_clip
    "enable_gradient_checkpointing": {},  # diffusers
}


def can_checkpoint(model: nn.Module) -> bool:
    """Whether the model, or parts of it, can be told to."""
    return any(True for _ in _enable_methods(model))


def enable_checkpointing(model: nn.Module) -> bool:
    """Tells it to every part that has it. False where none has."""
    found = list(_enable_methods(model))
    for module, name in found:
        getattr(module, name)(**_ENABLE_METHODS[name])
        config: Any = getattr(module, "config", None)
        if getattr(config, "use_cache", None):
            config.use_cache = False  # keys and values kept for generation are what checkpointing is to save
    return bool(found)


def _enable_methods(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The outermost modules that have a switch."""
    # transformers gives the method to all models, and this says whether it does anything.
    if getattr(module, "supports_gradient_checkpointing", True):
        for name in _ENABLE_METHODS:
            if callable(getattr(module, name, None)):
                yield module, name
                return
    for child in module.children():
        yield from _enable_methods(child)
