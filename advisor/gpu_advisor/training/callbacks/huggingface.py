"""TrainingMonitor as a callback of transformers.Trainer.

Trainer(..., callbacks=[HuggingFaceMonitor(TrainingMonitor(job="llama"))])
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gpu_advisor.training.monitor import TrainingMonitor


class HuggingFaceMonitor(TrainerCallback):
    """Reports the trainer's steps, data wait, samples and logged numbers.

    The trainer fetches the batches of a step between two callbacks. Data wait is the time from the last thing that it
    did besides (a step's end, a log, an evaluation, a checkpoint) to the beginning of the next step: give this callback
    last, or what the others do at a step's end is taken for waiting. The trainer does not tell how many samples a step
    had: they are counted as batch size times accumulation, those of the last step of an epoch, too.
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
        # After the last step the trainer logs totals of the run, under names of their own.
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
        """Until now it was something else than the next batch."""
        self._monitor.cancel_step()
        self._monitor.begin_wait()
