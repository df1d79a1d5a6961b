"""The file of a history: its schema, the lock of its writer, and SQLite's errors as HistoryError."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gpu_advisor.storage.file_lock import FileLockedError, acquire_lock, lock_path
from gpu_advisor.storage.sqlite import SchemaVersionError, check_schema, open_database

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE targets (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE series (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: rows refer to it
    metric_id INTEGER NOT NULL,
    labels TEXT NOT NULL,  -- JSON, pairs sorted by name
    ended_ms INTEGER,  -- when it was last marked stale, unless samples followed
    UNIQUE (metric_id, labels)
);
CREATE TABLE samples (
    metric_id INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    target_id INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (metric_id, time_ms, target_id)
) WITHOUT ROWID;
"""


class HistoryError(Exception):
    """The history cannot be read or written. The message says what happened and how to fix it."""


class HistoryFullError(HistoryError):
    """The disk is full: these samples are lost. Later writes are tried again."""


class OutOfOrderSampleError(HistoryError):
    """The target has samples at or shortly after this time: the clock went back."""


def lock_history(path: Path) -> IO[str]:
    """Become the one process that writes. Raises HistoryError."""
    try:
        return acquire_lock(path)
    except FileLockedError as error:
        raise HistoryError(
            f"Another process ({error}) is writing the history {path}. Stop it, or choose another folder."
        ) from error
    except OSError as error:
        raise HistoryError(f"{lock_path(path)} cannot be written ({error.strerror}). Choose another folder.") from error


def open_history(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection to a history; created if missing, unless only read."""
    # A row of 64 GPUs and more fits into a page of 8 KiB.
    connection = open_database(path, page_size=8192, read_only=read_only)
    try:
        check_schema(connection, SCHEMA_VERSION, "" if read_only else _SCHEMA)
    except SchemaVersionError as error:
        connection.close()
        raise HistoryError(
            f"{path} is not a history of version {SCHEMA_VERSION} (its version is {error})."
            " Run the version that wrote it, or move the file away."
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def read_transaction(reader: sqlite3.Connection) -> Iterator[None]:
    """A consistent snapshot for all reads inside."""
    reader.execute("BEGIN")
    try:
        yield
    finally:
        reader.execute("ROLLBACK")


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Raise HistoryError for SQLite's errors. By their text: sqlite3 has no error codes before Python 3.11."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "is full" in text:
            raise HistoryFullError(
                f"No space left for the history {path}: these samples are lost. Free space, or shorten the retention."
            ) from error
        if "malformed" in text or "not a database" in text:
            raise HistoryError(
                f"The history {path} is damaged ({text}). Restart gpu-advisor, which moves it aside."
            ) from error
        raise HistoryError(
            f"The history {path} cannot be used: {text}. Check the disk and the file's permissions."
        ) from error
