"""The embedded source's store: samples of scraped targets in one SQLite file.

A row has the samples of one target, metric and time: a packed array of (series, value), 12 bytes each. So a scrape
writes one row per metric, not one per series, and the window of a metric is a run of adjacent rows.

Only one process may write, which a lock file ensures. Reads do not wait for writes.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gpu_advisor.promql.expressions import Labels, Matcher
from gpu_advisor.sources.embedded.history_file import (
    HistoryError,
    OutOfOrderSampleError,
    lock_history,
    open_history,
    read_transaction,
    translate_sqlite_errors,
)
from gpu_advisor.sources.embedded.history_rows import (
    ROW_DTYPE,
    SeriesSamples,
    group_by_series,
    group_into_rows,
    pack_row,
    write_row,
)
from gpu_advisor.sources.matchers import compile_matchers
from gpu_advisor.sources.reductions import LOOKBACK_DELTA_MS, is_stale

IMPORT_BATCH_SAMPLES = 200_000
_MAX_CACHED_MATCHES = 512

#: Metric name, labels, value.
Sample = tuple[str, Labels, float]


@dataclass
class _TargetState:
    """The state of a target: the series of its newest scrape, by metric."""

    id: int
    newest_ms: int | None = None
    live: dict[int, set[int]] = field(default_factory=dict)


@dataclass
class _MetricSeries:
    """The series of one metric, for reading."""

    metric_id: int
    labels: dict[int, Labels] = field(default_factory=dict)


def as_labels(labels: Mapping[str, str]) -> Labels:
    """Sorted by name, without empty values and without the metric's name."""
    return tuple(sorted((name, value) for name, value in labels.items() if value and name != "__name__"))


class History:
    """The store in one file. Safe to use from several threads. Every method raises HistoryError."""

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock_file = None if read_only else lock_history(self.path)
        try:
            with translate_sqlite_errors(self.path):
                self._writer = None if read_only else open_history(self.path, read_only=False)
                self._reader = open_history(self.path, read_only=True)
        except BaseException:
            if self._lock_file is not None:
                self._lock_file.close()
            raise
        self._write_lock = threading.Lock()
        self._targets: dict[str, _TargetState] = {}
        self._series_ids: dict[tuple[str, Labels], tuple[int, int]] = {}  # -> metric, series
        self._read_lock = threading.Lock()
        self._families: dict[str, _MetricSeries] = {}
        self._newest_series = 0
        self._match_cache: dict[tuple[str, tuple[Matcher, ...]], dict[int, Labels]] = {}

    def append(self, target: str, at: float, samples: Iterable[Sample]) -> None:
        """Store one scrape atomically; of two values for one series, the first is stored.

        Series of the target's previous scrape that this one lacks are marked stale. A failed scrape has no samples but
        `up` and the like. Raises HistoryFullError, OutOfOrderSampleError, HistoryError.
        """
        at_ms = _milliseconds(at)
        with self._write_lock, self._transaction() as (writer, added):
            state = self._target(writer, target, at_ms)
            if state.newest_ms is None or at_ms <= state.newest_ms:
                _reject_out_of_order(writer, target, state.id, at_ms)
            values: dict[int, dict[int, float]] = {}
            for name, labels, value in samples:
                metric_id, series_id = self._series(writer, added, name, labels)
                values.setdefault(metric_id, {}).setdefault(series_id, value)
            live = {metric_id: set(samples_by_series) for metric_id, samples_by_series in values.items()}
            ended = {
                metric_id: lost for metric_id, ids in state.live.items() if (lost := ids - live.get(metric_id, set()))
            }
            for metric_id in values.keys() | ended.keys():
                packed = pack_row(values.get(metric_id, {}), ended.get(metric_id, set()))
                write_row(writer, metric_id, at_ms, state.id, packed)
            for metric_id, ids in live.items():
                _clear_ended(writer, ids - state.live.get(metric_id, set()))
            ended_now = itertools.chain.from_iterable(ended.values())
            writer.executemany("UPDATE series SET ended_ms = ? WHERE id = ?", [(at_ms, series) for series in ended_now])
        # Only after the commit.
        self._targets[target] = _TargetState(state.id, at_ms, live)

    def import_samples(self, target: str, samples: Iterable[tuple[str, Labels, float, float]]) -> int:
        """Add (metric, labels, value, Unix time) in any order; existing samples stay unchanged.

        Returns how many samples were read. Stored in batches: repeating the import after an error does no harm.
        """
        count = 0
        stream = iter(samples)
        while batch := list(itertools.islice(stream, IMPORT_BATCH_SAMPLES)):
            with self._write_lock, self._transaction() as (writer, added):
                target_id = _get_or_create_id(writer, "targets", target)
                ids = np.array([self._series(writer, added, name, labels) for name, labels, _, _ in batch], np.int64)
                values = np.array([value for _, _, value, _ in batch], np.float64)
                times = np.rint(np.array([at for _, _, _, at in batch], np.float64) * 1000).astype(np.int64)
                for metric_id, time_ms, packed in group_into_rows(ids[:, 0], times, ids[:, 1], values):
                    write_row(writer, metric_id, time_ms, target_id, packed)
                _clear_ended(writer, np.unique(ids[:, 1]).tolist())
            count += len(batch)
        return count

    def read(self, metric: str, matchers: Sequence[Matcher], start: float, end: float) -> list[SeriesSamples]:
        """The samples of a metric between two times, both included. Series without samples are absent.

        Raises HistoryError, and SourceError for a matcher that cannot be evaluated.
        """
        with self._read_lock, translate_sqlite_errors(self.path), read_transaction(self._reader):
            self._load_new_series()
            family = self._families.get(metric)
            if family is None:
                compile_matchers(matchers)  # an invalid matcher is an error even without data
                return []
            wanted = self._matching_series(metric, family, tuple(matchers))
            rows = self._reader.execute(
                "SELECT time_ms, packed FROM samples WHERE metric_id = ? AND time_ms BETWEEN ? AND ? ORDER BY time_ms",
                (family.metric_id, _milliseconds(start), _milliseconds(end)),
            ).fetchall()
        return group_by_series(rows, wanted)

    def span(self) -> tuple[float, float] | None:
        """The times of the oldest and the newest sample; None if there are none."""
        with self._read_lock, translate_sqlite_errors(self.path):
            # One probe of the index per metric; a min() over the whole table would read all of it.
            found = [
                self._reader.execute(
                    "SELECT min(time_ms) / 1000.0, (SELECT max(time_ms) / 1000.0 FROM samples WHERE metric_id = :id)"
                    " FROM samples WHERE metric_id = :id",
                    {"id": metric_id},
                ).fetchone()
                for (metric_id,) in self._reader.execute("SELECT id FROM metrics").fetchall()
            ]
        spans = [(oldest, newest) for oldest, newest in found if oldest is not None]
        return (min(oldest for oldest, _ in spans), max(newest for _, newest in spans)) if spans else None

    def delete_before(self, at: float) -> int:
        """Delete older samples and ended series. Returns the number of rows deleted; their space is reused.

        Series that no scrape ended, as those of a target removed from the settings, end with the newest sample.
        """
        before_ms = _milliseconds(at)
        with self._write_lock:
            with self._transaction() as (writer, _):
                deleted = sum(
                    writer.execute(
                        "DELETE FROM samples WHERE metric_id = ? AND time_ms < ?", (metric_id, before_ms)
                    ).rowcount
                    for (metric_id,) in writer.execute("SELECT id FROM metrics").fetchall()
                )
                newest_ms = _newest_ms(writer, default=before_ms)
                live = self._live_series(writer, newest_ms)
                # Not RETURNING, which needs SQLite 3.35: some systems have older ones.
                ended = _series_where(writer, "ended_ms < ?", before_ms) - live
                writer.executemany("DELETE FROM series WHERE id = ?", [(series,) for series in ended])
                lost = _series_where(writer, "ended_ms IS NULL") - live
                writer.executemany(
                    "UPDATE series SET ended_ms = ? WHERE id = ?", [(newest_ms, series) for series in lost]
                )
            self._evict_series(ended)
        return deleted

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            if self._writer is not None:
                self._writer.close()
            if self._lock_file is not None:
                self._lock_file.close()  # which gives the lock back

    # --- writing: with the write lock held

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, dict[tuple[str, Labels], tuple[int, int]]]]:
        """A transaction, and a dict for series added in it, which are cached only after the commit."""
        if self._writer is None:
            raise HistoryError(f"The history {self.path} is open for reading only.")
        writer, added = self._writer, dict[tuple[str, Labels], tuple[int, int]]()
        with translate_sqlite_errors(self.path):
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer, added
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:  # a full disk may have rolled it back already
                    writer.execute("ROLLBACK")
                raise
        self._series_ids.update(added)

    def _series(
        self,
        writer: sqlite3.Connection,
        added: dict[tuple[str, Labels], tuple[int, int]],
        name: str,
        labels: Labels,
    ) -> tuple[int, int]:
        key = (name, labels)
        known = self._series_ids.get(key) or added.get(key)
        if known is not None:
            return known
        if labels != as_labels(dict(labels)):
            raise ValueError(f"labels of {name} must be sorted, without empty values and without __name__: {labels}")
        metric_id = _get_or_create_id(writer, "metrics", name)
        text = json.dumps(labels, ensure_ascii=True, separators=(",", ":"))
        writer.execute("INSERT OR IGNORE INTO series (metric_id, labels) VALUES (?, ?)", (metric_id, text))
        (series_id,) = writer.execute(
            "SELECT id FROM series WHERE metric_id = ? AND labels = ?", (metric_id, text)
        ).fetchone()
        added[key] = (metric_id, series_id)
        return metric_id, series_id

    def _target(self, writer: sqlite3.Connection, name: str, at_ms: int) -> _TargetState:
        """The state of a target; after a restart, from its newest scrape within the lookback delta."""
        known = self._targets.get(name)
        if known is not None:
            return known
        state = _TargetState(_get_or_create_id(writer, "targets", name))
        for (metric_id,) in writer.execute("SELECT id FROM metrics").fetchall():
            row = writer.execute(
                "SELECT packed FROM samples WHERE metric_id = ? AND time_ms >= ? AND time_ms < ? AND target_id = ?"
                " ORDER BY time_ms DESC LIMIT 1",
                (metric_id, at_ms - LOOKBACK_DELTA_MS, at_ms, state.id),
            ).fetchone()
            if row is not None:
                packed = np.frombuffer(row[0], ROW_DTYPE)
                ids = packed["series"][~is_stale(np.ascontiguousarray(packed["value"]))]
                state.live[metric_id] = set(ids.tolist())
        return state

    def _live_series(self, writer: sqlite3.Connection, newest_ms: int) -> set[int]:
        """The series of each target's newest scrape within the lookback delta. Older scrapes are forgotten."""
        for name, state in tuple(self._targets.items()):
            if state.newest_ms is None or state.newest_ms < newest_ms - LOOKBACK_DELTA_MS:
                del self._targets[name]
        names = [name for (name,) in writer.execute("SELECT name FROM targets").fetchall()]
        states = [self._target(writer, name, newest_ms + 1) for name in names]
        return {series for state in states for ids in state.live.values() for series in ids}

    def _evict_series(self, series_ids: set[int]) -> None:
        if not series_ids:
            return
        with self._read_lock:
            self._series_ids = {key: ids for key, ids in self._series_ids.items() if ids[1] not in series_ids}
            for family in self._families.values():
                family.labels = {key: labels for key, labels in family.labels.items() if key not in series_ids}
            self._match_cache.clear()

    # --- reading: with the read lock held

    def _load_new_series(self) -> None:
        rows = self._reader.execute(
            "SELECT series.id, metrics.id, metrics.name, labels FROM series JOIN metrics ON metrics.id = metric_id"
            " WHERE series.id > ? ORDER BY series.id",
            (self._newest_series,),
        ).fetchall()
        for series_id, metric_id, name, text in rows:
            family = self._families.setdefault(name, _MetricSeries(metric_id))
            family.labels[series_id] = tuple((label, value) for label, value in json.loads(text))
            self._newest_series = series_id
        if rows:
            self._match_cache.clear()

    def _matching_series(self, metric: str, family: _MetricSeries, matchers: tuple[Matcher, ...]) -> dict[int, Labels]:
        if not matchers:
            return family.labels
        key = (metric, matchers)
        if key not in self._match_cache:
            test = compile_matchers(matchers)
            if len(self._match_cache) >= _MAX_CACHED_MATCHES:
                self._match_cache.clear()
            self._match_cache[key] = {series: labels for series, labels in family.labels.items() if test(dict(labels))}
        return self._match_cache[key]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _newest_ms(writer: sqlite3.Connection, default: int) -> int:
    """The time of the newest sample; `default` without samples."""
    metrics = writer.execute("SELECT id FROM metrics").fetchall()
    times = [
        writer.execute("SELECT max(time_ms) FROM samples WHERE metric_id = ?", id_).fetchone()[0] for id_ in metrics
    ]
    return max((time_ms for time_ms in times if time_ms is not None), default=default)


def _series_where(writer: sqlite3.Connection, condition: str, *values: int) -> set[int]:
    return {series for (series,) in writer.execute(f"SELECT id FROM series WHERE {condition}", values).fetchall()}


def _get_or_create_id(writer: sqlite3.Connection, table: str, name: str) -> int:
    row = writer.execute(f"SELECT id FROM {table} WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    return writer.execute(f"INSERT INTO {table} (name) VALUES (?)", (name,)).lastrowid or 0


def _reject_out_of_order(writer: sqlite3.Connection, target: str, target_id: int, at_ms: int) -> None:
    """Later samples mean that the clock went back: mixing two histories would invent counter resets."""
    for (metric_id,) in writer.execute("SELECT id FROM metrics").fetchall():
        row = writer.execute(
            "SELECT time_ms FROM samples WHERE metric_id = ? AND time_ms BETWEEN ? AND ? AND target_id = ? LIMIT 1",
            (metric_id, at_ms, at_ms + LOOKBACK_DELTA_MS, target_id),
        ).fetchone()
        if row is not None:
            raise OutOfOrderSampleError(
                f"{target} has samples {(row[0] - at_ms) / 1000:.3f} s after this time: the clock went back. New"
                " samples are stored once it has passed them; check this machine's time synchronization."
            )


def _clear_ended(writer: sqlite3.Connection, series_ids: Iterable[int]) -> None:
    writer.executemany(
        "UPDATE series SET ended_ms = NULL WHERE id = ? AND ended_ms IS NOT NULL", [(series,) for series in series_ids]
    )
