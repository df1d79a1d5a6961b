"""A demand trace: GPUs' worth of work per interval. Read from CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CSV_HEADER = ["timestamp_seconds", "demand_gpus"]

#: Nearly two years of minutes.
MAX_INTERVALS = 1_000_000


class TraceError(Exception):
    """The trace cannot be replayed. The message names file and line, and how to fix it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Demand in GPUs' worth of work per interval; None where it was not recorded, which is not zero."""

    interval_seconds: float
    demand: tuple[float | None, ...]


def read_csv(path: Path, interval_seconds: float) -> Trace:
    """The trace in a CSV file with the header `timestamp_seconds,demand_gpus`. Raises TraceError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(path, csv.reader(file)))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}: give the path of a readable CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: not CSV text in UTF-8: {error}") from error
    if not rows:
        raise TraceError(f"{path}: contains no demand: give at least one row under {','.join(CSV_HEADER)}")
    intervals = (rows[-1][0] - rows[0][0]) / interval_seconds
    if intervals > MAX_INTERVALS:
        raise TraceError(
            f"{path}: {rows[0][0]:g} to {rows[-1][0]:g} are {intervals:.3g} intervals of {interval_seconds:g} s; at "
            f"most {MAX_INTERVALS:,} are replayed: give timestamps in seconds, on one clock, or a longer --interval"
        )
    return resample(rows, interval_seconds)


def _rows(path: Path, reader: Iterable[Sequence[str]]) -> Iterable[tuple[float, float]]:
    header: list[str] | None = None
    before = -math.inf
    for number, row in enumerate(reader, start=1):
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            if header != CSV_HEADER:
                raise TraceError(f"{path}:{number}: the header is {','.join(row)!r}: make it {','.join(CSV_HEADER)!r}")
            continue
        try:
            at, demand = (float(text) for text in row)
        except ValueError as error:
            raise TraceError(f"{path}:{number}: not two numbers, {','.join(row)!r}: write as in 60,3.5") from error
        if not (math.isfinite(at) and math.isfinite(demand)) or demand < 0:
            raise TraceError(f"{path}:{number}: values must be finite and demand at least 0: omit unknown rows")
        if at <= before:
            raise TraceError(f"{path}:{number}: timestamp {at:g} does not come after {before:g}: sort the rows")
        before = at
        yield at, demand


def resample(rows: Sequence[tuple[float, float]], interval_seconds: float) -> Trace:
    """Rows (seconds, demand) as one demand per interval, starting at the first row.

    A row is valid until the next one, at most for the rows' usual distance: a longer gap was not recorded. Several rows
    in one interval are averaged, weighted by time. `rows` must be ordered by time and not empty.
    """
    starts = [at for at, _ in rows]
    distances = sorted(after - before for before, after in pairwise(starts))
    usual = distances[len(distances) // 2] if distances else interval_seconds
    first = starts[0]
    nexts = [*starts[1:], math.inf]
    ends = [after if after - at <= 1.5 * usual else at + usual for at, after in zip(starts, nexts, strict=True)]
    count = max(1, round((ends[-1] - first) / interval_seconds))
    work, covered = [0.0] * count, [0.0] * count
    for (at, demand), end in zip(rows, ends, strict=True):
        index = int((at - first) // interval_seconds)
        while index < count and first + index * interval_seconds < end:
            begin = first + index * interval_seconds
            valid = min(end, begin + interval_seconds) - max(at, begin)
            work[index] += demand * valid
            covered[index] += valid
            index += 1
    demand_of_each = (w / c if c >= interval_seconds / 2 else None for w, c in zip(work, covered, strict=True))
    return Trace(interval_seconds, tuple(demand_of_each))
