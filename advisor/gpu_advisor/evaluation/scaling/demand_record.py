"""A pool's past as a replay needs it: the work of each step, the capacity, and where that hid the demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, align_to_steps


@dataclass(frozen=True, slots=True)
class RecordedDemand:
    """A pool's past in whole steps, oldest first, in replicas. `work` is None where nothing was recorded.

    `saturated` steps had at least this much work; `capacity` is the number of replicas.
    """

    work: tuple[float | None, ...]
    capacity: tuple[float, ...]
    saturated: tuple[bool, ...]
    has_signal: bool  # the work is by a demand signal, which shows the demand beyond the capacity


def record_demand(history: Sequence[DemandPoint], at: float, step_seconds: float, steps: int) -> RecordedDemand:
    """The last `steps` steps up to `at` (Unix time), from the first that was recorded."""
    points = align_to_steps(history, at, step_seconds, steps)
    return RecordedDemand(
        tuple(None if point is None else point.demand for point in points),
        tuple(0.0 if point is None else point.replicas for point in points),
        tuple(point is not None and point.saturated for point in points),
        any(point is not None and point.signal_demand is not None for point in points),
    )
