"""The GPUs on which nothing ran for the whole idle window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.diagnosis.idle import Idleness, idleness
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import IDLE_UTILIZATION, JOB_STEP_TIME

#: A job that spends this share of the window in training steps is running.
ACTIVE_STEP_RATIO = 0.1

IDLE_STATES = frozenset({Idleness.IDLE, Idleness.HOLDING_MEMORY})


def idle_gpus(facts: Facts, gpus: Iterable[Gpu]) -> list[Gpu]:
    """Those, of the given ones, whose window has enough data."""
    used, limit = facts.column(IDLE_UTILIZATION), facts.evaluation.idle_utilization
    # Few are idle: of all others, one look suffices.
    few = (gpu for gpu in gpus if 100 * used.get(gpu.uuid, math.inf) / limit < 1.0)
    return [gpu for gpu in few if idleness(facts, gpu) in IDLE_STATES]


def running_job_notes(facts: Facts, idle: list[Gpu]) -> Iterator[Action]:
    """A job that runs while its GPU is idle computes elsewhere, hardly on purpose."""
    for gpu in idle:
        if (facts.value(JOB_STEP_TIME, gpu.uuid) or 0.0) >= ACTIVE_STEP_RATIO:
            job, where = facts.reported_jobs.get(gpu.uuid, "a job"), f"GPU {gpu.index} of {gpu.node}"
            yield from notes(f"{job} reports training steps on {where}, which is idle: does its model run on the CPU?")
