"""The ledger: advice since when, what it promised and what came of it, who snoozed it, and what Alertmanager was told.

SQLite, one writer. Decisions never depend on it: a lost ledger loses the history of advice, nothing else. Only what
differs from the last write is written: a large fleet has thousands of recommendations that stay as they are.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_advisor.evaluation.recommendation import Recommendation, Scope
from gpu_advisor.state.active import ActiveRecommendation, Snooze
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.outcomes import ClosedRecommendation, Outcome, TrackedRecommendation
from gpu_advisor.state.serialization import deserialize, serialize
from gpu_advisor.state.view import PublishedRecommendation

_SCHEMA = """
DROP TABLE IF EXISTS advice;
CREATE TABLE IF NOT EXISTS given (
    id TEXT NOT NULL, since REAL NOT NULL, ended REAL, kind TEXT NOT NULL,
    scope_kind TEXT NOT NULL, scope_name TEXT NOT NULL, gpus TEXT NOT NULL, recommendation TEXT NOT NULL,
    PRIMARY KEY (id, since)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_active ON given (id) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, alert TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snoozes (
    id TEXT PRIMARY KEY, reason TEXT NOT NULL, made REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS promises (id TEXT PRIMARY KEY, promise TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settling (closed TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (judged REAL NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS outcomes_judged ON outcomes (judged);
"""

#: What makes advice worth writing again; its evidence has other values every time.
_ChangeKey = tuple[float, str, float, float, str, frozenset[str]]


def _key(issued: PublishedRecommendation) -> _ChangeKey:
    of = issued.recommendation
    return issued.since, of.severity, of.current, of.recommended, of.diagnosis, frozenset(of.gpus)


class Ledger:
    """Open (or create) the ledger in a file. Raises sqlite3.Error if that cannot be done; each method may, too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._last_written_keys: dict[str, _ChangeKey] = {}
        self._tracked: dict[str, TrackedRecommendation] = {}
        self._settling: tuple[ClosedRecommendation, ...] = ()

    def active_recommendations(self) -> dict[str, tuple[ActiveRecommendation, Recommendation | None]]:
        """Advice that has not ended, by id, with what was said if that can be read."""
        rows = self._rows(
            "SELECT id, since, kind, scope_kind, scope_name, gpus, recommendation FROM given WHERE ended IS NULL"
        )
        return {
            id_: (
                ActiveRecommendation(since, kind, Scope(scope_kind, scope_name), frozenset(json.loads(gpus))),
                deserialize(Recommendation, text),
            )
            for id_, since, kind, scope_kind, scope_name, gpus, text in rows
        }

    def record_recommendations(self, now: float, recommendations: Iterable[PublishedRecommendation], held: Iterable[str]) -> None:
        """Note what is advised now, and end what is neither seen nor held."""
        fresh = {each.id: each for each in recommendations}
        keys = {id_: _key(each) for id_, each in fresh.items()}
        changed = [each for id_, each in fresh.items() if self._last_written_keys.get(id_) != keys[id_]]
        still_active = {*fresh, *held}
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            active = {id_ for (id_,) in self._db.execute("SELECT id FROM given WHERE ended IS NULL")}
            self._db.executemany(
                "UPDATE given SET ended = ? WHERE id = ? AND ended IS NULL",
                [(now, id_) for id_ in active - still_active],
            )
            self._db.executemany(
                "INSERT INTO given (id, since, kind, scope_kind, scope_name, gpus, recommendation)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET gpus = excluded.gpus, recommendation = excluded.recommendation, ended = NULL",
                [_row(each) for each in changed],
            )
        self._last_written_keys = {
            id_: key for id_, key in {**self._last_written_keys, **keys}.items() if id_ in still_active
        }

    def alerts(self) -> tuple[Alert, ...]:
        """What Alertmanager was last told, to go on from after a restart."""
        return tuple(Alert(**json.loads(text)) for (text,) in self._rows("SELECT alert FROM alerts"))

    def save_alerts(self, alerts: Iterable[Alert]) -> None:
        rows = [(alert.id, json.dumps(asdict(alert))) for alert in alerts]
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM alerts")
            self._db.executemany("INSERT INTO alerts VALUES (?, ?)", rows)

    def snoozes(self) -> dict[str, Snooze]:
        rows = self._rows("SELECT id, reason, made, until FROM snoozes")
        return {id_: Snooze(reason, made, until) for id_, reason, made, until in rows}

    def save_snooze(self, id_: str, snooze: Snooze | None) -> None:
        """Keep a snooze in place of a former one, or end it (None)."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM snoozes WHERE id = ?", (id_,))
            if snooze:
                row = (id_, snooze.reason, snooze.made, snooze.until)
                self._db.execute("INSERT INTO snoozes VALUES (?, ?, ?, ?)", row)

    def tracked_recommendations(self) -> tuple[dict[str, TrackedRecommendation], tuple[ClosedRecommendation, ...]]:
        """Those that are open, by id, and those that settle."""
        open_ = [deserialize(TrackedRecommendation, text) for (text,) in self._rows("SELECT promise FROM promises")]
        settling = [deserialize(ClosedRecommendation, text) for (text,) in self._rows("SELECT closed FROM settling")]
        self._tracked = {each.id: each for each in open_ if each}
        self._settling = tuple(each for each in settling if each)
        return dict(self._tracked), self._settling

    def save_tracked(
        self,
        open_: Mapping[str, TrackedRecommendation],
        settling: Sequence[ClosedRecommendation],
        judged: Sequence[Outcome],
    ) -> None:
        """Keep what is open and what settles in place of what was, and add the outcomes."""
        gone = [(id_,) for id_ in self._tracked.keys() - open_.keys()]
        changed = [(id_, serialize(each)) for id_, each in open_.items() if self._tracked.get(id_) != each]
        moved = tuple(settling) != self._settling
        if not (gone or changed or moved or judged):
            return
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM promises WHERE id = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO promises VALUES (?, ?)", changed)
            if moved:
                self._db.execute("DELETE FROM settling")
                self._db.executemany("INSERT INTO settling VALUES (?)", [(serialize(each),) for each in settling])
            self._db.executemany(
                "INSERT INTO outcomes VALUES (?, ?)", [(each.judged, serialize(each)) for each in judged]
            )
        self._tracked, self._settling = dict(open_), tuple(settling)

    def outcomes(self) -> tuple[Outcome, ...]:
        """All outcomes, the oldest first."""
        texts = self._rows("SELECT outcome FROM outcomes ORDER BY judged, rowid")
        return tuple(each for (text,) in texts if (each := deserialize(Outcome, text)))

    def delete_before(self, time: float) -> None:
        """Drop what ended or was judged before then (seconds since 1970), and snoozes that were over by then."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM given WHERE ended < ?", (time,))
            self._db.execute("DELETE FROM outcomes WHERE judged < ?", (time,))
            self._db.execute("DELETE FROM snoozes WHERE until < ?", (time,))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query).fetchall()


def _row(issued: PublishedRecommendation) -> tuple[object, ...]:
    of = issued.recommendation
    gpus = json.dumps(sorted(of.gpus))
    return issued.id, issued.since, of.kind, of.scope.kind, of.scope.name, gpus, serialize(of)
