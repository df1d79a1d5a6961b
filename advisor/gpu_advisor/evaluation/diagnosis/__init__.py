"""Why: signals -> features -> the decision table -> a diagnosis a GPU, and what a whole job or pool has in common."""

from gpu_advisor.evaluation.diagnosis.idle import IDLE_MEMORY_ALLOCATED, Idleness, idle_window_covered, idleness

__all__ = ["IDLE_MEMORY_ALLOCATED", "Idleness", "idle_window_covered", "idleness"]
