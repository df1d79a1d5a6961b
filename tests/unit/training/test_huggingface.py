"""HuggingFaceMonitor in the real trainer."""

from __future__ import annotations

from typing import Any

import torch
from gpu_advisor.training.monitor import TrainingMonitor

from tests.unit.training.trainers import ACCUMULATE, BATCH, EPOCHS, STEPS, FakeClock, SlowDataset, check

STEP_END_SECONDS, EVALUATION_SECONDS = 0.05, 0.4


def test_hugging_face(tmp_path):
    # Importing transformers takes seconds: not while tests are collected.
    import transformers
    from gpu_advisor.training import HuggingFaceMonitor

    class BusyCallback(transformers.TrainerCallback):
        def __init__(self, clock: FakeClock) -> None:
            self.clock = clock

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            self.clock.sleep(STEP_END_SECONDS)

        def on_evaluate(self, *arguments: Any, **named: Any) -> None:
            self.clock.sleep(EVALUATION_SECONDS)

    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.arange(8)
    clock = FakeClock()
    monitor = TrainingMonitor(job="hugging-face", figures=False, clock=clock)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATE,
        num_train_epochs=EPOCHS, logging_steps=1, eval_strategy="steps", eval_steps=2, save_strategy="steps",
        save_steps=3, use_cpu=True, report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    dataset = SlowDataset(lambda: {"input_ids": tokens, "labels": tokens}, clock)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=dataset,
        eval_dataset=[{"input_ids": tokens, "labels": tokens}],
        callbacks=[BusyCallback(clock), HuggingFaceMonitor(monitor)],
    )  # fmt: skip
    trainer.train()
    check(monitor, STEPS * BATCH * ACCUMULATE, loss_count=STEPS)
    totals = monitor.summary().totals
    assert totals.data_wait_seconds is not None
    # Evaluations are not part of a step.
    assert totals.step_seconds - totals.data_wait_seconds <= STEPS * STEP_END_SECONDS + 1e-9
    values = monitor.summary().values
    assert {"grad_norm", "learning_rate", "eval_loss"} <= set(values)
    assert not any(name.startswith("train_") for name in values)
