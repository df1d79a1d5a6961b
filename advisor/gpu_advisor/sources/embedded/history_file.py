"""The file of a history: its schema, who may write it, and SQLite's errors as ours."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SCHEMA_VERSION = 1
BUSY_TIMEOUT_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE targets (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE series (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: rows name it
    metric_id INTEGER NOT NULL,
    labels TEXT NOT NULL,  -- JSON, pairs sorted by name
    ended_ms INTEGER,  -- when it was last marked stale, if that was the last of it
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
    """The store cannot do what was asked. The message says what happened and what to do about it."""


class HistoryFullError(HistoryError):
    """The disk is full: these samples are lost. The next ones are tried again."""


class OutOfOrderSampleError(HistoryError):
    """There are samples of this target at or shortly after this time: the clock went back."""


def acquire_lock(path: Path) -> IO[bytes]:
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = lock_path.open("ab")
    except OSError as error:
        raise HistoryError(f"{lock_path} cannot be written ({error.strerror}). Choose another folder.") from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        raise HistoryError(
            f"Another process is writing the history {path}. Stop it, or give this one another folder."
        ) from error
    return lock_file


def open_writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA page_size = 8192")  # a row of 64 GPUs and more fits into a page
        connection.execute("PRAGMA journal_mode = WAL")
        # Enough against kill -9; after a power cut the last seconds may be missing, the file stays whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        check_version(connection, path, allow_new=True)
        if _version(connection) == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection, path: Path, *, allow_new: bool = False) -> None:
    version = _version(connection)
    if version == SCHEMA_VERSION:
        return
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not (version == 0 and empty and allow_new):
        raise HistoryError(
            f"{path} is not a history of version {SCHEMA_VERSION} (it says {version})."
            " Run the version that wrote it, or move the file away."
        )


@contextmanager
def read_transaction(reader: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one moment."""
    reader.execute("BEGIN")
    try:
        yield
    finally:
        reader.execute("ROLLBACK")


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours. sqlite3 tells the code only from Python 3.11 on, so the texts are read."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "is full" in text:
            raise HistoryFullError(
                f"No space left for the history {path}: these samples are lost. Free space, or shorten the retention."
            ) from error
        if "malformed" in text or "not a database" in text:
            raise HistoryError(f"The history {path} is damaged ({text}). Move it away; a new one is begun.") from error
        raise HistoryError(
            f"The history {path} cannot be used: {text}. Look at the disk and at the file's permissions."
        ) from error
