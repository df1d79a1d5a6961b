"""Several calls of `backward` make one step, or are refused; hooks and frozen parameters."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.errors import InexactError, UnusedGradientsError
from gpu_advisor.training.memory.simulated_memory import SimulatedMemory
from torch import nn

IGNORED = -100


def token_loss(net: nn.Module, part: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(net(part["x"]).flatten(0, 1), part["y"].flatten(), ignore_index=IGNORED)


def square_loss(net: nn.Module, part: torch.Tensor) -> Any:
    return net(part).square().mean()


def token_batches(count: int) -> list[dict[str, torch.Tensor]]:
    """With different numbers of labels."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for number in range(count):
        x = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
        y = torch.randint(6, (3, 4), generator=generator)
        y[:, number % 3 + 1 :] = IGNORED
        batches.append({"x": x, "y": y})
    return batches


def together(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def gradient(net: nn.Module, batch: Any, loss: Any) -> torch.Tensor:
    net = copy.deepcopy(net)
    net.zero_grad()
    loss(net, batch).backward()
    return torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None])


def found_gradient(net: nn.Module) -> torch.Tensor:
    return torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None])


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("in_call", [False, True])
def test_calls_add_up_to_their_batches_together(micro, in_call):
    net = nn.Linear(5, 6).double()
    manager = MemoryManager(net, accumulate=1 if in_call else 3)
    manager.micro_batch_size = micro
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        batches = token_batches(3)
        for number, batch in enumerate(batches, 1):
            manager.backward(batch, token_loss, accumulate=3 if in_call else None)
            expected = gradient(net, together(batches[:number]), token_loss)  # right at any time
            torch.testing.assert_close(found_gradient(net), expected, rtol=1e-9, atol=1e-12)
        optimizer.step()


def test_a_step_before_all_calls_starts_over():
    """The last step of an epoch has fewer batches."""
    net = nn.Linear(5, 6).double()
    manager = MemoryManager(net, accumulate=4)
    batches = token_batches(3)
    for batch in batches[:2]:
        manager.backward(batch, token_loss)
    torch.optim.SGD(net.parameters(), 0.1).step()
    manager.backward(batches[2], token_loss)
    torch.testing.assert_close(found_gradient(net), gradient(net, batches[2], token_loss))


def test_a_call_that_runs_out_of_memory_keeps_the_earlier_gradients():
    net = nn.Sequential(nn.Linear(64, 64), *(nn.Tanh() for _ in range(20)), nn.Linear(64, 1)).double()
    one, other = torch.randn(10, 64, dtype=torch.float64), torch.randn(200, 64, dtype=torch.float64)
    expected = gradient(net, torch.cat([one, other]), square_loss)
    with SimulatedMemory(1_300_000) as memory:
        manager = MemoryManager(net, memory=memory, accumulate=2)
        manager.backward(one, square_loss)
        assert manager.recoveries == 0
        manager.backward(other, square_loss)
    assert manager.recoveries >= 1
    torch.testing.assert_close(found_gradient(net), expected)


class DataOptimizer(torch.optim.Optimizer):
    """Changes `parameter.data`, whose changes PyTorch does not count."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data -= 0.1 * parameter.grad


@pytest.mark.parametrize("between", ["nothing", "step", "data step", "zero_grad", "zero in place", "nan", "scaler"])
def test_gradients_are_not_lost_silently(between):
    net = nn.Linear(4, 1)
    manager = MemoryManager(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if between == "scaler" else None
    optimizer = DataOptimizer(net.parameters()) if between == "data step" else torch.optim.SGD(net.parameters(), 0.1)
    x = torch.full((4, 4), float("inf") if between in ("nan", "scaler") else 1.0)
    manager.backward(x, square_loss, scaler=scaler)
    if between.endswith("step"):
        optimizer.step()
    elif between.startswith("zero"):
        optimizer.zero_grad(set_to_none=between == "zero_grad")
    elif scaler is not None:
        scaler.step(optimizer)  # finds infinite gradients and makes no step
        scaler.update()
    if between == "nothing":
        with pytest.raises(UnusedGradientsError, match="accumulate=n"):
            manager.backward(x, square_loss)
        return
    manager.backward(torch.ones(4, 4), square_loss)
    torch.testing.assert_close(found_gradient(net), gradient(net, torch.ones(4, 4), square_loss))


def test_hooks_of_parameters_run_once_with_the_whole_gradient():
    """A hook that clips each gradient, and an optimizer that runs in the backward pass."""
    torch.manual_seed(0)
    nets = [nn.Linear(3, 1).double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    calls: list[int] = []
    for net in nets:
        optimizer = torch.optim.SGD([net.weight], 0.5)

        def clip(gradient: torch.Tensor) -> torch.Tensor:
            return gradient.clamp(-0.01, 0.01)

        def step(parameter: torch.Tensor, optimizer: Any = optimizer) -> None:
            calls.append(1)
            optimizer.step()
            optimizer.zero_grad()

        net.weight.register_hook(clip)
        handle = net.weight.register_post_accumulate_grad_hook(step)
    x = torch.randn(9, 3, dtype=torch.float64)
    for _ in range(3):
        square_loss(nets[0], x).backward()
        nets[0].zero_grad()
    manager = MemoryManager(nets[1])
    manager.micro_batch_size = 2
    for _ in range(3):
        manager.backward(x, square_loss)
        nets[1].zero_grad()
    torch.testing.assert_close(nets[0].weight, nets[1].weight)
    assert len(calls) == 6
    handle.remove()
    manager.backward(x, square_loss)
    assert len(calls) == 6, "a removed hook came back"


def test_parameters_unfrozen_later_are_trained():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)).double()
    net[0].requires_grad_(False)
    manager = MemoryManager(net)
    manager.micro_batch_size = 2
    x = torch.randn(7, 4, dtype=torch.float64)
    manager.backward(x, square_loss)
    net.requires_grad_()
    net.zero_grad()
    manager.backward(x, square_loss)
    torch.testing.assert_close(found_gradient(net), gradient(net, x, square_loss))


def test_a_repeated_step_draws_the_same_random_numbers():
    drawn: list[tuple[float, float, float]] = []
    net = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 1))

    def loss(net: nn.Module, part: torch.Tensor) -> Any:
        if len(part) > 3:
            drawn.append((float(torch.rand(())), random.random(), float(np.random.rand())))
        return square_loss(net, part)

    with SimulatedMemory(60_000) as memory:
        manager = MemoryManager(net, memory=memory)
        manager.backward(torch.randn(40, 8), loss)
    assert manager.recoveries >= 1
    assert drawn[0] == drawn[1] != drawn[-1]


def test_what_cannot_be_divided_is_said_after_the_first_step(caplog):
    def contrastive(net: nn.Module, part: torch.Tensor) -> torch.Tensor:
        out = net(part)
        return nn.functional.cross_entropy(out @ out.T, torch.arange(len(out)))

    net = nn.Linear(4, 4)
    manager = MemoryManager(net)
    manager.backward(torch.randn(8, 4), contrastive)
    assert "compares samples with each other" in caplog.text
    kept = found_gradient(net)
    torch.testing.assert_close(kept, found_gradient(net))
    net.zero_grad()
    manager.micro_batch_size = 2
    with pytest.raises(InexactError, match="exact=False"):
        manager.backward(torch.randn(8, 4), contrastive)
    caplog.clear()
    permissive = MemoryManager(net, exact=False)
    permissive.micro_batch_size = 2
    permissive.backward(torch.randn(8, 4), contrastive)
    assert "results of this step change" in caplog.text


def test_dropout_is_no_reason_to_refuse():
    net = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 1))
    manager = MemoryManager(net)
    manager.micro_batch_size = 2
    manager.backward(torch.randn(8, 4), square_loss)
    assert net[1].training


def two_terms(net: nn.Module, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """Means over the first and over the second labels, of which any may be ignored; and one over parameters."""
    out = net(part["x"])
    losses = [
        nn.functional.cross_entropy(out[:, position], part["y"][:, position], ignore_index=IGNORED)
        for position in (0, 1)
    ]
    return losses[0] + losses[1] + 0.1 * torch.as_tensor(net.weight).square().mean()


def test_terms_that_differ_in_a_later_step_are_found():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(6, (12, 2), generator=generator)
    net = nn.Linear(5, 6).double()
    manager = MemoryManager(net)
    manager.micro_batch_size = 3
    for ignored in (0, 4):  # in both terms alike, then in one of them
        part = {"x": x, "y": y.clone()}
        part["y"][:ignored] = IGNORED
        manager.backward(part, two_terms)
        torch.testing.assert_close(found_gradient(net), gradient(net, part, two_terms))
        net.zero_grad()
    part["y"][5, 1] = IGNORED
    with pytest.raises(InexactError, match="different numbers"):
        manager.backward(part, two_terms)


def test_terms_may_differ_between_steps():
    """Sequences are padded to the longest of their batch."""

    def loss(net: nn.Module, part: torch.Tensor) -> Any:
        out = net(part)
        return out.square().mean() + out[:, 0].abs().mean()

    net = nn.Linear(4, 2).double()
    manager = MemoryManager(net)
    manager.micro_batch_size = 2
    for tokens in (3, 8):
        batch = torch.randn(5, tokens, 4, dtype=torch.float64)
        manager.backward(batch, loss)
        torch.testing.assert_close(found_gradient(net), gradient(net, batch, loss))
        net.zero_grad()
