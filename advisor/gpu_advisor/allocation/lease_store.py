"""Leases in SQLite. Each commit reaches the disk before it returns: WAL with synchronous FULL.

One process writes: it holds a lock on a file beside the database for as long as it lives, and the kernel gives the
lock back however it dies. A second process is refused at its start.

Nobody may be given a GPU twice, so a lease that is lost must be noticed: each row has a checksum, and the number of the
last commit is also kept in a file beside the database, which finds commits that a truncated or replaced file lacks.
Then the database is moved aside, and no lease is given, renewed or released until an operator confirms.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from gpu_advisor.allocation.errors import LeaseStoreError
from gpu_advisor.allocation.lease_table import EndedLease, LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.state.serialization import deserialize, serialize
from gpu_advisor.storage.damage import DamagedFile, find_damage, is_damage, move_aside
from gpu_advisor.storage.file_lock import FileLockedError, acquire_lock, lock_path
from gpu_advisor.storage.output_file import write_output
from gpu_advisor.storage.private_files import FILE_MODE, create_private_file
from gpu_advisor.storage.sqlite import SMALL_CACHE_KIB, SchemaVersionError, check_schema, open_database

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE leases (
    id TEXT PRIMARY KEY, expires REAL NOT NULL, allocation TEXT NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE ended (
    id TEXT PRIMARY KEY, client_token TEXT NOT NULL, how TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE commits (number INTEGER NOT NULL);
INSERT INTO commits VALUES (0);
"""

#: From version 1. The rows get their checksums when the store opens.
_MIGRATION = """
BEGIN IMMEDIATE;
ALTER TABLE leases ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
CREATE TABLE commits (number INTEGER NOT NULL);
INSERT INTO commits VALUES (0);
PRAGMA user_version = 2;
COMMIT;
"""

#: To find an ended lease by its token, and the oldest ones; also in databases that lack them.
_INDEXES = """
CREATE INDEX IF NOT EXISTS ended_by_token ON ended (client_token);
CREATE INDEX IF NOT EXISTS ended_by_time ON ended (at);
"""

_ADVICE = "its leases are unknown"
_NUMBER_DIGITS = 20


class _DamagedLeasesError(Exception):
    """The content is damaged. The message says how."""


class LeaseStore:
    """The database in a file, created if missing. Every method raises LeaseStoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marker = path.with_name(path.name + ".unconfirmed")
        self._number_path = path.with_name(path.name + ".commits")
        #: Where the clock of the leases is kept; see steady_clock.
        self.clock_file = path.with_name(path.name + ".clock")
        #: What was moved aside at the start.
        self.damaged: DamagedFile | None = None
        self._unconfirmed = ""
        self._number_file = -1
        self._lock = _lock(path)
        try:
            create_private_file(self._number_path)
            self._number_file = os.open(self._number_path, os.O_RDWR | os.O_CLOEXEC)
            self._open()
        except (sqlite3.Error, SchemaVersionError, OSError) as error:
            self._close_files()
            if isinstance(error, SchemaVersionError):
                raise LeaseStoreError(
                    f"{path} is of another version ({error}) of gpu-advisor: run that version, or set another "
                    "allocation.database once none of its allocations is in use"
                ) from error
            raise LeaseStoreError(f"{path} cannot be used ({error}): is it a database, and writable?") from error

    @property
    def unconfirmed(self) -> str:
        """Why no leases are given, renewed or released until an operator confirms; empty if they are."""
        if self._unconfirmed and not self._marker.exists():
            self._unconfirmed = ""
        return self._unconfirmed

    def load(self) -> LeaseTable:
        """All active leases. One that cannot be read is an error: its GPUs must not look free."""
        try:
            return self._read()
        except sqlite3.Error as error:
            raise LeaseStoreError(f"{self._path} cannot be read ({error}): see to its disk") from error
        except _DamagedLeasesError as error:
            raise LeaseStoreError(f"{self._path} is damaged ({error}): restart gpu-advisor to move it aside") from error

    def write(self, changes: LeaseChanges) -> None:
        """All of it or nothing, and on the disk when this returns."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM leases WHERE id = ?", [(id_,) for id_ in changes.ended])
            self._db.executemany(
                "INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)",
                [(each.id, each.client_token, each.how, each.at) for each in changes.ended.values()],
            )
            if changes.purge_until is not None:
                self._db.execute("DELETE FROM ended WHERE at <= ?", (changes.purge_until,))
            self._db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", map(_row, changes.upserts.values())
            )
            self._db.execute("UPDATE commits SET number = number + 1")
            (number,) = self._db.execute("SELECT number FROM commits").fetchone()
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            raise LeaseStoreError(
                f"{self._path} cannot be written ({error}): nothing was changed; see to its disk, and ask again"
            ) from error
        with suppress(OSError):  # written: the next commit writes the number again
            self._write_number(number)

    def ended_by_id(self, id_: str) -> EndedLease | None:
        """For the thread that writes. None if there is none, or it is purged."""
        return self._find_ended("id = ?", id_)

    def ended_by_token(self, token: str) -> EndedLease | None:
        return self._find_ended("client_token = ? ORDER BY at DESC", token)  # the last that used it

    def close(self) -> None:
        self._db.close()
        self._close_files()

    def _open(self) -> None:
        reason = self._find_damage()
        if not reason:
            try:
                self._open_database()
                self._read()
            except (sqlite3.Error, _DamagedLeasesError) as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                reason = str(error)
                if hasattr(self, "_db"):
                    self._db.close()
        if reason:
            self._start_over(reason, time.time())
        if self._marker.exists():
            self._unconfirmed = self._marker.read_text(encoding="utf-8", errors="replace").strip() or _ADVICE

    def _find_damage(self) -> str:
        if not self._path.exists():
            return "the file is missing" if self._read_number() else ""
        if self._path.stat().st_size == 0 and not self._read_number():
            return ""
        return find_damage(self._path)

    def _start_over(self, reason: str, now: float) -> None:
        """The marker first: after a crash at any point of this nothing is leased either."""
        write_output(
            self._marker,
            f"{self._path} was damaged ({reason}), so GPUs may be in use that no lease names: no GPUs are leased. When "
            f"no job uses GPUs that this service leased, confirm it: rm '{self._marker}'\n",
            new_mode=FILE_MODE,
        )
        advice = f"{_ADVICE}, and no GPUs are leased until you delete {self._marker.name}"
        self.damaged = move_aside(self._path, reason, advice, now)
        self._write_number(0)
        self._open_database()

    def _open_database(self) -> None:
        self._db = open_database(self._path, synchronous="FULL", cache_kib=SMALL_CACHE_KIB)
        if self._db.execute("PRAGMA user_version").fetchone() == (1,):
            self._db.executescript(_MIGRATION)
            rows = self._db.execute("SELECT id, allocation FROM leases").fetchall()
            self._db.executemany(
                "UPDATE leases SET checksum = ? WHERE id = ?", [(_checksum(id_, text), id_) for id_, text in rows]
            )
        check_schema(self._db, SCHEMA_VERSION, _SCHEMA)
        self._db.executescript(_INDEXES)

    def _find_ended(self, condition: str, value: str) -> EndedLease | None:
        query = f"SELECT id, client_token, how, at FROM ended WHERE {condition} LIMIT 1"
        try:
            row = self._db.execute(query, (value,)).fetchone()
        except UnicodeEncodeError:  # half of a surrogate pair: no stored text has one
            return None
        except sqlite3.Error as error:
            raise LeaseStoreError(f"{self._path} cannot be read ({error}): see to its disk") from error
        return EndedLease(*row) if row else None

    def _read(self) -> LeaseTable:
        """Raises sqlite3.Error, _DamagedLeasesError."""
        leases = self._db.execute("SELECT id, allocation, checksum FROM leases").fetchall()
        number = (self._db.execute("SELECT number FROM commits").fetchone() or (None,))[0]
        known = self._read_number()
        if not isinstance(number, int) or number < known:
            raise _DamagedLeasesError(f"it ends with commit {number} of {known}")
        active = []
        for id_, text, checksum in leases:
            allocation = deserialize(Allocation, text) if checksum == _checksum(id_, text) else None
            if allocation is None:
                raise _DamagedLeasesError(f"the lease {str(id_)[:40]!r} cannot be read")
            active.append(allocation)
        return LeaseTable(active, self)

    def _read_number(self) -> int:
        """The number of the last commit, as kept beside the database; 0 if unknown."""
        text = os.pread(self._number_file, _NUMBER_DIGITS, 0)
        return int(text) if text.isdigit() else 0

    def _write_number(self, number: int) -> None:
        # Not synced: after a power cut it may be older than the database, which is no loss.
        os.pwrite(self._number_file, f"{number:0{_NUMBER_DIGITS}d}\n".encode(), 0)

    def _close_files(self) -> None:
        if self._number_file >= 0:
            os.close(self._number_file)
            self._number_file = -1
        self._lock.close()


def _row(allocation: Allocation) -> tuple[str, float, str, str]:
    text = serialize(allocation)
    return allocation.id, allocation.expires, text, _checksum(allocation.id, text)


def _checksum(id_: object, text: object) -> str:
    return hashlib.sha256(f"{id_}\n{text}".encode("utf-8", "replace")).hexdigest()[:32]


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
