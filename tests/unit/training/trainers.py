"""What a callback must record of a run of a real trainer, on the CPU and without downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.training.monitor import TrainingMonitor

WAIT_SECONDS = 0.02
SAMPLES, BATCH, ACCUMULATE, EPOCHS = 22, 4, 2, 2
#: 22 samples are 6 batches, the last of 2: 3 steps per epoch.
STEPS = 3 * EPOCHS


class FakeClock:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SlowDataset(torch.utils.data.Dataset[Any]):
    """Each sample takes WAIT_SECONDS / BATCH by the clock."""

    def __init__(self, make: Callable[[], Any], clock: FakeClock) -> None:
        self.make = make
        self.clock = clock

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        self.clock.sleep(WAIT_SECONDS / BATCH)
        return self.make()


def check(monitor: TrainingMonitor, samples: int, loss_count: int) -> None:
    summary = monitor.summary()
    totals = summary.totals
    assert (totals.steps, totals.samples) == (STEPS, samples)
    assert totals.data_wait_seconds == pytest.approx(SAMPLES * EPOCHS * WAIT_SECONDS / BATCH)
    assert totals.data_wait_seconds is not None
    assert totals.data_wait_seconds < totals.step_seconds
    assert summary.values["loss"].count == loss_count
    assert monitor._micro_batch_size == BATCH
