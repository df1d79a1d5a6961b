"""What a callback must tell of a run of a real trainer. It runs on the CPU, and nothing is fetched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_advisor.training.monitor import TrainingMonitor

WAIT_SECONDS = 0.02
SAMPLES, BATCH, ACCUMULATE, EPOCHS = 22, 4, 2, 2
#: 22 samples are 6 batches, the last of 2: 3 steps an epoch.
STEPS = 3 * EPOCHS


class SlowDataset(torch.utils.data.Dataset[Any]):
    """Waiting for a sample is all that takes time; how long it took on this machine is counted."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.waited_seconds = 0.0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        begun = time.perf_counter()
        time.sleep(WAIT_SECONDS / BATCH)
        made = self.make()
        self.waited_seconds += time.perf_counter() - begun
        return made


def check(monitor: TrainingMonitor, dataset: SlowDataset, samples: int, loss_count: int) -> None:
    summary = monitor.summary()
    totals = summary.totals
    assert (totals.steps, totals.samples) == (STEPS, samples)
    assert totals.data_wait_seconds is not None
    assert totals.data_wait_seconds >= 0.95 * dataset.waited_seconds
    assert totals.data_wait_seconds < totals.step_seconds
    # The other callbacks sleep longer than all of the waiting is meant to take.
    meant = SAMPLES * EPOCHS * WAIT_SECONDS / BATCH
    assert totals.data_wait_seconds < dataset.waited_seconds + meant, "something else was taken for waiting"
    assert summary.values["loss"].count == loss_count
    assert monitor._micro_batch_size == BATCH
