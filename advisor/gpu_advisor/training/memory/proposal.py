"""A batch size for the memory there is, from the peaks of the sizes that a job has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_advisor.calibration.advice import Advice

PROBE = "`gpu-advisor probe` finds the batch size that leaves a margin"


def propose(
    peaks: Mapping[int, int], limit_bytes: int, target_ratio: float, current_batch: int | None = None
) -> Advice:
    """peaks: bytes by batch size, at least two. Raises CalibrationError. Needs numpy."""
    from gpu_advisor.calibration.advice import Request, advise
    from gpu_advisor.calibration.points import Point, clean

    points = clean(Point(size, peak) for size, peak in peaks.items())
    return advise(points, Request(limit_bytes, target_ratio, current_batch=current_batch))


def proposed(peaks: Mapping[int, int], limit_bytes: int, target_ratio: float) -> str:
    """The same in words, for a log: training goes on where nothing can be proposed."""
    if len(peaks) < 2:  # most jobs run but one size
        return PROBE
    from gpu_advisor.calibration.errors import CalibrationError

    try:
        size = propose(peaks, limit_bytes, target_ratio).recommended_batch_size
    except (CalibrationError, ImportError):  # no numpy here, or peaks that no curve goes through
        return PROBE
    return PROBE if size is None else f"a batch of {size} leaves a margin (propose_batch_size() tells more)"
