"""The ledger: recommendations with their start times, projections, outcomes and feedback, snoozes, and the last alerts.

SQLite, one writer. Decisions never depend on it: a lost ledger loses the history of recommendations, nothing else.
Each write has only what changed: a large fleet has thousands of recommendations, and few change per evaluation. Rows
that this version cannot read are dropped with a warning. The table names are older than the names used here: `given`
holds recommendations, `promises` the tracked ones, `settling` the closed ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_advisor.evaluation.recommendation import Recommendation, Scope
from gpu_advisor.state.active import ActiveRecommendation, Snooze
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.feedback import MAX_RECENT_FEEDBACK, Feedback
from gpu_advisor.state.outcomes import MAX_RECENT_OUTCOMES, ClosedRecommendation, Outcome, TrackedRecommendation
from gpu_advisor.state.serialization import deserialize, serialize
from gpu_advisor.state.view import PublishedRecommendation
from gpu_advisor.storage.sqlite import SMALL_CACHE_KIB, open_database

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
CREATE TABLE IF NOT EXISTS feedback (made REAL NOT NULL, feedback TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS feedback_made ON feedback (made);
CREATE TABLE IF NOT EXISTS promises (id TEXT PRIMARY KEY, promise TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settling (closed TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (judged REAL NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS outcomes_judged ON outcomes (judged);
"""

#: A recommendation is written again when one of these changes. Its evidence changes with every evaluation.
_ChangeKey = tuple[float, str, float, float, str, frozenset[str]]


def _key(issued: PublishedRecommendation) -> _ChangeKey:
    of = issued.recommendation
    return issued.since, of.severity, of.current, of.recommended, of.diagnosis, frozenset(of.gpus)


class Ledger:
    """Opens or creates the ledger file. The constructor and every method may raise sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = open_database(path, cache_kib=SMALL_CACHE_KIB)
        self._db.executescript(_SCHEMA)
        self._last_written_keys: dict[str, _ChangeKey] = {}
        self._tracked: Mapping[str, TrackedRecommendation | None] = {}  # as stored; None: unreadable
        self._settling: tuple[ClosedRecommendation, ...] = ()
        self._unwritten: tuple[Outcome, ...] = ()  # as the disk was full
        self._stored_alerts: tuple[Alert, ...] | None = None  # None: unknown

    def active_recommendations(self) -> dict[str, tuple[ActiveRecommendation, Recommendation | None]]:
        """Unresolved recommendations by id. The recommendation itself is None if this version cannot read it."""
        rows = self._rows(
            "SELECT id, since, kind, scope_kind, scope_name, gpus, recommendation FROM given WHERE ended IS NULL"
        )
        return {
            id_: (
                ActiveRecommendation(since, kind, Scope(scope_kind, scope_name), frozenset(uuids)),
                deserialize(Recommendation, text),
            )
            for id_, since, kind, scope_kind, scope_name, gpus, text in rows
            if isinstance(since, float) and (uuids := deserialize(tuple[str, ...], gpus)) is not None
        }

    def record_recommendations(
        self, now: float, recommendations: Iterable[PublishedRecommendation], unconfirmed: Iterable[str]
    ) -> None:
        """Store the current recommendations, and mark those as ended that are neither current nor `unconfirmed`."""
        fresh = {each.id: each for each in recommendations}
        keys = {id_: _key(each) for id_, each in fresh.items()}
        changed = [each for id_, each in fresh.items() if self._last_written_keys.get(id_) != keys[id_]]
        still_active = {*fresh, *unconfirmed}
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
        """The alerts sent last, so that a restart resolves none and repeats none."""
        return tuple(alert for (text,) in self._rows("SELECT alert FROM alerts") if (alert := deserialize(Alert, text)))

    def save_alerts(self, alerts: Iterable[Alert]) -> None:
        """Write the alerts, unless these are the ones written last."""
        alerts = tuple(alerts)
        if alerts == self._stored_alerts:
            return
        self._stored_alerts = None
        rows = [(alert.id, serialize(alert)) for alert in alerts]
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM alerts")
            self._db.executemany("INSERT INTO alerts VALUES (?, ?)", rows)
        self._stored_alerts = alerts

    def snoozes(self) -> dict[str, Snooze]:
        rows = self._rows("SELECT id, reason, made, until FROM snoozes")
        return {
            id_: Snooze(reason, made, until)
            for id_, reason, made, until in rows
            if isinstance(reason, str) and isinstance(made, float) and isinstance(until, float)  # not if damaged
        }

    def save_snooze(self, id_: str, snooze: Snooze | None) -> None:
        """Replace the snooze of a recommendation, or delete it (None)."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM snoozes WHERE id = ?", (id_,))
            if snooze:
                row = (id_, snooze.reason, snooze.made, snooze.until)
                self._db.execute("INSERT INTO snoozes VALUES (?, ?, ?, ?)", row)

    def feedback(self) -> tuple[Feedback, ...]:
        """The most recent feedback, oldest first."""
        rows = self._rows(f"SELECT feedback FROM feedback ORDER BY made DESC, rowid DESC LIMIT {MAX_RECENT_FEEDBACK}")
        return tuple(each for (text,) in reversed(rows) if (each := deserialize(Feedback, text)))

    def add_feedback(self, feedback: Feedback) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT INTO feedback VALUES (?, ?)", (feedback.made, serialize(feedback)))
            # What is not read again would only fill the disk: the number of requests has no limit.
            self._db.execute(
                "DELETE FROM feedback WHERE rowid <= (SELECT max(rowid) FROM feedback) - ?", (MAX_RECENT_FEEDBACK,)
            )

    def tracked_recommendations(self) -> tuple[dict[str, TrackedRecommendation], tuple[ClosedRecommendation, ...]]:
        """The open ones by id, and the closed ones that wait for their outcome."""
        rows = self._rows("SELECT id, promise FROM promises")
        self._tracked = {id_: deserialize(TrackedRecommendation, text) for id_, text in rows}
        settling = [deserialize(ClosedRecommendation, text) for (text,) in self._rows("SELECT closed FROM settling")]
        self._settling = tuple(each for each in settling if each)
        return {id_: each for id_, each in self._tracked.items() if each}, self._settling

    def save_tracked(
        self,
        open_: Mapping[str, TrackedRecommendation],
        settling: Sequence[ClosedRecommendation],
        judged: Sequence[Outcome],
    ) -> None:
        """Replace the open and the closed ones, and append the outcomes: after an error with the next call."""
        self._unwritten = judged = (*self._unwritten, *judged)[-MAX_RECENT_OUTCOMES:]
        removed = [(id_,) for id_ in self._tracked.keys() - open_.keys()]
        changed = [(id_, serialize(each)) for id_, each in open_.items() if self._tracked.get(id_) != each]
        settling_changed = tuple(settling) != self._settling
        if not (removed or changed or settling_changed or judged):
            return
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM promises WHERE id = ?", removed)
            self._db.executemany("INSERT OR REPLACE INTO promises VALUES (?, ?)", changed)
            if settling_changed:
                self._db.execute("DELETE FROM settling")
                self._db.executemany("INSERT INTO settling VALUES (?)", [(serialize(each),) for each in settling])
            self._db.executemany(
                "INSERT INTO outcomes VALUES (?, ?)", [(each.judged, serialize(each)) for each in judged]
            )
        self._tracked, self._settling, self._unwritten = dict(open_), tuple(settling), ()

    def outcomes(self) -> tuple[Outcome, ...]:
        """All outcomes, oldest first."""
        texts = self._rows("SELECT outcome FROM outcomes ORDER BY judged, rowid")
        return tuple(each for (text,) in texts if (each := deserialize(Outcome, text)))

    def delete_before(self, time: float) -> None:
        """Delete recommendations that ended, outcomes judged, feedback made and snoozes expired before a Unix time."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM given WHERE ended < ?", (time,))
            self._db.execute("DELETE FROM outcomes WHERE judged < ?", (time,))
            self._db.execute("DELETE FROM feedback WHERE made < ?", (time,))
            self._db.execute("DELETE FROM snoozes WHERE until < ?", (time,))

    def read_all(self) -> None:
        """Read what a start reads, and drop it. Whatever this raises means that the file is damaged."""
        self.active_recommendations()
        self.alerts()
        self.snoozes()
        self.feedback()
        self.tracked_recommendations()
        self.outcomes()

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
