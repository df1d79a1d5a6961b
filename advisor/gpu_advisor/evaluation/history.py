"""The history of pools and their demand signals, step by step.

Steps are whole multiples of the step in Unix time, so that a completed step never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.promql.expressions import TimeSeries
from gpu_advisor.settings import EvaluationSettings


@dataclass(frozen=True, slots=True)
class PoolSample:
    """A pool in the step that ends at `at` (Unix time).

    `gpus` is the number of GPUs that reported, `busy` the sum of their utilization."""

    at: float
    gpus: int
    busy: float


def step_bounds(at: float, evaluation: EvaluationSettings) -> tuple[float, float]:
    """The first and the last step of the history that ends at `at`."""
    step = evaluation.step_seconds
    last = at // step * step
    return last - (evaluation.history_seconds // step - 1) * step, last


@dataclass(frozen=True, slots=True)
class DemandSignal:
    """A pool's demand signal over its history, in the signal's own unit; without data, the reason."""

    promql: str
    series: TimeSeries = ()
    reason: Reason | None = None
    message: str = ""
