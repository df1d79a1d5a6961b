"""Memory of a training step by batch size, as traced without a GPU (`memory_estimate`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu_advisor.calibration.errors import PointsError


@dataclass(frozen=True, slots=True)
class TracedMemory:
    """Batch sizes, ascending, with their bytes: at least two. Tensors grow linearly between two sizes."""

    points: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.points]
        if len(sizes) < 2 or sizes != sorted(set(sizes)) or min(memory for _, memory in self.points) <= 0:
            raise PointsError("a trace needs two batch sizes or more, each once, with bytes above 0: trace again")

    def bytes_at(self, batch_size: int) -> float:
        """Interpolated bytes; beyond the traced sizes on the line of the nearest two, and never negative."""
        index = min(max(bisect_left(self.points, (batch_size,)), 1), len(self.points) - 1)
        (low, at_low), (high, at_high) = self.points[index - 1 : index + 1]
        return max(0.0, at_low + (at_high - at_low) * (batch_size - low) / (high - low))


def sizes_to_trace(measured: Sequence[int], others: Iterable[int] = ()) -> list[int]:
    """The measured sizes, the largest doubled three times, and `others` up to there."""
    doubled = [max(measured) << shift for shift in (1, 2, 3)]
    return sorted({*measured, *doubled, *(size for size in others if size <= doubled[-1])})
