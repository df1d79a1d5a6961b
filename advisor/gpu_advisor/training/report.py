"""What is known of a run -> the samples of its page, and its summary. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.training import families
from gpu_advisor.training.families import Family, Sample
from gpu_advisor.training.memory.reading import MemoryReading
from gpu_advisor.training.statistics import Statistics
from gpu_advisor.training.stepclock import Totals, Window
from gpu_advisor.training.values import statistic_samples

#: Names of values that come from the clock of the steps: the attributes of a Window that are statistics.
CLOCKED = ("step_seconds", "data_wait_seconds")


@dataclass(frozen=True, slots=True)
class Summary:
    """The run so far. Ratios are 0 to 1; None where the job did not tell enough."""

    totals: Totals
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
            lines.append(f"{self.data_wait_ratio:.1%} of the time waited for data")
        if self.communication_ratio is not None:
            lines.append(f"{self.communication_ratio:.1%} of the time waited for other ranks")
        for name, value in self.values.items():
            lines.append(
                f"{name}: mean {value.mean:.4g}, min {value.min:.4g}, max {value.max:.4g}, std {value.std:.4g}"
            )
        return "\n".join(lines)


def summarize(totals: Totals, values: Mapping[str, Statistics]) -> Summary:
    def per_second(amount: float | None) -> float | None:
        return None if amount is None or not totals.step_seconds else amount / totals.step_seconds

    return Summary(
        totals,
        per_second(totals.data_wait_seconds),
        per_second(totals.communication_seconds),
        per_second(totals.samples),
        values,
    )


def samples_of(totals: Totals, window: Window, micro_batch_size: int | None, interval_seconds: float) -> list[Sample]:
    """Of the steps; nothing before the first has ended."""
    if not totals.steps:
        return []
    told: dict[Family, float | None] = {
        families.STEPS: totals.steps,
        families.STEP_SECONDS: totals.step_seconds,
        families.DATA_WAIT_SECONDS: totals.data_wait_seconds,
        families.COMMUNICATION_SECONDS: totals.communication_seconds,
        families.SAMPLES: totals.samples,
        families.BATCH_SIZE: window.batch_size,
        families.MICRO_BATCH_SIZE: micro_batch_size,
        families.REPORT_INTERVAL: interval_seconds,
    }
    samples = [Sample(family, value) for family, value in told.items() if value is not None]
    for name in CLOCKED:
        statistics = getattr(window, name)
        samples += statistic_samples(name, statistics) if statistics else []
    return samples


def memory_samples(reading: MemoryReading) -> list[Sample]:
    return [
        Sample(families.PEAK_MEMORY, reading.peak_allocated_bytes),
        Sample(families.MEMORY_LIMIT, reading.limit_bytes),
        Sample(families.ALLOCATION_RETRIES, reading.allocation_retries),
        Sample(families.OUT_OF_MEMORY, reading.out_of_memory_errors),
    ]
