"""Hooks of parameters run once a step, with the gradient of the whole batch, also if it is computed in parts.

`Tensor.register_hook` may clip or change a gradient, `Tensor.register_post_accumulate_grad_hook` may run the optimizer:
on the gradient of a part, they would do something else, and after an out-of-memory error they would do it twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn


class DeferredHooks:
    """Takes the hooks off the parameters on entry, and puts them back on exit."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._gradient_hooks: list[tuple[nn.Parameter, Any]] = []
        self._accumulated_hooks: list[tuple[nn.Parameter, Any]] = []
        for parameter in parameters:
            if parameter._backward_hooks:
                self._gradient_hooks.append((parameter, parameter._backward_hooks))
            if getattr(parameter, "_post_accumulate_grad_hooks", None):
                self._accumulated_hooks.append((parameter, parameter._post_accumulate_grad_hooks))

    def __enter__(self) -> DeferredHooks:
        for parameter, _ in self._gradient_hooks:
            parameter._backward_hooks = None
        for parameter, _ in self._accumulated_hooks:
            parameter._post_accumulate_grad_hooks = OrderedDict()  # None would leave them in place
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for parameter, hooks in self._gradient_hooks:
            parameter._backward_hooks = hooks
        for parameter, hooks in self._accumulated_hooks:
            parameter._post_accumulate_grad_hooks = hooks

    def run_gradient_hooks(self) -> None:
        """Those of `register_hook`, in order: each may replace the gradient."""
        with torch.no_grad():
            for parameter, hooks in self._gradient_hooks:
                for hook in tuple(hooks.values()):
                    if parameter.grad is not None:
                        changed = hook(parameter.grad)
                        parameter.grad = parameter.grad if changed is None else changed

    def run_accumulated_hooks(self) -> None:
        """Those of `register_post_accumulate_grad_hook`."""
        for parameter, hooks in self._accumulated_hooks:
            for hook in tuple(hooks.values()):
                if parameter.grad is not None:
                    hook(parameter)
