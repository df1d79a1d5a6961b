"""Workloads to probe: small built-in models, or the user's own `package.module:factory`.

A factory is called as `factory(batch_size, device, precision)` and returns a function without arguments that runs one
training step, forward, backward and optimizer, on a batch of that size. `device` is a torch.device, `precision` one of
`precision.PRECISIONS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from gpu_advisor.calibration.errors import WorkloadError
from gpu_advisor.calibration.out_of_memory import memory_failure

StepFunction = Callable[[], object]
WorkloadFactory = Callable[[int, torch.device, str], StepFunction]
NUM_CLASSES = 100


def build_step(workload: str, batch_size: int, device: torch.device, precision: str) -> StepFunction:
    """Build the training step of a workload. Raises WorkloadError, but lets memory errors through."""
    factory = BUILT_IN.get(workload) or _load(workload)
    try:
        step = factory(batch_size, device, precision)
    except Exception as error:
        if memory_failure(error) is not None:
            raise
        raise WorkloadError(f"workload {workload} raised {type(error).__name__}: {error}: fix its factory") from error
    if not callable(step):
        raise WorkloadError(
            f"workload {workload} returned {type(step).__name__}: return a function without arguments that runs one "
            "training step"
        )
    return step


def run_step(workload: str, step: StepFunction) -> None:
    """Run one step. Raises WorkloadError, but lets memory errors through."""
    try:
        step()
    except Exception as error:
        if memory_failure(error) is not None:
            raise
        raise WorkloadError(f"a step of {workload} raised {type(error).__name__}: {error}: fix the step") from error


def _load(name: str) -> WorkloadFactory:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise WorkloadError(f"workload {name!r}: give one of {', '.join(BUILT_IN)} or package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise WorkloadError(
            f"workload {name}: {type(error).__name__}: {error}: check that this directory can import it (PYTHONPATH)"
        ) from error
    if not callable(factory):
        raise WorkloadError(f"workload {name} is a {type(factory).__name__}: name a function")
    found: WorkloadFactory = factory
    return found


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _training_step(model: nn.Module, inputs: torch.Tensor, device: torch.device, precision: str) -> StepFunction:
    model.to(device)
    targets = torch.randint(NUM_CLASSES, (inputs.shape[0],), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(device, precision):
            value = loss(model(inputs), targets)
        value.backward()
        optimizer.step()

    return step


def mlp(batch_size: int, device: torch.device, precision: str) -> StepFunction:
    """A three-layer MLP of width 2,048 on 1,024 features."""
    layers = [nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, NUM_CLASSES)]
    return _training_step(nn.Sequential(*layers), torch.randn(batch_size, 1024, device=device), device, precision)


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def conv(batch_size: int, device: torch.device, precision: str) -> StepFunction:
    """A residual network of eight blocks on 64 x 64 images."""
    widths = ((32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256))
    blocks = [_ResidualBlock(before, after, 1 if before == after else 2) for before, after in widths]
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, NUM_CLASSES)
    )
    return _training_step(model, torch.randn(batch_size, 3, 64, 64, device=device), device, precision)


class _MeanPooling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def transformer(batch_size: int, device: torch.device, precision: str) -> StepFunction:
    """Four encoder layers of width 256 on sequences of 128 tokens."""
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    model = nn.Sequential(encoder, _MeanPooling(), nn.Linear(256, NUM_CLASSES))
    return _training_step(model, torch.randn(batch_size, 128, 256, device=device), device, precision)


BUILT_IN: dict[str, WorkloadFactory] = {"mlp": mlp, "conv": conv, "transformer": transformer}
