"""A batch size that fits in memory, from the peaks of the sizes that a job has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

PROBE_HINT = "`gpu-advisor probe` finds a batch size that leaves a margin"


def propose_from_peaks(
    peaks: Mapping[int, int], limit_bytes: int, target_ratio: float, current_batch: int | None = None
) -> BatchSizeAdvice:
    """peaks: bytes by batch size, at least two sizes. Raises CalibrationError. Needs numpy."""
    from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, recommend_batch_size
    from gpu_advisor.calibration.points import MeasuredPoint, clean_points

    points = clean_points(MeasuredPoint(size, peak) for size, peak in peaks.items())
    return recommend_batch_size(points, BatchSizeRequest(limit_bytes, target_ratio, current_batch=current_batch))


def proposal_text(peaks: Mapping[int, int], limit_bytes: int, target_ratio: float) -> str:
    """A log message with the proposal, or PROBE_HINT without one."""
    if len(peaks) < 2:  # most jobs run only one size
        return PROBE_HINT
    from gpu_advisor.calibration.errors import CalibrationError

    try:
        size = propose_from_peaks(peaks, limit_bytes, target_ratio).recommended_batch_size
    except (CalibrationError, ImportError):  # no fit, or no numpy
        return PROBE_HINT
    return PROBE_HINT if size is None else f"a batch size of {size} leaves a margin (see propose_batch_size())"
