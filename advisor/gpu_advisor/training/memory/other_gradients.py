"""Gradients of tensors that the loss trains beside the model's parameters: of a criterion, of another network.

A manager knows the parameters of its model. Those of a loss module (ArcFace, a learned temperature) or of a
discriminator get gradients in the same backward pass: they must count each part like the model's, forget a step that
failed, and not see the few passes with which a step is examined. As without the manager, they are added to what is
there: `zero_grad` is the user's.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

log = logging.getLogger(__name__)

#: Steps of one kind whose losses' graphs are searched in vain, and steps after which gradients are looked at: the first
#: batches of a program show what it does.
MAX_SEARCHES = 3


class _Left(NamedTuple):
    """A gradient as a step left it, and the version of its tensor's values then."""

    gradient: weakref.ref[torch.Tensor]
    version: int


class OtherGradients:
    """Found in the graphs of losses, and set aside while a step runs."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._known: dict[int, weakref.ref[torch.Tensor]] = {}
        self._aside: dict[int, torch.Tensor | None] = {}
        self._left: dict[int, _Left] = {}
        self._in_vain: Counter[Hashable] = Counter()
        self._kinds: set[Hashable] = set()
        self._found = False
        self._running = self._warned = False
        self._checks = 0

    def set_aside(self, own: Sequence[nn.Parameter]) -> None:
        """Before a step: until `put_back`, the tensors have only the gradients of this step. `own`: the model's."""
        self._own = set(map(id, own))
        self._running, self._found = True, False
        self._known = {key: reference for key, reference in self._known.items() if reference() is not None}
        for tensor in self.tensors():
            self._warn_if_not_cleared(tensor)
            self._take(tensor)

    def note(self, loss: torch.Tensor, kind: Hashable) -> None:
        """Before the backward pass of a loss of this kind."""
        if not self._running or self._in_vain[kind] >= MAX_SEARCHES:
            return
        self._kinds.add(kind)
        for tensor in _leaves(loss):
            if id(tensor) not in self._own and id(tensor) not in self._aside:
                self._known[id(tensor)] = weakref.ref(tensor)
                self._take(tensor)
                self._found = True  # the next batch may have others: inputs that require gradients

    def tensors(self) -> list[torch.Tensor]:
        """Those found so far that still exist and are not the model's."""
        found = ((key, reference()) for key, reference in self._known.items() if key not in self._own)
        return [tensor for _, tensor in found if tensor is not None]

    def clear(self) -> None:
        """Forget the gradients of a pass that failed, or that was a trial."""
        for tensor in self.tensors() if self._running else ():
            tensor.grad = None

    def put_back(self, old_share: float = 1.0, new_share: float = 1.0) -> None:
        """After a step: what was set aside, plus the step's, each with its share."""
        for tensor in self.tensors():
            earlier, new = self._aside.get(id(tensor)), tensor.grad
            if earlier is not None and new is not None:
                tensor.grad = earlier * old_share + new * new_share
            elif earlier is not None:
                tensor.grad = earlier if old_share == 1 else earlier * old_share
            elif new is not None and new_share != 1:
                tensor.grad = new * new_share
            if tensor.grad is not None:
                self._left[id(tensor)] = _Left(weakref.ref(tensor.grad), tensor._version)
        for kind in self._kinds:
            self._in_vain[kind] = 0 if self._found else self._in_vain[kind] + 1
        self._kinds.clear()
        self._aside.clear()
        self._running = False

    def _take(self, tensor: torch.Tensor) -> None:
        self._aside[id(tensor)] = tensor.grad
        tensor.grad = None

    def _warn_if_not_cleared(self, tensor: torch.Tensor) -> None:
        """If an optimizer has used a gradient that is still there, the next one is added to it."""
        left = self._left.pop(id(tensor), None)
        if self._warned or left is None or tensor.grad is None:
            return
        if left.gradient() is not tensor.grad or left.version == tensor._version or self._checks >= MAX_SEARCHES:
            return
        self._checks += 1  # the next line waits for the device
        if bool(torch.count_nonzero(gradient_values(tensor.grad))):
            self._warned = True
            log.warning(
                "the loss trains a tensor of %s that is not in the model, and its gradient was not cleared since the "
                "last step: call optimizer.zero_grad() before backward(), or give MemoryManager a module that holds "
                "both, such as nn.ModuleList([model, criterion])",
                "x".join(map(str, tensor.shape)) or "one element",
            )


def gradient_values(gradient: torch.Tensor) -> torch.Tensor:
    """Those that are stored: all of a dense gradient."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _leaves(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors in which the backward pass accumulates gradients."""
    if loss.grad_fn is None:
        return
    waiting: list[Any] = [loss.grad_fn]
    seen = {waiting[0]}
    while waiting:
        node = waiting.pop()
        tensor = getattr(node, "variable", None)  # of AccumulateGrad
        if isinstance(tensor, torch.Tensor):
            yield tensor
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
