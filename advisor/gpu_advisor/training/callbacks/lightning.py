"""TrainingMonitor as a callback of Lightning's Trainer, from `lightning` or `pytorch_lightning`.

Trainer(callbacks=[LightningMonitor(TrainingMonitor(job="unet"))])
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gpu_advisor.training.batches import sample_count
from gpu_advisor.training.monitor import TrainingMonitor

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        from pytorch_lightning import Callback

#: End of the profiler action that fetches a batch; the loop's class precedes it in brackets.
_FETCH_ACTION = ".train_dataloader_next"


class LightningMonitor(Callback):
    """Reports the trainer's steps, data wait, samples, loss and logged metrics.

    Lightning has no callback for the fetch of a batch, and between two batches run validation, checkpoints and other
    callbacks. The trainer reports the fetch to its profiler, so this hooks the profiler, whichever it is.
    """

    def __init__(self, monitor: TrainingMonitor) -> None:
        super().__init__()
        self._monitor = monitor
        self._samples: int | None = 0
        self._micro_batch_size = 0
        self._global_step = 0
        self._restore: Callable[[], None] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._global_step = trainer.global_step
        self._hook_profiler(trainer.profiler)  # type: ignore[attr-defined]  # set dynamically
        self._monitor.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._monitor.begin_step()  # if the profiler did not report the fetch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        samples = sample_count(batch)
        self._samples = None if samples is None or self._samples is None else self._samples + samples
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            # Lightning divides the loss by the number of accumulated batches.
            parts = trainer.accumulate_grad_batches
            self._monitor.record(loss=loss if parts == 1 else loss * parts)
        if trainer.global_step == self._global_step:
            return  # gradients are being accumulated
        if trainer.accumulate_grad_batches > 1 and samples is not None:
            self._micro_batch_size = max(samples, self._micro_batch_size)  # the last batch of an epoch may be smaller
            self._monitor.record_micro_batch_size(self._micro_batch_size)
        self._global_step = trainer.global_step
        self._monitor.end_step(self._samples)
        self._samples = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._monitor.begin_pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._monitor.end_pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._monitor.cancel_step()
        numbers = {name: value for name, value in trainer.callback_metrics.items() if name != "loss"}
        self._monitor.record(numbers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None
        self._monitor.close()

    def _hook_profiler(self, profiler: Any) -> None:
        start, stop, monitor = profiler.start, profiler.stop, self._monitor

        def start_hook(action_name: str) -> None:
            start(action_name)
            if action_name.endswith(_FETCH_ACTION):
                monitor.begin_wait()

        def stop_hook(action_name: str) -> None:
            if action_name.endswith(_FETCH_ACTION):
                monitor.end_wait()
            stop(action_name)

        def restore() -> None:
            del profiler.start, profiler.stop  # instance attributes that hide the class's methods

        profiler.start, profiler.stop = start_hook, stop_hook
        self._restore = restore
