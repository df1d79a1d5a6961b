"""Values of peer GPUs: those of the same model, and those of the same job."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import (
    IDLE_UTILIZATION,
    JOB_COMMUNICATION,
    JOB_STEP_TIME,
    POWER_LIMIT,
    SM_ACTIVITY,
    SM_CLOCK,
    Signal,
)

#: A GPU below this utilization may have low clocks because it has too little work.
MIN_BUSY_RATIO = 0.3

#: A ratio to less than this says nothing.
MIN_WHOLE = 0.01

GroupKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Peers:
    """Sorted values by group of GPUs and quantity; the job of each GPU, and the GPUs of each job."""

    values: Mapping[GroupKey, tuple[float, ...]] = field(default_factory=dict)
    members: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)

    def median_of_others(self, group: str, quantity: str, own: float | None, min_others: int = 1) -> float | None:
        """The median of a group without the value `own`. None if there are fewer than `min_others` others."""
        found = self.values.get((group, quantity), ())
        count = len(found) - (own is not None)
        if count < min_others:
            return None
        skip = bisect_left(found, own) if own is not None else len(found)
        middle = [found[k + (k >= skip)] for k in {(count - 1) // 2, count // 2}]
        return sum(middle) / len(middle)

    def are_equal(self, group: str, quantity: str, min_others: int) -> bool:
        """Whether all of a group, of at least so many others, have one value: the median of the others, too."""
        found = self.values.get((group, quantity), ())
        return len(found) > min_others and found[0] == found[-1]

    def gpus_of_job(self, job: str | None) -> tuple[Gpu, ...]:
        return () if job is None else self.members.get(job, ())


def build_peers(facts: Facts, gpus: Iterable[Gpu]) -> Peers:
    """The peer groups of these GPUs, usually a pool."""
    members: dict[str, list[Gpu]] = {}
    values: dict[GroupKey, list[float]] = {}
    by_model: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        by_model.setdefault(gpu.name, []).append(gpu)
        job = facts.jobs.get(gpu.uuid)
        if job is not None:
            members.setdefault(job, []).append(gpu)
    utilization = facts.column(IDLE_UTILIZATION)
    for found in by_model.values():
        group, uuids = model_group(found[0]), [gpu.uuid for gpu in found]
        busy = [uuid for uuid in uuids if utilization.get(uuid, 0.0) >= MIN_BUSY_RATIO]
        for signal, of in ((POWER_LIMIT, uuids), (SM_CLOCK, busy)):
            column = facts.column(signal)
            values[group, signal.name] = [column[uuid] for uuid in of if uuid in column]
    for job, found in members.items():
        for gpu in found:
            for quantity, value in _job_values(facts, gpu):
                if value is not None:
                    values.setdefault((job_group(job), quantity), []).append(value)
    return Peers(
        {key: tuple(sorted(found)) for key, found in values.items()},
        {job: tuple(found) for job, found in members.items()},
        facts.jobs,
    )


def _job_values(facts: Facts, gpu: Gpu) -> Iterator[tuple[str, float | None]]:
    """Of a GPU that is busy."""

    def value(signal: Signal) -> float | None:
        return facts.value(signal, gpu.uuid)

    busy = value(IDLE_UTILIZATION)
    if busy is None or busy < MIN_BUSY_RATIO:
        return
    yield IDLE_UTILIZATION.name, busy
    yield SM_CLOCK.name, value(SM_CLOCK)
    yield SM_ACTIVITY.name, value(SM_ACTIVITY)
    yield JOB_COMMUNICATION.name, ratio_of(value(JOB_COMMUNICATION), value(JOB_STEP_TIME))


def model_group(gpu: Gpu) -> str:
    return f"model/{gpu.name}"


def job_group(job: str) -> str:
    return f"job/{job}"


def ratio_of(part: float | None, whole: float | None) -> float | None:
    """part / whole if both are known and the whole is not close to zero, else None."""
    return None if part is None or whole is None or whole < MIN_WHOLE else part / whole
