"""Losses that train more than the manager's model: a criterion with parameters, another network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator

import pytest
import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.simulated_memory import SimulatedMemory
from torch import nn
from torch.nn import functional as F  # noqa: N812


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    return model.double(), nn.Linear(4, 4, bias=False).double()


def batches(count: int = 3, ignored: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        labels = torch.randint(0, 4, (8,), generator=generator)
        labels[:ignored] = -100
        yield torch.randn(8, 6, generator=generator, dtype=torch.float64), labels


def loss_of(model: nn.Module, criterion: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(criterion(model(batch[0])), batch[1])


def trained_plainly(ignored: int, accumulate: int) -> list[torch.Tensor]:
    model, criterion = networks()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.5, momentum=0.9)
    found = list(batches(4, ignored))
    for first in range(0, 4, accumulate):
        optimizer.zero_grad()
        group = found[first : first + accumulate]
        joined = tuple(torch.cat([each[part] for each in group]) for part in (0, 1))
        loss_of(model, criterion, joined).backward()  # type: ignore[arg-type]
        optimizer.step()
    return [*model.parameters(), *criterion.parameters()]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("ignored", [0, 2])
@pytest.mark.parametrize("size", [None, 1, 3])
def test_a_criterion_outside_the_model_is_trained_as_without_the_manager(
    size: int | None, ignored: int, accumulate: int
) -> None:
    model, criterion = networks()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.5, momentum=0.9)
    manager = MemoryManager(model, accumulate=accumulate)
    manager.micro_batch_size = size
    for number, batch in enumerate(batches(4, ignored)):
        if number % accumulate == 0:
            optimizer.zero_grad()
        manager.backward(batch, lambda model, part: loss_of(model, criterion, part))
        if number % accumulate == accumulate - 1:
            optimizer.step()
    for found, expected in zip([*model.parameters(), *criterion.parameters()], trained_plainly(ignored, accumulate),
                               strict=True):  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_step_that_runs_out_of_memory_leaves_nothing_in_other_gradients() -> None:
    model, criterion = networks()
    earlier = torch.full((4, 4), 0.25, dtype=torch.float64)
    criterion.weight.grad = earlier.clone()
    failures = iter([True])

    def fail_once(gradient: torch.Tensor) -> torch.Tensor:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient

    def loss(model: nn.Module, part: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        hidden = model(part[0])
        hidden.register_hook(fail_once)  # the criterion's gradient is there by now
        return F.cross_entropy(criterion(hidden), part[1])

    batch = next(batches())
    with SimulatedMemory(limit_bytes=1 << 40) as memory:
        MemoryManager(model, memory=memory).backward(batch, loss)
    found = criterion.weight.grad.clone()
    criterion.weight.grad = None
    loss_of(model, criterion, batch).backward()
    assert criterion.weight.grad is not None
    torch.testing.assert_close(found, earlier + criterion.weight.grad)


def test_examining_a_step_leaves_other_gradients_alone() -> None:
    model, criterion = networks()
    plain = copy.deepcopy((model, criterion))
    batch = next(batches())
    MemoryManager(model).backward(batch, lambda model, part: loss_of(model, criterion, part))
    loss_of(*plain, batch).backward()
    torch.testing.assert_close(criterion.weight.grad, plain[1].weight.grad)


def test_gradients_that_are_never_cleared_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    model, criterion = networks()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.1)
    manager = MemoryManager(model)
    with caplog.at_level(logging.WARNING):
        for batch in batches(4):
            manager.backward(batch, lambda model, part: loss_of(model, criterion, part))
            optimizer.step()
    [message] = [each for each in caplog.messages if "not in the model" in each]
    assert "a tensor of 4x4" in message
    assert "nn.ModuleList([model, criterion])" in message


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_that_are_cleared_are_not_reported(to_none: bool, caplog: pytest.LogCaptureFixture) -> None:
    model, criterion = networks()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.1)
    manager = MemoryManager(model)
    for batch in batches(4):
        optimizer.zero_grad(set_to_none=to_none)
        manager.backward(batch, lambda model, part: loss_of(model, criterion, part))
        optimizer.step()
    assert not caplog.messages


@pytest.mark.parametrize("size", [None, 1, 3])
def test_inputs_that_require_gradients_get_those_of_the_whole_batch(size: int | None) -> None:
    model, criterion = networks()
    manager = MemoryManager(nn.ModuleList([model, criterion]))
    manager.micro_batch_size = size
    for inputs, labels in batches(6, ignored=2):
        expected, *_ = torch.autograd.grad(loss_of(model, criterion, (inputs.requires_grad_(), labels)), inputs)
        manager.backward((inputs, labels), lambda _models, part: loss_of(model, criterion, part))
        manager.model.zero_grad()
        torch.testing.assert_close(inputs.grad, expected)


def test_two_networks_with_a_manager_each_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    generator, discriminator = networks()
    managers = MemoryManager(generator), MemoryManager(discriminator)
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in (generator, discriminator)]
    for batch in batches(4):
        fake = generator(batch[0]).detach()
        managers[1].backward(fake, lambda model, part: F.softplus(model(part)).mean())
        optimizers[1].step()
        managers[0].backward(batch[0], lambda model, part: F.softplus(-discriminator(model(part))).mean())
        optimizers[0].step()
    assert not [each for each in caplog.messages if "not in the model" in each]
