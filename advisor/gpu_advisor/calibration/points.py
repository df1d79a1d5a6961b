"""Measured points: memory and throughput by batch size, parsed strictly and cleaned."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gpu_advisor.calibration.byte_sizes import MIN_BYTES, UNITS, format_bytes
from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.traced_memory import TracedMemory

POINT_COLUMNS = ("batch_size", "peak_memory_bytes", "samples_per_second")
MAX_BATCH_SIZE = 1 << 31
#: Algorithms that change with the batch shake memory by so much; a run that ended early records far less.
MAX_MEMORY_DROP_RATIO = 0.02
#: Memory that grows so much faster than the batch is two units in one column: MiB and bytes differ by 2^20, kB and
#: bytes by 10^3, and no model's memory grows so.
MIXED_UNITS_RATIO = 100.0


@dataclass(frozen=True, slots=True, order=True)
class MeasuredPoint:
    """One measured size. `samples_per_second` is None if it was not measured."""

    batch_size: int
    peak_memory_bytes: int
    samples_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredPoints:
    """At least two points in ascending size, with memory that does not fall; `notes`: what was left out and why."""

    points: tuple[MeasuredPoint, ...]
    notes: tuple[str, ...] = ()
    out_of_memory: tuple[int, ...] = ()
    """Sizes that ran out of memory when they were measured, ascending."""
    traced: TracedMemory | None = None
    """The same step traced without a GPU."""

    @property
    def largest(self) -> MeasuredPoint:
        return self.points[-1]


def read_points(path: Path) -> MeasuredPoints:
    """Points of a CSV file with the columns POINT_COLUMNS, the last one optional. Raises PointsError with the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PointsError(f"{path}: {error.strerror}: give the path of a readable CSV file") from error
    except UnicodeDecodeError as error:
        raise PointsError(f"{path}: not UTF-8 text: save it as CSV in UTF-8") from error
    try:
        return clean_points(parse_points(text))
    except PointsError as error:
        raise PointsError(f"{path}: {error}") from error


def parse_points(text: str) -> list[MeasuredPoint]:
    """Rows of a CSV text, in its order. Raises PointsError, also for figures that are not bytes."""
    rows = list(csv.reader(io.StringIO(text)))
    while rows and not any(cell.strip() for cell in rows[0]):
        rows.pop(0)
    if not rows:
        raise PointsError(f"empty: give a header and at least two rows: {','.join(POINT_COLUMNS)}")
    header = [cell.strip() for cell in rows[0]]
    _check_header(header)
    points = []
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            if len(row) != len(header):
                raise PointsError(f"line {number}: {len(row)} cells where the header has {len(header)}")
            points.append(_parse_point(dict(zip(header, row, strict=True)), number))
    _check_units(sorted(points))
    return points


def _check_header(header: list[str]) -> None:
    for name in POINT_COLUMNS[:2]:
        if name not in header:
            hint = (
                " (convert to bytes)" if name == POINT_COLUMNS[1] and any("memory" in cell for cell in header) else ""
            )
            raise PointsError(
                f"line 1: no column {name}{hint}: the header is {','.join(POINT_COLUMNS)}, the last one optional"
            )
    for name in header:
        if name not in POINT_COLUMNS:
            raise PointsError(f"line 1: unknown column {name!r}: the columns are {', '.join(POINT_COLUMNS)}")
    if len(set(header)) != len(header):
        raise PointsError("line 1: duplicate column: remove one")


def _parse_point(row: Mapping[str, str], line: int) -> MeasuredPoint:
    size = _parse_number(row["batch_size"], "batch_size", line)
    memory = _parse_number(row["peak_memory_bytes"], "peak_memory_bytes", line)
    cell = row.get("samples_per_second", "").strip()
    rate = _parse_number(cell, "samples_per_second", line) if cell else None
    if size != int(size) or not 1 <= size <= MAX_BATCH_SIZE:
        raise PointsError(f"line {line}: batch_size {row['batch_size'].strip()}: give a whole number from 1 on")
    if memory <= 0:
        raise PointsError(f"line {line}: peak_memory_bytes {memory:g}: remove the row, nothing was measured there")
    if rate is not None and rate <= 0:
        raise PointsError(f"line {line}: samples_per_second {rate:g}: leave the cell empty where nothing was measured")
    return MeasuredPoint(int(size), round(memory), rate)


def _parse_number(cell: str, name: str, line: int) -> float:
    text = cell.strip()
    try:
        value = float(text)
    except ValueError:
        unit = next(
            (unit for unit in sorted(UNITS, key=len, reverse=True) if text.lower().endswith(unit.lower())), None
        )
        fix = f"write bytes, without the unit {unit}" if unit and name == POINT_COLUMNS[1] else "write a plain number"
        raise PointsError(f"line {line}: {name} {text!r}: {fix}") from None
    if not math.isfinite(value):
        raise PointsError(f"line {line}: {name} {text!r}: write a number, or remove the row")
    return value


def clean_points(
    points: Iterable[MeasuredPoint], out_of_memory: Iterable[int] = (), traced: TracedMemory | None = None
) -> MeasuredPoints:
    """Points by size, without invalid ones; `out_of_memory`: sizes known to have run out of it. Raises PointsError if
    fewer than two points are left.

    Memory that falls while the batch grows indicates a run that ran out of memory: it recorded only the peak before
    that. Such a point is left out with a note.
    """
    ordered = sorted(points)
    if len(ordered) < 2:
        raise PointsError(f"{len(ordered)} point(s): measure at least two sizes, better three, as 8, 16 and 32")
    for before, after in pairwise(ordered):
        if before.batch_size == after.batch_size:
            raise PointsError(
                f"duplicate batch size {after.batch_size}: keep one row per size (the larger peak, if they differ)"
            )
    valid_points: list[MeasuredPoint] = []
    notes = []
    failed = set(out_of_memory)
    for point in ordered:
        if valid_points and point.peak_memory_bytes < (1 - MAX_MEMORY_DROP_RATIO) * valid_points[-1].peak_memory_bytes:
            notes.append(
                f"size {point.batch_size} left out: {format_bytes(point.peak_memory_bytes)} is less than "
                f"{format_bytes(valid_points[-1].peak_memory_bytes)} at {valid_points[-1].batch_size}, "
                "which indicates a run that ran out of memory"
            )
            failed.add(point.batch_size)
        else:
            valid_points.append(point)
    if len(valid_points) < 2:
        raise PointsError(
            f"memory falls from {format_bytes(ordered[0].peak_memory_bytes)} at {ordered[0].batch_size}: the larger "
            "sizes probably ran out of memory, so their peaks are invalid; measure at least two sizes that finish"
        )
    return MeasuredPoints(tuple(valid_points), tuple(notes), tuple(sorted(failed)), traced)


def _check_units(ordered: list[MeasuredPoint]) -> None:
    """Of what people write. What a probe measured is in bytes, however small the model."""
    if ordered and max(point.peak_memory_bytes for point in ordered) < MIN_BYTES:
        raise PointsError("peak_memory_bytes is below 1 MiB everywhere: that is not bytes; multiply MiB by 1048576")
    for before, after in pairwise(ordered):
        growth = after.peak_memory_bytes / before.peak_memory_bytes
        limit = MIXED_UNITS_RATIO * max(1.0, after.batch_size / before.batch_size)
        if growth > limit or 1 / growth > MIXED_UNITS_RATIO:
            raise PointsError(
                f"memory goes from {before.peak_memory_bytes} at {before.batch_size} to {after.peak_memory_bytes} at "
                f"{after.batch_size}: units are mixed; write every peak in bytes"
            )
