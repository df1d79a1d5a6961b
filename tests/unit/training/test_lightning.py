"""LightningMonitor in the real trainer."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from gpu_advisor.training import LightningMonitor
from gpu_advisor.training.monitor import TrainingMonitor

from tests.unit.training.trainers import ACCUMULATE, BATCH, EPOCHS, SAMPLES, FakeClock, SlowDataset, check


class TinyModel(lightning.LightningModule):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.layer = torch.nn.Linear(3, 1)
        self.dataset = SlowDataset(lambda: {"x": torch.ones(3), "y": torch.zeros(1)}, clock)
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss: torch.Tensor = (self.layer(batch["x"]) - batch["y"]).square().mean() + 1
        self.losses.append(loss.item())
        self.log("seen", float(len(batch["x"])), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.clock.sleep(0.1)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.dataset, BATCH)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader([torch.zeros(1)])  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-3)


class BusyCallback(lightning.Callback):
    """Another callback that takes time at the end of each batch."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.clock.sleep(0.1)


def test_lightning(tmp_path):
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
