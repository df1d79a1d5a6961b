"""Signals -> why. A pure function of the facts."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.facts import Facts, Gpu
from gpu_advisor.pools import HELD_MEMORY_RATIO
from gpu_advisor.signals import IDLE_COVERAGE, IDLE_UTILIZATION, MEMORY_USED


@dataclass(frozen=True, slots=True)
class Diagnosis:
    name: str
    explanation: str


IDLE_HOLDING_MEMORY = Diagnosis(
    "idle_holding_memory",
    "No kernel runs, but processes hold memory: usually a notebook left open, a server without requests, "
    "or a job that hangs.",
)
IDLE = Diagnosis("idle", "No kernel runs and nothing is held: nobody uses the GPU.")


def idleness(facts: Facts, gpu: Gpu) -> Diagnosis | None:
    """Whether a GPU was idle over the whole idle window, and in which way. None if it was not, or cannot be told."""
    utilization, coverage = facts.value(IDLE_UTILIZATION, gpu.uuid), facts.value(IDLE_COVERAGE, gpu.uuid)
    if not gpu.up or utilization is None or not idle_window_covered(facts, coverage):
        return None
    if utilization >= facts.evaluation.idle_utilization / 100:
        return None
    return IDLE_HOLDING_MEMORY if (facts.value(MEMORY_USED, gpu.uuid) or 0.0) > HELD_MEMORY_RATIO else IDLE


def idle_window_covered(facts: Facts, coverage: float | None) -> bool:
    return coverage is not None and coverage >= facts.evaluation.min_coverage
