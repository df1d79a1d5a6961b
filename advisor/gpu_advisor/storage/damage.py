"""Damaged databases: found before they are used, and moved aside with their date, so that the service starts."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from gpu_advisor.storage.file_lock import FileLockedError, acquire_lock

log = logging.getLogger(__name__)

#: Looking for damage takes at most this long: a large history is then used as far as it could be read.
CHECK_SECONDS = 10.0
#: A schema version above it is no version but damage.
MAX_VERSION = 1000
SUFFIXES = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A database that was moved aside. `at`: Unix time. `advice`: what is lost, and what to do."""

    name: str
    moved_to: str
    at: float
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name} was damaged ({self.reason}) and is now {self.moved_to}: {self.advice}"


def replace_if_damaged(
    path: Path, advice: str, probe: Callable[[Path], object] | None = None, clock: Callable[[], float] = time.time
) -> DamagedFile | None:
    """Move a damaged database aside and log it; None if it is not damaged, missing, or in use by another process.

    `probe` reads what the program will read; whatever it raises is damage, except that the file cannot be opened.
    """
    if not path.is_file():
        return None
    try:
        lock = acquire_lock(path)
    except (FileLockedError, OSError):
        return None  # the next program that opens it says why
    with closing(lock):
        reason = find_damage(path)
    if not reason and probe is not None:
        reason = _probe(path, probe)
    return move_aside(path, reason, advice, clock()) if reason else None


def find_damage(path: Path) -> str:
    """What is wrong with an existing database file; empty if nothing is, or if it cannot be opened at all."""
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            end = time.monotonic() + CHECK_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= MAX_VERSION:
                return f"its version is {version}"
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.DatabaseError as error:
        return str(error) if is_damage(error) else ""
    return "" if found == ["ok"] else " ".join(found)[:200]


def is_damage(error: BaseException) -> bool:
    """Whether an error of sqlite3 is about the file's content. By its text: no error codes before Python 3.11."""
    if not isinstance(error, sqlite3.OperationalError):
        return isinstance(error, sqlite3.DatabaseError)
    return any(words in str(error) for words in ("malformed", "not a database", "no such", "decode", "has no column"))


def move_aside(path: Path, reason: str, advice: str, now: float) -> DamagedFile:
    """Rename the database and what SQLite keeps beside it. Raises OSError."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    target = path.with_name(f"{path.name}.damaged-{date}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{date}-{number}")
    for suffix in reversed(SUFFIXES):  # the log first: a log without its database would be applied to the next one
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    damaged = DamagedFile(path.name, target.name, now, reason, advice)
    log.error("%s", damaged)
    return damaged


def _probe(path: Path, probe: Callable[[Path], object]) -> str:
    try:
        probe(path)
    except OSError:
        return ""
    except sqlite3.Error as error:
        return str(error) if is_damage(error) else ""
    except Exception as error:  # noqa: BLE001 whatever the content led to
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error | OSError):
            return str(cause) if is_damage(cause) else ""
        return f"{type(error).__name__}: {error}"[:200]
    return ""
