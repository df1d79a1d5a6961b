"""What is measured before and after a recommendation, to see whether it helped. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.signals import Signal, Unit

#: A change below this share of the value before, or below so much of a ratio (two percentage points), is noise.
MIN_CHANGE_RATIO = 0.02


class Measure(NamedTuple):
    """A signal of the recommendation's GPUs, and in which direction it improves."""

    signal: Signal
    better: Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The mean of a signal over the GPUs of a recommendation, when it was made and when it was judged."""

    signal: str
    unit: Unit
    before: float
    after: float
    improved: bool


_BUSY = Measure(signals.IDLE_UTILIZATION, "higher")
_COMPUTING = Measure(signals.SM_ACTIVITY, "higher")

#: By kind of recommendation, the best measure first; the first that is known before and after counts. The size of a
#: pool is judged by its utilization and its projection instead (outcomes.py).
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "batch_size": (_COMPUTING, _BUSY),
    "communication": (Measure(signals.JOB_COMMUNICATION, "lower"), _BUSY),
    "cooling": (
        Measure(signals.THROTTLE_HW_THERMAL, "lower"),
        Measure(signals.THROTTLE_SW_THERMAL, "lower"),
        Measure(signals.TEMPERATURE, "lower"),
    ),
    "data_loading": (Measure(signals.JOB_DATA_WAIT, "lower"), _BUSY),
    "failing_gpu": (Measure(signals.FATAL_ERRORS, "lower"), Measure(signals.ROW_REMAP_PENDING, "lower")),
    "hung_job": (Measure(signals.JOB_STEP_TIME, "higher"), _BUSY),
    "idle_lease": (_BUSY,),
    "idle_reclaim": (_BUSY,),
    "lost_gpu": (Measure(signals.GPU_UP, "higher"),),
    "memory_saving": (Measure(signals.IDLE_MEMORY_USED, "lower"),),
    "mixed_precision": (Measure(signals.TENSOR_ACTIVITY, "higher"),),
    "power_limit": (Measure(signals.SM_CLOCK, "higher"),),
    "profiling": (_COMPUTING,),
    "straggler": (_BUSY,),
}

_GONE = "its GPUs were released or replaced"
_UNKNOWN = "no exporter reported what would show it, before and after"

#: Why a kind has no measure here.
UNMEASURED: Mapping[str, str] = {
    "scale_up": "a pool is judged by its size and its utilization",
    "scale_down": "a pool is judged by its size and its utilization",
    "smaller_gpu": "the GPU is exchanged for another: compare the cost of the service",
}
_NO_MEASURE = "it depends on the load at the time: compare the same load before and after"


def values_before(kind: str, gpus: Sequence[str], facts: Facts) -> dict[str, float]:
    """The means of the measures of this kind that are known, by signal."""
    found = {each.signal.name: _mean(each.signal, gpus, facts) for each in MEASURES.get(kind, ())}
    return {name: value for name, value in found.items() if value is not None}


def measure(kind: str, gpus: Sequence[str], before: Mapping[str, float], facts: Facts | None) -> Measurement | str:
    """What changed, or why that is unknown."""
    if kind not in MEASURES:
        return UNMEASURED.get(kind, _NO_MEASURE)
    if facts is None or not before:
        return _UNKNOWN
    if not {gpu.uuid for gpu in facts.gpus}.intersection(gpus):
        return _GONE
    for each in MEASURES[kind]:
        earlier, later = before.get(each.signal.name), _mean(each.signal, gpus, facts)
        if earlier is not None and later is not None:
            return Measurement(each.signal.name, each.signal.unit, earlier, later, _improved(each, earlier, later))
    return _UNKNOWN


def _improved(of: Measure, before: float, after: float) -> bool:
    gain = after - before if of.better == "higher" else before - after
    return gain > MIN_CHANGE_RATIO * (1.0 if of.signal.unit == "ratio" else abs(before))


def _mean(signal: Signal, gpus: Sequence[str], facts: Facts) -> float | None:
    values = [value for uuid in gpus if (value := facts.value(signal, uuid)) is not None]
    return fmean(values) if values else None
