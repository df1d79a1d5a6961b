"""A step that keeps memory: its peaks hold for the first steps only, and the profile says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.calibration.device_meters import CpuMeter, kept_per_step
from gpu_advisor.calibration.profile import Measurement, Profile

MIB = 1 << 20


@pytest.mark.parametrize(
    ("live", "kept"),
    [
        ((), 0), ((5,), 0), ((5, 5, 5), 0), ((5, 9, 9), 0), ((5, 9, 8), 0),  # states made late, batches of two lengths
        ((5, 7, 9), 2), ((5, 8, 9), 1), ((9, 7, 5), 0),
    ],
)  # fmt: skip
def test_memory_that_grows_with_each_step(live: tuple[int, ...], kept: int) -> None:
    assert kept_per_step(live) == kept


def training(keep: Callable[[torch.Tensor], Any]) -> Callable[[], Callable[[], None]]:
    def make() -> Callable[[], None]:
        model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
        optimizer = torch.optim.AdamW(model.parameters())
        kept: list[Any] = []

        def step() -> None:
            optimizer.zero_grad()
            loss = model(torch.randn(512, 64)).square().mean()
            loss.backward()
            optimizer.step()
            kept.append(keep(loss))

        return step

    return make


class Cycle:
    """Keeps a tensor until Python's garbage collector runs."""

    def __init__(self) -> None:
        self.own, self.tensor = self, torch.empty(MIB)


@pytest.mark.parametrize(
    ("keep", "leaks"),
    [
        (lambda loss: None, False),
        (lambda loss: loss.item(), False),
        (lambda loss: loss.detach(), False),
        (lambda loss: torch.empty(MIB), True),
        (lambda loss: Cycle() and None, False),
    ],
    ids=["nothing", "its number", "the loss", "a tensor", "garbage"],
)
def test_what_the_steps_of_a_training_keep(keep: Callable[[torch.Tensor], Any], leaks: bool) -> None:
    _, memory = CpuMeter(None).memory(training(keep))
    measured = Measurement(
        batch_size=8, peak_memory_bytes=memory.peak_bytes, kept_bytes_per_step=memory.kept_bytes_per_step
    )
    assert measured.leaks is leaks
    larger = measured.model_copy(update={"batch_size": 16})
    profile = Profile(
        gpu_type="cpu", workload="w", precision="float32", memory_kind="cpu_tracked", created_timestamp_seconds=1.0,
        measurements=(measured, larger),
    )  # fmt: skip
    assert any("at size 8 each step keeps 4.0 MiB" in note for note in profile.points().notes) is leaks
