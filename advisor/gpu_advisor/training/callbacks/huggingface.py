"""TrainingMonitor as a callback of transformers.Trainer.

Trainer(..., callbacks=[HuggingFaceMonitor(TrainingMonitor(job="llama"))])
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gpu_advisor.training.monitor import TrainingMonitor


class HuggingFaceMonitor(TrainerCallback):
    """Reports the trainer's steps, data wait, samples and logged numbers.

    The trainer fetches a step's batches between two callbacks. Data wait is therefore the time from its last other
    event (end of a step, log, evaluation, checkpoint) to the beginning of the next step. Put this callback last, or the
    work of other callbacks at the end of a step counts as data wait. The trainer does not report samples per step:
    they are counted as batch size times accumulation, also in the last step of an epoch.
    """

    def __init__(self, monitor: TrainingMonitor) -> None:
        self._monitor = monitor

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._monitor.start()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._restart_wait()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._monitor.end_wait()
        self._monitor.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._monitor.end_step(args.train_batch_size * args.gradient_accumulation_steps)
        if args.gradient_accumulation_steps > 1:
            self._monitor.record_micro_batch_size(args.train_batch_size)
        self._restart_wait()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        # train_*: totals of the run, logged after the last step.
        self._monitor.record({name: value for name, value in numbers.items() if not name.startswith("train_")})
        self._restart_wait()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._restart_wait()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._restart_wait()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._monitor.cancel_step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._monitor.close()

    def _restart_wait(self) -> None:
        """Time before now was not spent on the next batch."""
        self._monitor.cancel_step()
        self._monitor.begin_wait()
