"""Throughput as a function of batch size: rising, saturating, and sometimes falling past its peak.

A step takes t(b) = t0 + c * b: a fixed cost and a cost per sample. Throughput b / t(b) saturates at 1 / c. Between
measured sizes the step times are interpolated. Beyond the largest one t(b) extrapolates them, unless throughput already
fell: then the peak is measured, and the fit predicts no gain beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints

#: Above this share of the best throughput a larger batch gains little. DeepSpeed's autotuning uses the same 5 % for its
#: plateau (https://www.deepspeed.ai/tutorials/autotuning/).
KNEE_RATIO = 0.95
#: A smaller drop is timing noise.
MAX_THROUGHPUT_DROP_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class ThroughputPoint:
    """One measured size."""

    batch_size: int
    samples_per_second: float

    @property
    def step_seconds(self) -> float:
        return self.batch_size / self.samples_per_second


@dataclass(frozen=True, slots=True)
class ThroughputFit:
    """`rates` are sorted by batch size; at least two."""

    rates: tuple[ThroughputPoint, ...]
    fixed_seconds: float
    sample_seconds: float

    @property
    def falls(self) -> bool:
        """Whether measured throughput drops beyond its peak."""
        return self.rates[-1].samples_per_second < (1 - MAX_THROUGHPUT_DROP_RATIO) * self.peak.samples_per_second

    @property
    def peak(self) -> ThroughputPoint:
        return max(self.rates, key=lambda rate: rate.samples_per_second)

    def predict(self, batch_size: int) -> float:
        """Samples per second at a batch size."""
        first, last = self.rates[0], self.rates[-1]
        if batch_size >= last.batch_size:
            if self.falls:
                return last.samples_per_second
            beyond = last.step_seconds + self.sample_seconds * (batch_size - last.batch_size)
            return batch_size / beyond
        if batch_size <= first.batch_size:
            return batch_size / max(
                first.step_seconds - self.sample_seconds * (first.batch_size - batch_size),
                first.step_seconds * batch_size / first.batch_size,
            )
        for left, right in pairwise(self.rates):
            if batch_size <= right.batch_size:
                part = (batch_size - left.batch_size) / (right.batch_size - left.batch_size)
                return batch_size / (left.step_seconds + part * (right.step_seconds - left.step_seconds))
        raise AssertionError("sizes are in order")

    def knee(self, largest: int) -> int:
        """The smallest size up to `largest` that reaches KNEE_RATIO of the best throughput in that range."""
        enough = KNEE_RATIO * max(self.predict(size) for size in self._candidates(largest))
        low, high = 1, next(size for size in self._candidates(largest) if self.predict(size) >= enough)
        while low < high:
            middle = (low + high) // 2
            if self.predict(middle) >= enough:
                high = middle
            else:
                low = middle + 1
        return high

    def _candidates(self, largest: int) -> list[int]:
        measured = [rate.batch_size for rate in self.rates if rate.batch_size < largest]
        return [*measured, largest]


def fit_throughput(points: MeasuredPoints) -> ThroughputFit | None:
    """Fit throughput; None if fewer than two sizes have one."""
    rates = tuple(_throughput_points(points.points))
    if len(rates) < 2:
        return None
    left, right = rates[-2:]
    slope = (right.step_seconds - left.step_seconds) / (right.batch_size - left.batch_size)
    # A slope of zero means unbounded throughput; the whole step time per sample means full saturation already.
    slope = min(max(slope, 0.5 * right.step_seconds / right.batch_size), right.step_seconds / right.batch_size)
    return ThroughputFit(rates, right.step_seconds - slope * right.batch_size, slope)


def _throughput_points(points: tuple[MeasuredPoint, ...]) -> list[ThroughputPoint]:
    return [ThroughputPoint(p.batch_size, p.samples_per_second) for p in points if p.samples_per_second is not None]
