"""The profile curves known to the advisor."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.calibration.points import MeasuredPoints


@dataclass(frozen=True, slots=True)
class ProfileCurve:
    """One workload on one GPU type in one precision.

    `allocated`: peak bytes of tensors, as a job reports its own peak; None if not recorded.
    """

    gpu_type: str
    workload: str
    precision: str
    points: MeasuredPoints
    allocated: MeasuredPoints | None = None
    created_timestamp_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ProfileIndex:
    """All curves, and the errors of profiles that could not be read."""

    curves: tuple[ProfileCurve, ...] = ()
    errors: tuple[str, ...] = ()

    def find(self, gpu_type: str, workload: str) -> tuple[ProfileCurve, ...]:
        """Curves in every precision, newest first."""
        found = [curve for curve in self.curves if (curve.gpu_type, curve.workload) == (gpu_type, workload)]
        return tuple(sorted(found, key=lambda curve: -curve.created_timestamp_seconds))
