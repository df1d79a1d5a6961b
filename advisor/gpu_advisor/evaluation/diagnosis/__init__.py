"""Why: signals -> features -> the decision table -> a diagnosis a GPU, and what a whole job or pool has in common."""

from gpu_advisor.evaluation.diagnosis.idle import IDLE_HOLDING_MEMORY, Idleness, idle_window_covered, idleness

__all__ = ["IDLE_HOLDING_MEMORY", "Idleness", "idle_window_covered", "idleness"]
