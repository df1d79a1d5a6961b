"""The ledger: since when advice has been given, and what Alertmanager was last told. SQLite, one writer.

Decisions never depend on it: a lost ledger loses the history of advice, nothing else.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from gpu_advisor.continuity import Given
from gpu_advisor.publish.alerts import Alert
from gpu_advisor.recommendation import Scope

_SCHEMA = """
CREATE TABLE IF NOT EXISTS advice (
    id TEXT NOT NULL, since REAL NOT NULL, last_seen REAL NOT NULL, ended REAL,
    scope_kind TEXT NOT NULL, scope_name TEXT NOT NULL, kind TEXT NOT NULL, gpus TEXT NOT NULL,
    PRIMARY KEY (id, since)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, alert TEXT NOT NULL) WITHOUT ROWID;
"""


class Ledger:
    """Open (or create) the ledger in a file. Raises sqlite3.Error if that cannot be done."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def active(self) -> dict[str, Given]:
        """Advice that has not ended, by id."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, since, kind, scope_kind, scope_name, gpus FROM advice WHERE ended IS NULL"
            ).fetchall()
        return {
            id_: Given(since, kind, Scope(scope_kind, scope_name), frozenset(json.loads(gpus)))
            for id_, since, kind, scope_kind, scope_name, gpus in rows
        }

    def record(self, now: float, seen: Mapping[str, Given], held: Iterable[str]) -> None:
        """Note what is advised now, by id, and end what is neither seen nor held."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            active = {id_ for (id_,) in self._db.execute("SELECT id FROM advice WHERE ended IS NULL")}
            for id_ in active - {*seen, *held}:
                self._db.execute("UPDATE advice SET ended = ? WHERE id = ? AND ended IS NULL", (now, id_))
            self._db.executemany(
                "INSERT INTO advice (id, since, last_seen, scope_kind, scope_name, kind, gpus)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen, gpus = excluded.gpus, ended = NULL",
                [
                    (id_, each.since, now, each.scope.kind, each.scope.name, each.kind, json.dumps(sorted(each.gpus)))
                    for id_, each in seen.items()
                ],
            )

    def alerts(self) -> tuple[Alert, ...]:
        """What Alertmanager was last told, to go on from after a restart."""
        with self._lock:
            rows = self._db.execute("SELECT alert FROM alerts").fetchall()
        return tuple(Alert(**json.loads(text)) for (text,) in rows)

    def keep_alerts(self, alerts: Iterable[Alert]) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM alerts")
            self._db.executemany("INSERT INTO alerts VALUES (?, ?)", [(a.id, json.dumps(asdict(a))) for a in alerts])

    def close(self) -> None:
        with self._lock:
            self._db.close()
