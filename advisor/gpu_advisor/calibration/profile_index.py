"""Curves that the advisor knows: of profile files in a folder, and of profiles published as metrics."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.calibration.points import MeasuredPoints


@dataclass(frozen=True, slots=True)
class ProfileCurve:
    """One workload on one GPU type in one precision.

    `allocated` is what its tensors took, in bytes, as a job's own peak counts it; None where it was not recorded.
    """

    gpu_type: str
    workload: str
    precision: str
    points: MeasuredPoints
    allocated: MeasuredPoints | None = None
    created_timestamp_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ProfileIndex:
    """All curves, and what could not be read, each with its mend."""

    curves: tuple[ProfileCurve, ...] = ()
    errors: tuple[str, ...] = ()

    def of(self, gpu_type: str, workload: str) -> tuple[ProfileCurve, ...]:
        """In every precision, the newest first."""
        found = [curve for curve in self.curves if (curve.gpu_type, curve.workload) == (gpu_type, workload)]
        return tuple(sorted(found, key=lambda curve: -curve.created_timestamp_seconds))
