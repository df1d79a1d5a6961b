"""What was seen of the serving pools, step by step: asked for all of them in one query, added up by the source.

Only two numbers a pool and step come back, however many GPUs there are: how many were heard, and how busy they were
together. The steps are whole multiples of the step since 1970, so that one that is over does not change any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.promql.expressions import TimeSeries
from gpu_advisor.settings import EvaluationSettings


@dataclass(frozen=True, slots=True)
class PoolSample:
    """A pool in the step that ends at `at` (seconds since 1970): GPUs that reported, and the sum of their busy shares.

    `busy` is in GPUs' worth of work.
    """

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
    """A pool's demand signal over its history, in the signal's own unit; or why there is none."""

    promql: str
    series: TimeSeries = ()
    reason: Reason | None = None
    message: str = ""
