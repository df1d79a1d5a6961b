"""Loads profile curves from files in a folder and from metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints, clean_points
from gpu_advisor.calibration.profile import (
    PROFILE_MEMORY,
    PROFILE_THROUGHPUT,
    MetricRow,
    Profile,
    points_from_rows,
    read_profiles,
)
from gpu_advisor.calibration.profile_index import ProfileCurve, ProfileIndex

Labels = tuple[tuple[str, str], ...]
CURVE_LABELS = ("gpu_type", "workload", "precision", "batch_size")


def load_profile_index(folder: str, metric_curves: Iterable[ProfileCurve] = ()) -> ProfileIndex:
    """The profiles in a folder ("": none), and those from metrics that the folder does not have."""
    if not folder:
        return ProfileIndex(tuple(metric_curves))
    if not Path(folder).is_dir():
        return ProfileIndex(
            tuple(metric_curves), (f"profiles_dir {folder} is not a folder: create it, or correct the setting",)
        )
    profiles, errors = read_profiles(Path(folder))
    folder_curves = [_curve(profile) for profile in profiles.values()]
    others = [curve for curve in metric_curves if (curve.gpu_type, curve.workload, curve.precision) not in profiles]
    return ProfileIndex((*folder_curves, *others), tuple(str(error) for error in errors))


def curves_from_metrics(memory: Mapping[Labels, float], throughput: Mapping[Labels, float]) -> tuple[ProfileCurve, ...]:
    """From series by label set. Series without a required label, and invalid curves, are skipped."""
    rows = [
        MetricRow(name, tuple(each[key] for key in CURVE_LABELS), value)
        for name, series in ((PROFILE_MEMORY, memory), (PROFILE_THROUGHPUT, throughput))
        for labels, value in series.items()
        if all((each := dict(labels)).get(key) for key in CURVE_LABELS)
    ]
    return tuple(ProfileCurve(*key, points) for key, points in points_from_rows(rows).items())


def _curve(profile: Profile) -> ProfileCurve:
    return ProfileCurve(*profile.key, profile.points(), _allocated_points(profile), profile.created_timestamp_seconds)


def _allocated_points(profile: Profile) -> MeasuredPoints | None:
    """None if a size lacks it, or if it is not a valid curve."""
    peaks = [(measured.batch_size, measured.peak_allocated_bytes) for measured in profile.measurements]
    try:
        return (
            clean_points(MeasuredPoint(size, peak) for size, peak in peaks if peak)
            if all(peak for _, peak in peaks)
            else None
        )
    except PointsError:
        return None
