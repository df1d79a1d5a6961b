"""The catalogue of a training job's metric families, and their text exposition.

The advisor reads these names (sources/exporters/mappings/gpu_exporter.yaml). Every series has the labels
`training_job`, `rank` and, on a GPU, `uuid`, on which it joins the GPU's own metrics.
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
    "training_step_seconds_total", "counter", "Time spent in training steps, including waits for data."
)
DATA_WAIT_SECONDS = TrainingMetricFamily(
    "training_data_wait_seconds_total", "counter", "Time within steps spent waiting for the next batch."
)
COMMUNICATION_SECONDS = TrainingMetricFamily(
    "training_communication_seconds_total", "counter", "Time within steps spent waiting for other ranks."
)
STEPS = TrainingMetricFamily("training_steps_total", "counter", "Completed steps (weight updates).")
SAMPLES = TrainingMetricFamily("training_samples_total", "counter", "Samples this rank trained on.")
BATCH_SIZE = TrainingMetricFamily("training_batch_size", "gauge", "Samples per step on this rank.")
MICRO_BATCH_SIZE = TrainingMetricFamily(
    "training_micro_batch_size", "gauge", "Samples per forward and backward pass, where a step is split."
)
PEAK_MEMORY = TrainingMetricFamily(
    "training_peak_memory_bytes",
    "gauge",
    "Peak memory allocated on the device since the last change of the micro-batch size.",
)
MEMORY_LIMIT = TrainingMetricFamily("training_memory_limit_bytes", "gauge", "Device memory available to the job.")
ALLOCATION_RETRIES = TrainingMetricFamily(
    "training_allocation_retries_total", "counter", "Times the allocator emptied its cache to serve a request."
)
OUT_OF_MEMORY = TrainingMetricFamily(
    "training_out_of_memory_total", "counter", "Out-of-memory errors, including those the job recovered from."
)
LOSS = TrainingMetricFamily("training_loss", "gauge", "Last recorded loss; NaN if it was not a number.")
VALUE = TrainingMetricFamily(
    "training_value",
    "gauge",
    "Statistics of the values recorded under a name, over the last complete reporting window that had any.",
    ("name", "statistic"),
)
NONFINITE = TrainingMetricFamily(
    "training_nonfinite_values_total", "counter", "Recorded values that were infinite or NaN.", ("name",)
)
REPORT_INTERVAL = TrainingMetricFamily(
    "training_report_interval_seconds", "gauge", "Length of the job's reporting window."
)

#: In the order of exposition.
FAMILIES = (
    STEPS, STEP_SECONDS, DATA_WAIT_SECONDS, COMMUNICATION_SECONDS, SAMPLES, BATCH_SIZE, MICRO_BATCH_SIZE, PEAK_MEMORY,
    MEMORY_LIMIT, ALLOCATION_RETRIES, OUT_OF_MEMORY, LOSS, VALUE, NONFINITE, REPORT_INTERVAL,
)  # fmt: skip


def render(identity: Mapping[str, str], samples: Iterable[MetricSample]) -> str:
    """The Prometheus text format 0.0.4. `identity`: labels of every series; empty values are omitted."""
    lines: list[str] = []
    for family, series in group_by_family(identity, samples):
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.type}"]
        for labels, value in series:
            text = ",".join(f'{name}="{escape_label(label)}"' for name, label in labels.items())
            lines.append(f"{family.name}{{{text}}} {_format_number(value)}")
    return "\n".join([*lines, ""])


def group_by_family(
    identity: Mapping[str, str], samples: Iterable[MetricSample]
) -> list[tuple[TrainingMetricFamily, list[tuple[dict[str, str], float]]]]:
    """Families that have samples, in the order of exposition, each with its series: (labels, value)."""
    common = {name: value for name, value in identity.items() if value}
    groups: dict[TrainingMetricFamily, list[tuple[dict[str, str], float]]] = {family: [] for family in FAMILIES}
    for sample in samples:
        own = dict(zip(sample.family.labels, sample.labels, strict=True))
        groups[sample.family].append(({**common, **own}, sample.value))
    return [(family, series) for family, series in groups.items() if series]


def _format_number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(float(value))
