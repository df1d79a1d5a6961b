"""Diagnosis: signals -> features -> decision table -> one diagnosis per GPU, reconciled within each job."""

from gpu_advisor.evaluation.diagnosis.idle import IDLE_MEMORY_ALLOCATED, Idleness, idle_window_covered, idleness

__all__ = ["IDLE_MEMORY_ALLOCATED", "Idleness", "idle_window_covered", "idleness"]
