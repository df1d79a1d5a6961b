"""Compares the gradients of a step in micro-batches with those of the undivided batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.errors import InexactError
from torch import nn

from benchmarks.gradients.batches import BatchShape, make_batch
from benchmarks.gradients.losses import LOSSES, prepare
from benchmarks.gradients.models import COUPLED, make_model

TOLERANCE_RATIO = 1e-6
#: A gradient of this norm is rounding: that of a loss which is constant for a batch, as the correlation of two samples.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """`error_ratio`: of the gradients, relative to their norm; None if the manager refused, with `reason`."""

    loss: str
    model: str
    shape: BatchShape
    error_ratio: float | None
    reason: str = ""

    @property
    def has_exact_weight(self) -> bool:
        return LOSSES[self.loss].exact and self.model not in COUPLED

    @property
    def equal(self) -> bool:
        return self.error_ratio is not None and self.error_ratio <= TOLERANCE_RATIO

    @property
    def refused(self) -> bool:
        return self.error_ratio is None


def compare(loss_name: str, model_name: str, shape: BatchShape, seed: int = 0) -> Comparison:
    """Gradients and the returned loss, whichever differs more."""
    loss = LOSSES[loss_name]
    batch = make_batch(shape, seed)
    stated = prepare(loss, batch)
    whole = make_model(model_name, seed)
    divided = copy.deepcopy(whole)

    def compute(model: nn.Module, part: Any) -> torch.Tensor:
        return loss.compute(model(part["x"]), part)

    expected = compute(whole, batch)
    expected.backward()
    manager = MemoryManager(divided)
    manager.micro_batch_size = shape.micro
    try:
        found = manager.backward(batch, compute, **stated)
    except InexactError as error:
        return Comparison(loss_name, model_name, shape, None, str(error))
    loss_error = float((found - expected.detach()).abs() / expected.detach().abs().clamp(min=1e-12))
    return Comparison(loss_name, model_name, shape, max(_gradient_error(whole, divided), loss_error))


def _gradient_error(expected: nn.Module, found: nn.Module) -> float:
    pairs = [
        (
            torch.zeros_like(one) if one.grad is None else one.grad,
            torch.zeros_like(other) if other.grad is None else other.grad,
        )
        for one, other in zip(expected.parameters(), found.parameters(), strict=True)
    ]
    difference = sum(float((one - other).square().sum()) for one, other in pairs)
    norm = sum(float(one.square().sum()) for one, _ in pairs)
    return float(difference**0.5 / max(norm**0.5, ROUNDING))
