"""The rows of a history: the samples of one target, metric and time, as a packed array of (series, value).

The end of a series is marked by Prometheus' staleness NaN (SQLite's NULL is indistinguishable from a measured NaN).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.reductions import STALE_NAN_BITS, Times, Values

ROW_DTYPE = np.dtype([("series", "<u4"), ("value", "<f8")])

Array = NDArray[Any]  # of ROW_DTYPE, or of whole numbers


@dataclass(frozen=True, slots=True)
class SeriesSamples:
    """One series between two times, staleness markers included, oldest first."""

    labels: Labels
    times_ms: Times
    values: Values


def pack_row(values: Mapping[int, float], ended: set[int]) -> Array:
    packed = np.empty(len(values) + len(ended), ROW_DTYPE)
    packed["series"] = [*values, *ended]
    numbers = np.empty(packed.size, np.float64)
    numbers[: len(values)] = list(values.values())
    numbers.view(np.int64)[len(values) :] = STALE_NAN_BITS
    packed["value"] = numbers
    return packed


def write_row(writer: sqlite3.Connection, metric_id: int, time_ms: int, target_id: int, packed: Array) -> None:
    """Write a row; into an existing one, only the series that it lacks."""
    key = (metric_id, time_ms, target_id)
    if writer.execute("INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?)", (*key, packed.tobytes())).rowcount:
        return
    where = "WHERE metric_id = ? AND time_ms = ? AND target_id = ?"
    (old,) = writer.execute(f"SELECT packed FROM samples {where}", key).fetchone()
    missing = packed[~np.isin(packed["series"], np.frombuffer(old, ROW_DTYPE)["series"])]
    if missing.size:
        writer.execute(f"UPDATE samples SET packed = ? {where}", (old + missing.tobytes(), *key))


def group_into_rows(metrics: Array, times: Array, series: Array, values: Array) -> Iterator[tuple[int, int, Array]]:
    """Group samples in any order into rows; of two for one series and time, the first is used."""
    order = np.lexsort((series, times, metrics))  # stable
    metrics, times, series = metrics[order], times[order], series[order]
    packed = np.empty(order.size, ROW_DTYPE)
    packed["series"], packed["value"] = series, values[order]
    new_row = np.r_[True, (metrics[1:] != metrics[:-1]) | (times[1:] != times[:-1])]
    keep = np.r_[True, series[1:] != series[:-1]] | new_row
    metrics, times, packed, new_row = metrics[keep], times[keep], packed[keep], new_row[keep]
    starts = np.flatnonzero(new_row)
    ends = np.r_[starts[1:], packed.size]
    for start, end, metric_id, time_ms in zip(
        starts.tolist(), ends.tolist(), metrics[starts].tolist(), times[starts].tolist(), strict=True
    ):
        yield metric_id, time_ms, packed[start:end]


def group_by_series(rows: Sequence[tuple[int, bytes]], wanted: Mapping[int, Labels]) -> list[SeriesSamples]:
    packed = np.frombuffer(b"".join(blob for _, blob in rows), ROW_DTYPE)
    if packed.size == 0 or not wanted:
        return []
    lengths = [len(blob) // ROW_DTYPE.itemsize for _, blob in rows]
    times = np.repeat(np.array([time_ms for time_ms, _ in rows], np.int64), lengths)
    order = np.argsort(packed["series"], kind="stable")
    series, times, values = packed["series"][order], times[order], packed["value"][order]
    starts = np.r_[0, np.flatnonzero(series[1:] != series[:-1]) + 1]
    ends = np.r_[starts[1:], series.size]
    return [
        SeriesSamples(wanted[series_id], times[start:end], values[start:end])
        for series_id, start, end in zip(series[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
        if series_id in wanted
    ]
