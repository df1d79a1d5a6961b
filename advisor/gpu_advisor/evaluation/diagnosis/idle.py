"""Whether a GPU was idle over the whole idle window."""

from __future__ import annotations

from enum import Enum

from gpu_advisor.evaluation.diagnosis.conditions import Truth, below
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, UNUSED
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.pools import ALLOCATED_MEMORY_RATIO
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION, MEMORY_USED

IDLE_MEMORY_ALLOCATED = DIAGNOSES["idle_holding_memory"]
IDLE_DIAGNOSIS = DIAGNOSES[UNUSED]

#: Dead band: a GPU counts as busy only from this multiple of `evaluation.idle_utilization` on.
IDLE_EXIT_FACTOR = 2.0


_IDLE = below("idleness", 1.0, IDLE_EXIT_FACTOR)


class Idleness(Enum):
    BUSY = "busy"
    BORDERLINE = "borderline"
    IDLE = "idle"
    HOLDING_MEMORY = "idle_holding_memory"


def idleness(facts: Facts, gpu: Gpu) -> Idleness | None:
    """How idle a GPU was over the whole idle window; None if unknown."""
    utilization, coverage = facts.value(IDLE_UTILIZATION, gpu.uuid), facts.value(IDLE_COVERAGE, gpu.uuid)
    if not gpu.up or utilization is None or not idle_window_covered(facts, coverage):
        return None
    share = 100 * utilization / facts.evaluation.idle_utilization
    truth = _IDLE.truth({"idleness": share})
    if truth is not Truth.YES or share >= 1.0:
        return Idleness.BUSY if truth is Truth.NO else Idleness.BORDERLINE
    allocated = (facts.value(MEMORY_USED, gpu.uuid) or 0.0) > ALLOCATED_MEMORY_RATIO
    return Idleness.HOLDING_MEMORY if allocated else Idleness.IDLE


def idle_window_covered(facts: Facts, coverage: float | None) -> bool:
    return coverage is not None and coverage >= facts.evaluation.min_coverage_ratio
