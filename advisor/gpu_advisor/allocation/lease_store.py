"""Leases in SQLite. Each commit reaches the disk before it returns: WAL with synchronous FULL.

One process writes: it holds a lock on a file beside the database for as long as it lives, and the kernel gives the
lock back however it dies. A second process is refused at its start.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

from gpu_advisor.allocation.errors import LeaseStoreError
from gpu_advisor.allocation.lease_table import EndedLease, LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.state.serialization import deserialize, serialize

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (id TEXT PRIMARY KEY, expires REAL NOT NULL, allocation TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ended (
    id TEXT PRIMARY KEY, client_token TEXT NOT NULL, how TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
"""


class LeaseStore:
    """The database in a file, made if it is not there. Raises LeaseStoreError, also in each method."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock_file(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            _check_version(self._db, path)
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, LeaseStoreError) as error:
            self._lock.close()
            if isinstance(error, LeaseStoreError):
                raise
            raise LeaseStoreError(f"{path} cannot be used ({error}): is it a database, can it be written?") from error

    def load(self) -> LeaseTable:
        """All that is kept. A lease that cannot be read is an error: its GPUs must not look free."""
        try:
            leases = self._db.execute("SELECT id, allocation FROM leases").fetchall()
            ended = self._db.execute("SELECT id, client_token, how, at FROM ended").fetchall()
        except sqlite3.Error as error:
            raise LeaseStoreError(f"{self._path} cannot be read ({error}): see to its disk") from error
        active = []
        for id_, text in leases:
            allocation = deserialize(Allocation, text)
            if allocation is None:
                raise LeaseStoreError(
                    f"{self._path}: the lease {id_} cannot be read; when its GPUs are idle, delete its row"
                )
            active.append(allocation)
        return LeaseTable(active, (EndedLease(*row) for row in ended))

    def write(self, changes: LeaseChanges) -> None:
        """All of it or nothing, and on the disk when this returns."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM leases WHERE id = ?", [(id_,) for id_ in changes.ended])
            self._db.executemany(
                "INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)",
                [(each.id, each.client_token, each.how, each.at) for each in changes.ended.values()],
            )
            self._db.executemany("DELETE FROM ended WHERE id = ?", [(id_,) for id_ in changes.purged_ids])
            self._db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                [(each.id, each.expires, serialize(each)) for each in changes.upserts.values()],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            raise LeaseStoreError(
                f"{self._path} cannot be written ({error}): nothing was changed; see to its disk, and ask again"
            ) from error

    def close(self) -> None:
        self._db.close()
        self._lock.close()


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA_VERSION):
        raise LeaseStoreError(
            f"{path} is of another version ({version}) of gpu-advisor: run that one, or name another "
            "allocation.database when no allocation of it is in use any more"
        )


def _lock_file(path: Path) -> IO[str]:
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("a+", encoding="utf-8")
    except OSError as error:
        raise LeaseStoreError(f"{lock_path} cannot be written ({error.strerror}): choose another folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise LeaseStoreError(
            f"{path} is in use by another gpu-advisor (process {holder or 'unknown'}), and only one may give out GPUs: "
            "ask that one, stop it, or give this one its own machines and its own allocation.database"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
