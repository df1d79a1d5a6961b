"""Curves that the advisor knows: of profile files in a folder, and of profiles published as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.points import Point, Points, clean
from gpu_advisor.calibration.profile import (
    PROFILE_MEMORY,
    PROFILE_THROUGHPUT,
    Profile,
    Row,
    points_of_rows,
    read_profiles,
)

Labels = tuple[tuple[str, str], ...]
KEYS = ("gpu_type", "workload", "precision", "batch_size")


@dataclass(frozen=True, slots=True)
class Curve:
    """One workload on one GPU type in one precision.

    `allocated` is what its tensors took, in bytes, as a job's own peak counts it; None where it was not recorded.
    """

    gpu_type: str
    workload: str
    precision: str
    points: Points
    allocated: Points | None = None
    created_timestamp_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shelf:
    """All curves, and what could not be read, each with its mend."""

    curves: tuple[Curve, ...] = ()
    errors: tuple[str, ...] = ()

    def of(self, gpu_type: str, workload: str) -> tuple[Curve, ...]:
        """In every precision, the newest first."""
        found = [curve for curve in self.curves if (curve.gpu_type, curve.workload) == (gpu_type, workload)]
        return tuple(sorted(found, key=lambda curve: -curve.created_timestamp_seconds))


def shelf(folder: str, published: Iterable[Curve] = ()) -> Shelf:
    """The profiles of a folder (empty: of none), and those published that the folder has not."""
    if not folder:
        return Shelf(tuple(published))
    if not Path(folder).is_dir():
        return Shelf(tuple(published), (f"profiles_dir {folder} is no folder: create it, or mend the setting",))
    profiles, errors = read_profiles(Path(folder))
    own = [_curve(profile) for profile in profiles.values()]
    others = [curve for curve in published if (curve.gpu_type, curve.workload, curve.precision) not in profiles]
    return Shelf((*own, *others), tuple(str(error) for error in errors))


def curves_of_metrics(memory: Mapping[Labels, float], throughput: Mapping[Labels, float]) -> tuple[Curve, ...]:
    """Of series by label sets. What lacks a label, or is no curve, is left out."""
    rows = [
        Row(name, tuple(each[key] for key in KEYS), value)
        for name, series in ((PROFILE_MEMORY, memory), (PROFILE_THROUGHPUT, throughput))
        for labels, value in series.items()
        if all((each := dict(labels)).get(key) for key in KEYS)
    ]
    return tuple(Curve(*key, points) for key, points in points_of_rows(rows).items())


def _curve(profile: Profile) -> Curve:
    return Curve(*profile.key, profile.points(), _allocated(profile), profile.created_timestamp_seconds)


def _allocated(profile: Profile) -> Points | None:
    """None where a size lacks it, or where it makes no curve."""
    peaks = [(measured.batch_size, measured.peak_allocated_bytes) for measured in profile.measurements]
    try:
        return clean(Point(size, peak) for size, peak in peaks if peak) if all(peak for _, peak in peaks) else None
    except PointsError:
        return None
