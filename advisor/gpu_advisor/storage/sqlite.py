"""SQLite databases: write-ahead log, a busy timeout, transactions begun explicitly, a schema version."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from gpu_advisor.storage.private_files import create_private_file, make_private_folder

BUSY_TIMEOUT_SECONDS = 10.0

#: Pages that a connection keeps in memory (KiB), SQLite's own default: a file that grows for hours fills it.
CACHE_KIB = 2000
#: For a file of which little is read.
SMALL_CACHE_KIB = 256


class SchemaVersionError(Exception):
    """The file has a schema of another version, or is not one of ours. The message is its version."""


def open_database(
    path: Path,
    *,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    page_size: int = 4096,
    read_only: bool = False,
    cache_kib: int = CACHE_KIB,
) -> sqlite3.Connection:
    """A connection that threads may share under a lock of theirs. Raises sqlite3.Error.

    A file that is created is readable for this user only, and so are the log and index that SQLite keeps beside it.

    NORMAL survives kill -9; a power cut may lose the last commits. With FULL a commit is on disk when it returns.
    """
    if not read_only:
        _make_private(path)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        if not read_only:
            connection.execute(f"PRAGMA page_size = {page_size}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection, version: int, schema: str) -> None:
    """Check the schema's version; create it in an empty file. `schema`: SQL, "" for a file that must have one.

    Raises SchemaVersionError, sqlite3.Error.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == version:
        return
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found or objects or not schema:
        raise SchemaVersionError(str(found))
    connection.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")


def _make_private(path: Path) -> None:
    """Raises sqlite3.OperationalError, as opening the database would."""
    try:
        make_private_folder(path.parent)
        create_private_file(path)
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open database file: {path}: {error.strerror}") from error
