"""An exclusive lock on a file, held until the file is closed. The kernel releases it however the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from gpu_advisor.storage.private_files import create_private_file, make_private_folder


class FileLockedError(Exception):
    """Another process holds the lock; the message is its process id, or `unknown`."""


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def acquire_lock(path: Path) -> IO[str]:
    """Lock `<path>.lock`, created with its folder. Raises FileLockedError; OSError if it cannot be written."""
    make_private_folder(path.parent)
    create_private_file(lock_path(path))
    lock = lock_path(path).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise FileLockedError(holder or "unknown") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
