"""A pool's past as a replay needs it: the work of each step, the capacity, and where that hid the demand."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

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

    def pack(self) -> bytes:
        """The same in 24 bytes a step: a key of a cache."""
        work = (nan if value is None else value for value in self.work)
        return array("d", (float(self.has_signal), *work, *self.capacity, *map(float, self.saturated))).tobytes()

    @classmethod
    def unpack(cls, packed: bytes) -> RecordedDemand:
        values = array("d")
        values.frombytes(packed)
        count = (len(values) - 1) // 3
        work, capacity, saturated = (values[1 + count * part : 1 + count * (part + 1)] for part in range(3))
        return cls(
            tuple(None if isnan(value) else value for value in work),
            tuple(capacity),
            tuple(map(bool, saturated)),
            bool(values[0]),
        )


def record_demand(history: Sequence[DemandPoint], at: float, step_seconds: float, steps: int) -> RecordedDemand:
    """The last `steps` steps up to `at` (Unix time), from the first that was recorded."""
    points = align_to_steps(history, at, step_seconds, steps)
    return RecordedDemand(
        tuple(None if point is None else point.demand for point in points),
        tuple(0.0 if point is None else point.replicas for point in points),
        tuple(point is not None and point.saturated for point in points),
        any(point is not None and point.signal_demand is not None for point in points),
    )
