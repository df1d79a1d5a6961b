"""A GPU that works and pauses in turns, in closed form. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOUR = 3600.0


@dataclass(frozen=True)
class Alternation:
    """`period` in seconds, of which the share `duty` is work, from `phase` (0..1) of a period on at time 0.

    From `stops` on there is no work any more.
    """

    period: float
    duty: float
    phase: float
    stops: float = math.inf

    def busy_share(self, at: float, window: float) -> float:
        """The share of the window up to `at` in which it works."""
        return (self._worked(at) - self._worked(at - window)) / window

    def _worked(self, at: float) -> float:
        turns = min(at, self.stops) / self.period + self.phase
        return self.period * (math.floor(turns) * self.duty + min(turns % 1.0, self.duty))


def most_within(times: list[float], window: float) -> int:
    """The most times in any window."""
    return max((sum(1 for other in times if time <= other < time + window) for time in times), default=0)
