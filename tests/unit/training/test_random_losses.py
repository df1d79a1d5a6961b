"""Losses that draw random numbers: divided where each sample has its own, else refused."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.errors import InexactError
from torch import nn
from torch.nn import functional as F  # noqa: N812

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def diffusion(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Noise and a time step for each sample."""
    times, noise = torch.randint(1, 10, (len(x), 1)), torch.randn_like(x)
    return F.mse_loss(model(x + noise * times / 10), noise)


def in_place(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x + torch.empty_like(x).uniform_(-1, 1)), x)


def of_channels(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Draws in which samples are not the first dimension."""
    return F.mse_loss(model(x * torch.bernoulli(torch.full((x.shape[1], len(x)), 0.5)).T), x)


def with_dropout(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(F.dropout(x, 0.3, training=True)), x)


def one_time_for_all(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x * torch.rand(())), x)


def mixup(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(0.7 * x + 0.3 * x[torch.randperm(len(x))]), x)


def shared_negatives(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(x) @ torch.randn(4, x.shape[1], dtype=x.dtype).T
    return logits.logsumexp(1).mean()


def python_for_all(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x * random.choice((0.1, 1.0, 10.0)) + torch.randn_like(x) * random.random() * len(x)), x)


def as_many_as_samples(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x), x) * sum(float(torch.rand(())) for _ in range(len(x)))


def divided(loss: Loss, **options: Any) -> MemoryManager:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Dropout(0.2), nn.Linear(12, 6)).double()
    manager = MemoryManager(model, **options)
    manager.micro_batch_size = 2
    manager.backward(torch.randn(7, 6, dtype=torch.float64), loss)
    return manager


@pytest.mark.parametrize("loss", [diffusion, in_place, of_channels, with_dropout])
def test_numbers_of_samples_divide_without_a_doubt(loss: Loss, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gpu_advisor"):
        divided(loss)
    assert "not checked" not in caplog.text


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (one_time_for_all, "batch as a whole"), (mixup, "cannot run on a part|differ"), (shared_negatives, "whole"),
        (as_many_as_samples, "other random numbers|fewer random numbers|batch as a whole"),
    ],
)  # fmt: skip
def test_numbers_of_the_batch_are_refused(loss: Loss, why: str) -> None:
    with pytest.raises(InexactError, match=why):
        divided(loss)
    divided(loss, exact=False)


def test_numbers_that_are_not_torchs_are_not_guessed() -> None:
    with pytest.raises(InexactError, match="random numbers"):
        divided(python_for_all)


def test_a_trial_leaves_the_random_state_alone() -> None:
    """What is drawn after the step does not depend on whether it was examined."""
    after = []
    for exact in (True, False):
        divided(diffusion, exact=exact)
        after.append(torch.rand(3))
    assert torch.equal(*after)
