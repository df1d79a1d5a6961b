"""What a traced step runs where a CPU's kernel keeps other tensors than a GPU's, or where a fake tensor cannot go on.

The trace runs on fake tensors of a CPU, whose kernels differ in a few places from those of a GPU:

- attention with dropout writes its matrix on a CPU; a GPU's fused kernels keep the random state instead
  (https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html);
- an LSTM layer is one kernel whose workspace has no size in a trace; taken apart, it keeps gates and cells, as cuDNN's
  reserved space does;
- the matrices of experts are multiplied in any precision, which the shape function of PyTorch 2.13 refuses;
- truncated normal numbers are drawn by reading values; a trace needs no initial values;
- numbers made of numbers, as the drop-path rates of `torch.linspace`, keep their values, which models read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Function = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]

#: More numbers than a model reads one by one stay fake.
_MAX_REAL_NUMBERS = 4096
_NUMBERS_OF_NUMBERS = frozenset({"linspace", "logspace", "tensor"})
_DROPOUT_POSITION = 4


@contextmanager
def gpu_like_kernels() -> Iterator[None]:
    """Enter within the fake tensor mode and what counts its tensors."""
    functional, init = nn.functional, nn.init
    attention, truncated = functional.scaled_dot_product_attention, init._no_grad_trunc_normal_

    def attend(*args: Any, **kwargs: Any) -> Any:
        return _attend(attention, args, kwargs)

    # By name, too: a mode does not see what PyTorch's own layers call within a function that it has seen.
    functional.scaled_dot_product_attention = attend
    init._no_grad_trunc_normal_ = lambda tensor, *_args, **_kwargs: tensor
    try:
        with _Functions(), _GroupedMatmul():  # type: ignore[no-untyped-call]
            yield
    finally:
        functional.scaled_dot_product_attention = attention
        init._no_grad_trunc_normal_ = truncated


class _Functions(TorchFunctionMode):
    def __torch_function__(
        self, func: Function, types: Any, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        given, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return _attend(func, args, given)
        if name == "lstm":
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **given)
        if _has_values(name, args, given):
            with unset_fake_temporarily():
                made = func(*args, **given)
            if not isinstance(made, torch.Tensor) or made.numel() <= _MAX_REAL_NUMBERS:
                return made
        return func(*args, **given)


def _attend(func: Function, args: Arguments, kwargs: Keywords) -> Any:
    if len(args) > _DROPOUT_POSITION:
        args = (*args[:_DROPOUT_POSITION], 0.0, *args[_DROPOUT_POSITION + 1 :])
    return func(*args, **(kwargs | {"dropout_p": 0.0} if "dropout_p" in kwargs else kwargs))


def _has_values(name: str, args: Arguments, kwargs: Keywords) -> bool:
    """Whether all tensors that a function is given are real, or it makes one of numbers."""
    if kwargs.get("requires_grad") or not _is_on_cpu(kwargs.get("device")):
        return False
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if not tensors:
        return name in _NUMBERS_OF_NUMBERS
    return not any(
        isinstance(tensor, FakeTensor | nn.Parameter) or tensor.requires_grad or tensor.numel() > _MAX_REAL_NUMBERS
        for tensor in tensors
    )


def _is_on_cpu(device: Any) -> bool:
    return device is None or torch.device(device).type == "cpu"


class _GroupedMatmul(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Function, types: Any, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        if getattr(func, "__name__", "") != "_grouped_mm.default":
            return func(*args, **(kwargs or {}))
        left, right, offsets = args[0], args[1], args[2] if len(args) > 2 else (kwargs or {}).get("offs")
        shape = _product_shape(left, right, offsets)
        return left.new_empty(shape, dtype=(kwargs or {}).get("out_dtype") or left.dtype)


def _product_shape(left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor | None) -> tuple[int, ...]:
    """Of `torch.nn.functional.grouped_mm`: groups of rows, of columns, of the summed dimension, or whole matrices."""
    rows, columns = left.shape[-2], right.shape[-1]
    if left.dim() == right.dim() == 3:
        return left.shape[0], rows, columns
    if left.dim() == right.dim() == 2 and offsets is not None:
        return offsets.shape[0], rows, columns
    return rows, columns
