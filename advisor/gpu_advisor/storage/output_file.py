"""The one way in which this program writes files that a user names: readers see the old content or the new.

Only regular files are replaced. Character devices and pipes (/dev/stdout, a FIFO) are written into, as a shell's `>`
does; directories, sockets and block devices are refused. Symbolic links are followed. A file that is replaced keeps its
mode, and its owner where this process may give files away.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

NEW_FILE_MODE = 0o644
_MAX_LINKS = 40
_PROCESS_DESCRIPTORS = re.compile(r"/proc/([0-9]+)(?:/task/[0-9]+)?/fd")
_UNSUITABLE = (
    (stat.S_ISDIR, errno.EISDIR, "is a directory"),
    (stat.S_ISSOCK, errno.ENOTSUP, "is a socket"),
    (stat.S_ISBLK, errno.ENOTSUP, "is a block device"),
)


class UnsuitableTargetError(OSError):
    """The path exists and is nothing that may be written. `strerror` says what it is."""


def write_output(path: Path | str, content: str | bytes, *, new_mode: int = NEW_FILE_MODE) -> None:
    """Write a whole file. Raises OSError; UnsuitableTargetError if something else than a file is there.

    A FIFO without a reader blocks, as in a shell. Text is written as UTF-8.
    """
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    descriptor = _own_descriptor(Path(path))
    if descriptor is not None:  # /dev/stdout: after what was written to it before, whatever it leads to
        _write_all(descriptor, data)
        return
    found = check_target(path)
    if found is not None and not stat.S_ISREG(found.st_mode):
        _write_into(path, data)
        return
    target = Path(os.path.realpath(path))
    try:
        _replace(target, data, found, new_mode)
    except OSError as error:
        # A file that may be written in a folder that may not, or a file that is a mount point of its own.
        if found is None or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
            raise
        _write_into(target, data, os.O_TRUNC)


def check_target(path: Path | str) -> os.stat_result | None:
    """What is at the path, links followed; None if there is nothing. Raises UnsuitableTargetError, OSError."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    for is_kind, number, what in _UNSUITABLE:
        if is_kind(found.st_mode):
            raise UnsuitableTargetError(number, what, str(path))
    return found


def _own_descriptor(path: Path) -> int | None:
    """N for a path that leads to /proc/self/fd/N, as /dev/stdout and /dev/fd/N do; else None."""
    current = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(current)
        place = _PROCESS_DESCRIPTORS.fullmatch(os.path.realpath(folder))
        if place and name.isdecimal():
            return int(name) if int(place[1]) == os.getpid() else None
        if not os.path.islink(current):
            return None
        current = os.path.normpath(os.path.join(folder, os.readlink(current)))
    return None


def _write_into(path: Path | str, data: bytes, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISBLK(mode):  # replaced since it was checked
            raise UnsuitableTargetError(errno.ENOTSUP, "is a block device", str(path))
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _replace(target: Path, data: bytes, found: os.stat_result | None, new_mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:60]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if found is not None:
                with suppress(OSError):  # only root gives files away; others keep the group if it is one of theirs
                    os.fchown(file.fileno(), -1, found.st_gid)
                    os.fchown(file.fileno(), found.st_uid, -1)
            os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode) if found is not None else new_mode)
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
