"""A run's metric samples and its summary, from its statistics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.training import metrics
from gpu_advisor.training.memory.device_memory import MemoryStats
from gpu_advisor.training.metrics import MetricSample, TrainingMetricFamily
from gpu_advisor.training.running_statistics import Statistics
from gpu_advisor.training.step_clock import StepTotals, StepWindow
from gpu_advisor.training.value_statistics import statistic_samples

#: Names of the values that StepClock measures: the attributes of StepWindow that are statistics.
STEP_STATISTICS = ("step_seconds", "data_wait_seconds")


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """The run so far. Ratios are 0 to 1; None if the job did not record enough."""

    totals: StepTotals
    data_wait_ratio: float | None
    communication_ratio: float | None
    samples_per_second: float | None
    values: Mapping[str, Statistics]

    def __str__(self) -> str:
        seconds, steps = self.totals.step_seconds, self.totals.steps
        lines = [f"{steps} steps in {seconds:.1f} s" + (f", {seconds / steps * 1e3:.1f} ms each" if steps else "")]
        if self.samples_per_second is not None:
            lines.append(f"{self.samples_per_second:.1f} samples/s")
        if self.data_wait_ratio is not None:
            lines.append(f"{self.data_wait_ratio:.1%} of step time waiting for data")
        if self.communication_ratio is not None:
            lines.append(f"{self.communication_ratio:.1%} of step time waiting for other ranks")
        for name, value in self.values.items():
            lines.append(
                f"{name}: mean {value.mean:.4g}, min {value.min:.4g}, max {value.max:.4g}, std {value.std:.4g}"
            )
        return "\n".join(lines)


def summarize_training(totals: StepTotals, values: Mapping[str, Statistics]) -> TrainingSummary:
    def per_second(amount: float | None) -> float | None:
        return None if amount is None or not totals.step_seconds else amount / totals.step_seconds

    return TrainingSummary(
        totals,
        per_second(totals.data_wait_seconds),
        per_second(totals.communication_seconds),
        per_second(totals.samples),
        values,
    )


def step_samples(
    totals: StepTotals, window: StepWindow, micro_batch_size: int | None, interval_seconds: float
) -> list[MetricSample]:
    """Samples of the step metrics; none before the first step has ended."""
    if not totals.steps:
        return []
    values_by_family: dict[TrainingMetricFamily, float | None] = {
        metrics.STEPS: totals.steps,
        metrics.STEP_SECONDS: totals.step_seconds,
        metrics.DATA_WAIT_SECONDS: totals.data_wait_seconds,
        metrics.COMMUNICATION_SECONDS: totals.communication_seconds,
        metrics.SAMPLES: totals.samples,
        metrics.BATCH_SIZE: window.batch_size,
        metrics.MICRO_BATCH_SIZE: micro_batch_size,
        metrics.REPORT_INTERVAL: interval_seconds,
    }
    samples = [MetricSample(family, value) for family, value in values_by_family.items() if value is not None]
    for name in STEP_STATISTICS:
        statistics = getattr(window, name)
        samples += statistic_samples(name, statistics) if statistics else []
    return samples


def memory_samples(reading: MemoryStats) -> list[MetricSample]:
    return [
        MetricSample(metrics.PEAK_MEMORY, reading.peak_allocated_bytes),
        MetricSample(metrics.MEMORY_LIMIT, reading.limit_bytes),
        MetricSample(metrics.ALLOCATION_RETRIES, reading.allocation_retries),
        MetricSample(metrics.OUT_OF_MEMORY, reading.out_of_memory_errors),
    ]
