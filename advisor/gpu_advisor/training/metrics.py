"""What a training job publishes: the one catalogue of its families, and their text.

The advisor reads these names (sources/mappings/gpu_exporter.yaml). Every series carries `training_job` and `rank`, and
the `uuid` of its GPU where there is one: that is how a job's figures meet the GPU's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.rendering.escaping import escape_label


@dataclass(frozen=True, slots=True)
class TrainingMetricFamily:
    name: str
    type: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricSample:
    """`labels`: values in the order of the family's own labels."""

    family: TrainingMetricFamily
    value: float
    labels: tuple[str, ...] = ()


STEP_SECONDS = TrainingMetricFamily(
    "training_step_seconds_total", "counter", "Time spent in training steps, waiting for data included."
)
DATA_WAIT_SECONDS = TrainingMetricFamily(
    "training_data_wait_seconds_total", "counter", "Time within steps in which the loop waited for its next batch."
)
COMMUNICATION_SECONDS = TrainingMetricFamily(
    "training_communication_seconds_total", "counter", "Time within steps that the job spent waiting for other ranks."
)
STEPS = TrainingMetricFamily("training_steps_total", "counter", "Steps that ended: updates of the weights.")
SAMPLES = TrainingMetricFamily("training_samples_total", "counter", "Samples that this rank trained on.")
BATCH_SIZE = TrainingMetricFamily("training_batch_size", "gauge", "Samples of one step on this rank.")
MICRO_BATCH_SIZE = TrainingMetricFamily(
    "training_micro_batch_size", "gauge", "Samples that go through the model at once, where a step is split."
)
PEAK_MEMORY = TrainingMetricFamily(
    "training_peak_memory_bytes",
    "gauge",
    "Most memory allocated on the device since the micro-batch size last changed.",
)
MEMORY_LIMIT = TrainingMetricFamily("training_memory_limit_bytes", "gauge", "Device memory that the job may use.")
ALLOCATION_RETRIES = TrainingMetricFamily(
    "training_allocation_retries_total", "counter", "Times that the allocator emptied its cache to serve a request."
)
OUT_OF_MEMORY = TrainingMetricFamily(
    "training_out_of_memory_total", "counter", "Out-of-memory errors, those included from which the job recovered."
)
LOSS = TrainingMetricFamily("training_loss", "gauge", "The loss as last told; NaN if it was none.")
VALUE = TrainingMetricFamily(
    "training_value",
    "gauge",
    "Statistics of what the job told by name, over its last whole window of reporting that had any.",
    ("name", "statistic"),
)
NONFINITE = TrainingMetricFamily(
    "training_nonfinite_values_total", "counter", "Values told that were infinite or no number.", ("name",)
)
REPORT_INTERVAL = TrainingMetricFamily(
    "training_report_interval_seconds", "gauge", "Length of the job's windows of reporting."
)

#: In the order of the page.
FAMILIES = (
    STEPS, STEP_SECONDS, DATA_WAIT_SECONDS, COMMUNICATION_SECONDS, SAMPLES, BATCH_SIZE, MICRO_BATCH_SIZE, PEAK_MEMORY,
    MEMORY_LIMIT, ALLOCATION_RETRIES, OUT_OF_MEMORY, LOSS, VALUE, NONFINITE, REPORT_INTERVAL,
)  # fmt: skip


def render(identity: Mapping[str, str], samples: Iterable[MetricSample]) -> str:
    """The Prometheus text format 0.0.4. `identity`: labels of every series; those without a value are left out."""
    common = {name: value for name, value in identity.items() if value}
    rows: dict[TrainingMetricFamily, list[MetricSample]] = {family: [] for family in FAMILIES}
    for sample in samples:
        rows[sample.family].append(sample)
    lines: list[str] = []
    for family, found in rows.items():
        if found:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.type}"]
        for sample in found:
            labels = {**common, **dict(zip(family.labels, sample.labels, strict=True))}
            text = ",".join(f'{name}="{escape_label(value)}"' for name, value in labels.items())
            lines.append(f"{family.name}{{{text}}} {_format_number(sample.value)}")
    return "\n".join([*lines, ""])


def _format_number(value: float) -> str:
    # Python says inf and nan, the format +Inf and NaN.
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(float(value))
