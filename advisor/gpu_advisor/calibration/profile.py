"""Profiles: the results of a probe, as a file that the advisor reads, and as metrics.

A profile has a GPU type, a workload and a precision. The file is versioned JSON; names include units.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.calibration.errors import PointsError, ProfileError
from gpu_advisor.calibration.points import MAX_BATCH_SIZE, MeasuredPoint, MeasuredPoints, clean_points
from gpu_advisor.calibration.traced_memory import TracedMemory
from gpu_advisor.rendering.escaping import escape_label
from gpu_advisor.storage.output_file import write_output

FORMAT: Final = "gpu-advisor-profile"
VERSION: Final = 1
SUFFIX = ".profile.json"
MAX_FILE_BYTES = 1 << 20

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Bytes = Annotated[int, Field(gt=0, lt=1 << 60)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MemoryKind = Literal["driver", "reserved", "allocated", "cpu_tracked"]
"""What `peak_memory_bytes` is: as the driver sees it, the allocator's segments, its blocks, or tensors on a CPU."""


class ProfileModel(BaseModel):
    """Strict and immutable: no unknown fields, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Measurement(ProfileModel):
    """One batch size. What could not be measured is null."""

    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
    peak_memory_bytes: Bytes
    peak_allocated_bytes: Bytes | None = None
    peak_reserved_bytes: Bytes | None = None
    peak_driver_bytes: Bytes | None = None
    samples_per_second: Positive | None = None
    step_seconds_median: Positive | None = None
    step_seconds_low: Positive | None = None
    """The 10th percentile of the steps' times; `step_seconds_high` is the 90th."""
    step_seconds_high: Positive | None = None
    utilization_ratio: Ratio | None = None
    kept_bytes_per_step: Annotated[int, Field(ge=0)] | None = None
    """Memory that each step left behind, on top of the one before."""

    @property
    def leaks(self) -> bool:
        """Whether a hundred steps would need so much more that the peak is not that of the job."""
        return 100 * (self.kept_bytes_per_step or 0) > self.peak_memory_bytes


class TracedSize(ProfileModel):
    """One batch size of the step traced without a GPU, in bytes of the profile's `memory_kind` as far as tensors go."""

    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
    memory_bytes: Bytes


class Profile(ProfileModel):
    """All sizes of one workload on one GPU type in one precision."""

    format: Literal["gpu-advisor-profile"] = FORMAT
    version: Literal[1] = VERSION
    gpu_type: Name
    workload: Name
    factory: Name | None = None
    """What was probed, where `workload` is the name of a training job; None where it is `workload`."""
    precision: Name
    memory_kind: MemoryKind
    device_memory_bytes: Bytes | None = None
    created_timestamp_seconds: Positive
    """Seconds since 1970."""
    software: dict[str, str] = Field(default_factory=dict)
    measurements: tuple[Measurement, ...] = Field(min_length=2)
    out_of_memory_batch_sizes: tuple[int, ...] = ()
    traced_sizes: tuple[TracedSize, ...] = ()
    """Empty, or two and more, ascending."""

    @model_validator(mode="after")
    def _check_points(self) -> Profile:
        try:
            self.points()
        except PointsError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def key(self) -> tuple[str, str, str]:
        return self.gpu_type, self.workload, self.precision

    def points(self) -> MeasuredPoints:
        """For the fit. Raises PointsError, which reading a profile has ruled out."""
        rows = ((m.batch_size, m.peak_memory_bytes, m.samples_per_second) for m in self.measurements)
        traced = (
            TracedMemory(tuple((t.batch_size, t.memory_bytes) for t in self.traced_sizes))
            if self.traced_sizes
            else None
        )
        points = clean_points((MeasuredPoint(*row) for row in rows), self.out_of_memory_batch_sizes, traced)
        return replace(points, notes=(*points.notes, *self.leak_notes()))

    def leak_notes(self) -> Iterator[str]:
        leaking = next((each for each in self.measurements if each.leaks), None)
        if leaking is not None:
            yield (
                f"at size {leaking.batch_size} each step keeps {format_bytes(leaking.kept_bytes_per_step or 0)} of the "
                "memory that it takes, so the peaks hold for the first steps only: look for a list of losses or "
                "outputs that keeps their graphs (.detach() or .item() before appending)"
            )


def profile_file_name(profile: Profile) -> str:
    """The name within a folder of profiles: one file a key."""
    return "__".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") or "x" for part in profile.key) + SUFFIX


def read_profile(path: Path) -> Profile:
    """Raises ProfileError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ProfileError(
            f"{path}: {error.strerror}: give the path of a profile that gpu-advisor probe wrote"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ProfileError(f"{path}: larger than any profile: give a file that gpu-advisor probe wrote")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: not JSON ({error}): probe again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f"{path}: not a profile: give a file that gpu-advisor probe wrote")
    if document.get("version") != VERSION:
        raise ProfileError(f"{path}: version {document.get('version')!r}, this program reads {VERSION}: probe again")
    try:
        return Profile.model_validate_json(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'profile'}: {p['msg']}" for p in error.errors())
        raise ProfileError(f"{path}: {problems}: correct the file or probe again") from error


def read_profiles(folder: Path) -> tuple[dict[tuple[str, str, str], Profile], tuple[ProfileError, ...]]:
    """The newest profile of each key in a folder, and the errors of files that could not be read."""
    found: dict[tuple[str, str, str], Profile] = {}
    errors = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            profile = read_profile(path)
        except ProfileError as error:
            errors.append(error)
            continue
        known = found.get(profile.key)
        if known is None or known.created_timestamp_seconds < profile.created_timestamp_seconds:
            found[profile.key] = profile
    return found, tuple(errors)


def write_profile(profile: Profile, path: Path) -> None:
    """Write it atomically. Raises ProfileError."""
    _write(json.dumps(profile.model_dump(mode="json"), indent=2) + "\n", path)


def write_textfile(profile: Profile, folder: Path) -> None:
    """Write it atomically as metrics to a textfile directory. Raises ProfileError."""
    _write(
        render_exposition(profile_rows((profile,))),
        folder / (profile_file_name(profile).removesuffix(SUFFIX) + ".prom"),
    )


def check_writable(folder: Path) -> None:
    """Check before a probe that a folder can be written, or created. Raises ProfileError."""
    existing_parent = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not (existing_parent.is_dir() and os.access(existing_parent, os.W_OK | os.X_OK)):
        raise ProfileError(
            f"{folder}: {existing_parent} is not writable: choose another folder, or make it writable for this user"
        )


def _write(text: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, text)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}: give a path that can be written") from error


PROFILE_MEMORY = "training_profile_peak_memory_bytes"
PROFILE_THROUGHPUT = "training_profile_samples_per_second"

#: name -> (type, help, labels).
PROFILE_METRICS: dict[str, tuple[Literal["gauge"], str, tuple[str, ...]]] = {
    "training_profile_created_timestamp_seconds": (
        "gauge", "When a calibration profile was measured.",
        ("gpu_type", "workload", "precision", "memory_kind"),
    ),
    PROFILE_MEMORY: (
        "gauge", "Peak memory measured at a batch size.", ("gpu_type", "workload", "precision", "batch_size"),
    ),
    PROFILE_THROUGHPUT: (
        "gauge", "Throughput measured at a batch size.", ("gpu_type", "workload", "precision", "batch_size"),
    ),
}  # fmt: skip


class MetricRow(NamedTuple):
    """A sample: name, label values in the catalogue's order, value."""

    name: str
    labels: tuple[str, ...]
    value: float


def profile_rows(profiles: Iterable[Profile]) -> Iterator[MetricRow]:
    """Profiles as metrics."""
    for profile in profiles:
        kind = (*profile.key, profile.memory_kind)
        yield MetricRow("training_profile_created_timestamp_seconds", kind, profile.created_timestamp_seconds)
        for measured in profile.measurements:
            labels = (*profile.key, str(measured.batch_size))
            yield MetricRow(PROFILE_MEMORY, labels, measured.peak_memory_bytes)
            if measured.samples_per_second is not None:
                yield MetricRow(PROFILE_THROUGHPUT, labels, measured.samples_per_second)


def render_exposition(found: Iterable[MetricRow]) -> str:
    """Rows in the Prometheus text format 0.0.4."""
    by_name: dict[str, list[MetricRow]] = {}
    for row in found:
        by_name.setdefault(row.name, []).append(row)
    lines = []
    for name, (kind, about, labels) in PROFILE_METRICS.items():
        if name in by_name:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for row in by_name.get(name, ()):
            label_text = ",".join(
                f'{label}="{escape_label(value)}"' for label, value in zip(labels, row.labels, strict=True)
            )
            lines.append(f"{name}{{{label_text}}} {row.value!r}")
    return "\n".join([*lines, ""])


def points_from_rows(found: Iterable[MetricRow]) -> dict[tuple[str, str, str], MeasuredPoints]:
    """Points by key from metrics: the inverse of `profile_rows`. What cannot be a curve is left out."""
    memory: dict[tuple[str, ...], float] = {}
    rates: dict[tuple[str, ...], float] = {}
    for row in found:
        if row.name == PROFILE_MEMORY:
            memory[row.labels] = row.value
        elif row.name == PROFILE_THROUGHPUT:
            rates[row.labels] = row.value
    grouped: dict[tuple[str, str, str], list[MeasuredPoint]] = {}
    for labels, value in memory.items():
        gpu_type, workload, precision, size = labels
        if size.isdecimal():
            point = MeasuredPoint(int(size), round(value), rates.get(labels))
            grouped.setdefault((gpu_type, workload, precision), []).append(point)
    curves = {}
    for key, points in grouped.items():
        try:
            curves[key] = clean_points(points)
        except PointsError:
            continue
    return curves
