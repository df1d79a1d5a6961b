"""Gradients of several calls that make one step: at any time those of the calls' batches together."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from gpu_advisor.training.memory.errors import UnusedGradientsError
from gpu_advisor.training.memory.other_gradients import gradient_values


@dataclass(slots=True)
class _CallGroup:
    """The calls since the last step. `weight`: of their batches; `versions`: of the weights they were made with."""

    calls: int = 0
    weight: float = 0.0
    versions: tuple[int, ...] = ()


class GradientAccumulation:
    """Keeps the gradients of earlier calls while the next one is computed, and combines them.

    A step is recognized by the weights it changes (`Tensor._version`), or by the optimizer: some change
    `parameter.data`, which has no version.
    """

    def __init__(self) -> None:
        self._group = _CallGroup()
        self._parameters: tuple[weakref.ref[nn.Parameter], ...] = ()
        self._optimizer_stepped = False
        own = weakref.ref(self)

        def note(optimizer: Optimizer, *_: Any) -> None:
            accumulation = own()
            if accumulation is not None:
                accumulation._note_step(optimizer)

        handle = register_optimizer_step_post_hook(note)
        weakref.finalize(self, handle.remove).atexit = False

    def take(self, parameters: Sequence[nn.Parameter], calls: int) -> list[torch.Tensor | None] | None:
        """The gradients of earlier calls of this step, in order of the parameters; None for the first call of a step.

        Raises UnusedGradientsError after `calls` calls without a step.
        """
        group = self._group
        if not group.calls or self._has_stepped(parameters) or self._was_cleared(parameters):
            self._group = _CallGroup()
            return None
        if group.calls < calls:
            return [parameter.grad for parameter in parameters]
        if self._was_skipped(parameters):
            self._group = _CallGroup()
            return None
        raise UnusedGradientsError(
            f"backward() was called {group.calls + 1} times without an optimizer step, and it replaces the gradients: "
            "call optimizer.step() after each; or pass accumulate=n to MemoryManager for a step of n batches; or call "
            "optimizer.zero_grad() to discard the gradients"
        )

    def combine(
        self, parameters: Sequence[nn.Parameter], earlier: list[torch.Tensor | None] | None, weight: float | None
    ) -> tuple[float, float]:
        """Add the earlier gradients to those of this call. `weight`: of this batch in their mean; None: a sum.

        Returns the factors of the earlier gradients and of the new ones.
        """
        group = self._group
        shares = (1.0, 1.0) if earlier is None else _shares(group.weight, weight)
        if earlier is not None:
            _combine(parameters, earlier, *shares)
        group.calls += 1
        group.weight += weight or 0.0
        group.versions = tuple(parameter._version for parameter in parameters)
        self._parameters = tuple(weakref.ref(parameter) for parameter in parameters)
        self._optimizer_stepped = False
        return shares

    def _note_step(self, optimizer: Optimizer) -> None:
        own = {id(parameter()) for parameter in self._parameters}
        stepped = (id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        self._optimizer_stepped |= any(parameter in own for parameter in stepped)

    def _has_stepped(self, parameters: Sequence[nn.Parameter]) -> bool:
        return self._optimizer_stepped or self._group.versions != tuple(each._version for each in parameters)

    def _was_cleared(self, parameters: Sequence[nn.Parameter]) -> bool:
        return all(parameter.grad is None for parameter in parameters)

    def _was_skipped(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether nothing is lost: the gradients are zero, or not finite, for which scalers and loops skip a step."""
        norms = [torch.linalg.vector_norm(gradient_values(each.grad)) for each in parameters if each.grad is not None]
        total = sum(float(norm) for norm in norms)
        return total == 0 or total != total or total == float("inf")


def _shares(earlier: float, weight: float | None) -> tuple[float, float]:
    """Factors of the earlier gradients and of the new ones."""
    if weight is None:
        return 1.0, 1.0
    total = earlier + weight
    return (earlier / total, weight / total) if total else (1.0, 1.0)


def _combine(
    parameters: Sequence[nn.Parameter], earlier: list[torch.Tensor | None], old_share: float, new_share: float
) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(parameters, earlier, strict=True):
            if gradient is None:
                if parameter.grad is not None:
                    parameter.grad.mul_(new_share)
            elif parameter.grad is None:
                parameter.grad = gradient.mul_(old_share)
            else:
                parameter.grad = gradient.mul_(old_share).add_(parameter.grad, alpha=new_share)
