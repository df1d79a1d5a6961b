"""Curves from profile files in a folder, and from profiles published as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gpu_advisor.calibration.curves import Curve, Shelf
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
