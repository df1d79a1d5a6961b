"""Streaming mean, standard deviation, minimum and maximum in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of `count` finite numbers, in their unit. `std`: population standard deviation, 0 for a single number."""

    count: int
    mean: float
    min: float
    max: float
    std: float


class RunningStatistics:
    """Accumulates numbers. Non-finite numbers are only counted.

    Welford's recurrence: B. P. Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products",
    Technometrics 4 (1962). A plain sum of squares loses all precision for a loss that hardly varies.
    """

    __slots__ = ("_count", "_max", "_mean", "_min", "_squares", "last", "nonfinite")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._min = math.inf
        self._max = -math.inf
        self.last: float | None = None
        self.nonfinite = 0

    def add(self, value: float) -> None:
        self.last = value
        if not math.isfinite(value):
            self.nonfinite += 1
            return
        self._count += 1
        delta = value - self._mean
        self._mean += delta / self._count
        self._squares += delta * (value - self._mean)
        if value < self._min:
            self._min = value
        if value > self._max:
            self._max = value

    def statistics(self) -> Statistics | None:
        """None without a finite number."""
        if not self._count:
            return None
        std = math.sqrt(max(self._squares, 0.0) / self._count)
        return Statistics(self._count, self._mean, self._min, self._max, std)
