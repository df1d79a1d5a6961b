"""Programs as users write them, divided and undivided: the same weights, or refused with the reason."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.errors import InexactError, MemoryManagerError
from torch import nn
from torch.nn import functional as F  # noqa: N812

#: Trains with micro-batches of this size, or undivided, and returns what it trained.
Program = Callable[[int | None], list[torch.Tensor]]


def network(inputs: int = 6, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs)).double()


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 6, dtype=torch.float64), torch.randint(0, 4, (size,))


def manager_of(model: nn.Module, size: int | None) -> MemoryManager:
    manager = MemoryManager(model)
    manager.micro_batch_size = size
    return manager


def loss_of(model: nn.Module, part: Any) -> torch.Tensor:
    return F.cross_entropy(model(part[0]), part[1])


def sharpness_aware(size: int | None) -> list[torch.Tensor]:
    """SAM: two backward passes for a step, with `zero_grad` between them."""
    model = network()
    optimizer, manager = torch.optim.SGD(model.parameters(), 0.1), manager_of(model, size)
    for _ in range(3):
        samples = batch()
        manager.backward(samples, loss_of)
        moves = [0.05 * parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        with torch.no_grad():
            for parameter, move in zip(model.parameters(), moves, strict=True):
                parameter.add_(move)
        optimizer.zero_grad()
        manager.backward(samples, loss_of)
        with torch.no_grad():
            for parameter, move in zip(model.parameters(), moves, strict=True):
                parameter.sub_(move)
        optimizer.step()
    return list(model.parameters())


def adversarial(size: int | None) -> list[torch.Tensor]:
    """A generator and a discriminator, each with its manager and optimizer."""
    generator, discriminator = network(3, 6), network(6, 1)
    optimizers = [torch.optim.Adam(each.parameters(), 1e-2) for each in (generator, discriminator)]
    managers = [manager_of(each, size) for each in (generator, discriminator)]
    for _ in range(3):
        samples = {"x": torch.randn(8, 6, dtype=torch.float64), "z": torch.randn(8, 3, dtype=torch.float64)}

        def tell_apart(model: nn.Module, part: Any) -> torch.Tensor:
            found: torch.Tensor = F.softplus(-model(part["x"])) + F.softplus(model(generator(part["z"]).detach()))
            return found.mean()

        def fool(model: nn.Module, part: Any) -> torch.Tensor:
            found: torch.Tensor = F.softplus(-discriminator(model(part["z"]))).mean()
            return found

        managers[1].backward(samples, tell_apart)
        optimizers[1].step()
        managers[0].backward(samples, fool)
        optimizers[0].step()
    return [*generator.parameters(), *discriminator.parameters()]


def actor_and_critic(size: int | None) -> list[torch.Tensor]:
    """One manager, for the actor; the loss trains the critic, too."""
    actor, critic = network(), network(6, 1)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], 1e-2)
    manager = manager_of(actor, size)
    for _ in range(3):
        optimizer.zero_grad()
        samples = (*batch(), torch.randn(8, dtype=torch.float64))

        def loss(model: nn.Module, part: Any) -> torch.Tensor:
            value = critic(part[0]).squeeze(1)
            chosen = model(part[0]).log_softmax(-1).gather(1, part[1][:, None]).squeeze(1)
            found: torch.Tensor = F.mse_loss(value, part[2]) - (chosen * (part[2] - value).detach()).mean()
            return found

        manager.backward(samples, loss)
        optimizer.step()
    return [*actor.parameters(), *critic.parameters()]


def averaged_weights(size: int | None) -> list[torch.Tensor]:
    """A moving average of the weights as a teacher, updated between steps."""
    model = network()
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer, manager = torch.optim.Adam(model.parameters(), 1e-2), manager_of(model, size)
    for _ in range(3):
        manager.backward(
            batch(), lambda model, part: loss_of(model, part) + F.mse_loss(model(part[0]), teacher(part[0]))
        )
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
    return [*model.parameters(), *teacher.parameters()]


def closures(size: int | None) -> list[torch.Tensor]:
    """LBFGS evaluates the loss several times for a step."""
    model = network()
    optimizer, manager, samples = torch.optim.LBFGS(model.parameters(), max_iter=3), manager_of(model, size), batch()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        return manager.backward(samples, loss_of)

    for _ in range(2):
        optimizer.step(closure)
    return list(model.parameters())


def sparse_embedding(size: int | None) -> list[torch.Tensor]:
    model = nn.Sequential(nn.EmbeddingBag(50, 8, sparse=True), nn.Linear(8, 4)).double()
    optimizers = [torch.optim.SparseAdam(list(model[0].parameters()), 1e-2), torch.optim.Adam(model[1].parameters())]
    manager = manager_of(model, size)
    for _ in range(3):
        manager.backward((torch.randint(0, 50, (8, 5)), torch.randint(0, 4, (8,))), loss_of)
        for optimizer in optimizers:
            optimizer.step()
    return list(model.parameters())


def unfreezing(size: int | None) -> list[torch.Tensor]:
    """The first layer is trained from the second step on; the last batch has one sample."""
    model = network()
    optimizer, manager = torch.optim.SGD(model.parameters(), 0.1), manager_of(model, size)
    for number, samples in enumerate((batch(), batch(5), batch(1))):
        model[0].requires_grad_(number > 0)  # type: ignore[index]
        manager.backward(samples, loss_of)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return list(model.parameters())


@dataclasses.dataclass(frozen=True)
class Collated:
    x: torch.Tensor
    y: torch.Tensor
    names: list[str]
    epoch: int = 1


def collated(size: int | None) -> list[torch.Tensor]:
    model = network()
    optimizer, manager = torch.optim.SGD(model.parameters(), 0.1), manager_of(model, size)
    for _ in range(3):
        manager.backward(Collated(*batch(), list("abcdefgh")), lambda model, part: loss_of(model, (part.x, part.y)))
        optimizer.step()
    return list(model.parameters())


EXACT: tuple[Program, ...] = (
    sharpness_aware, adversarial, actor_and_critic, averaged_weights, closures, sparse_embedding, unfreezing, collated,
)  # fmt: skip


@pytest.mark.parametrize("program", EXACT, ids=lambda program: program.__name__)
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_train_the_same_weights(program: Program, size: int) -> None:
    torch.manual_seed(0)
    whole = program(None)
    torch.manual_seed(0)
    for divided, expected in zip(program(size), whole, strict=True):
        torch.testing.assert_close(divided, expected, rtol=1e-6, atol=1e-9)


class RunningCentre(nn.Module):
    """Subtracts a mean that each forward pass updates."""

    centre: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.register_buffer("centre", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        with torch.no_grad():
            self.centre.mul_(0.9).add_(0.1 * found.mean(0))
        return found - self.centre


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.GRU(6, 4, batch_first=True).double()

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x[:, None], state)[0][:, 0]
        return found


def test_statistics_of_the_batch_are_refused() -> None:
    with pytest.raises(InexactError, match="differ from those of their batch"):
        manager_of(RunningCentre(), 3).backward(batch(), loss_of)


def test_a_carried_state_is_refused_with_what_helps() -> None:
    samples = (*batch(), torch.zeros(1, 8, 4, dtype=torch.float64))
    with pytest.raises(InexactError, match=r"samples in another dimension than the first.*split= and count="):
        manager_of(Recurrent(), 3).backward(
            samples, lambda model, part: F.cross_entropy(model(part[0], part[2]), part[1])
        )


class Graphs:
    """As torch_geometric's batches: the nodes of all graphs together."""

    def __init__(self) -> None:
        self.x, self.graph, self.y = torch.zeros(20, 6), torch.arange(20) // 3, torch.zeros(7)

    def to(self, _device: object) -> Graphs:
        return self


def test_a_batch_class_of_graphs_is_refused_before_the_step() -> None:
    with pytest.raises(MemoryManagerError, match=r"holds a Graphs.*split= and count="):
        manager_of(network(), None).backward(Graphs(), lambda model, part: model(part.x).mean())
