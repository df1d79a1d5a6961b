"""LightningMonitor in the real trainer."""

from __future__ import annotations

import logging
import warnings

import pytest
from gpu_advisor.training.monitor import TrainingMonitor

from tests.unit.training.trainers import ACCUMULATE, EPOCHS, SAMPLES, FakeClock, check


def test_lightning(tmp_path):
    # Importing Lightning takes seconds: not while tests are collected.
    import lightning.pytorch as lightning
    from gpu_advisor.training import LightningMonitor

    from tests.unit.training.lightning_model import BusyCallback, TinyModel

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    clock = FakeClock()
    monitor = TrainingMonitor(job="lightning", figures=False, clock=clock)
    model = TinyModel(clock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, accumulate_grad_batches=ACCUMULATE, logger=False,
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            callbacks=[LightningMonitor(monitor), BusyCallback(clock)], default_root_dir=tmp_path,
        )  # fmt: skip
        profiler = trainer.profiler  # type: ignore[attr-defined]  # set dynamically
        start = profiler.start
        trainer.fit(model)
    check(monitor, SAMPLES * EPOCHS, loss_count=6 * EPOCHS)
    assert monitor.summary().values["loss"].mean == pytest.approx(sum(model.losses) / len(model.losses))
    assert "seen" in monitor.summary().values
    assert profiler.start == start, "the profiler is not restored"
