"""A model and a callback for Lightning: apart from the test, because importing Lightning takes 5 s."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import torch

from tests.unit.training.trainers import BATCH, FakeClock, SlowDataset


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
