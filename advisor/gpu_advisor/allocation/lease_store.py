"""Leases in SQLite. Each commit reaches the disk before it returns: WAL with synchronous FULL.

One process writes: it holds a lock on a file beside the database for as long as it lives, and the kernel gives the
lock back however it dies. A second process is refused at its start.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import IO

from gpu_advisor.allocation.errors import LeaseStoreError
from gpu_advisor.allocation.lease_table import EndedLease, LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.state.serialization import deserialize, serialize
from gpu_advisor.storage.file_lock import FileLockedError, acquire_lock, lock_path
from gpu_advisor.storage.sqlite import SchemaVersionError, check_schema, open_database

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE leases (id TEXT PRIMARY KEY, expires REAL NOT NULL, allocation TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ended (
    id TEXT PRIMARY KEY, client_token TEXT NOT NULL, how TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
"""


class LeaseStore:
    """The database in a file, created if missing. Every method raises LeaseStoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock(path)
        try:
            self._db = open_database(path, synchronous="FULL")
            check_schema(self._db, SCHEMA_VERSION, _SCHEMA)
        except (sqlite3.Error, SchemaVersionError) as error:
            self._lock.close()
            if isinstance(error, SchemaVersionError):
                raise LeaseStoreError(
                    f"{path} is of another version ({error}) of gpu-advisor: run that version, or set another "
                    "allocation.database once none of its allocations is in use"
                ) from error
            raise LeaseStoreError(f"{path} cannot be used ({error}): is it a database, and writable?") from error

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


def _lock(path: Path) -> IO[str]:
    try:
        return acquire_lock(path)
    except FileLockedError as error:
        raise LeaseStoreError(
            f"{path} is in use by another gpu-advisor (process {error}), and only one may allocate GPUs: use that one, "
            "stop it, or give this one its own machines and its own allocation.database"
        ) from error
    except OSError as error:
        raise LeaseStoreError(
            f"{lock_path(path)} cannot be written ({error.strerror}): choose another folder"
        ) from error
