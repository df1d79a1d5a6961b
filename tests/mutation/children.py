"""Work in forks of a warm process: everything is imported, and each fork may spoil its own copy."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

#: Bytes that a fork may take more than its parent: a mutant may append to a list without end.
_MORE_MEMORY = 4 << 30

TIMED_OUT = "time limit"


class ForkError(Exception):
    """What went wrong in a fork beside its task: nothing that the code under test did."""


def run_forked(tasks: Iterable[Callable[[], Any]], processes: int) -> Iterator[tuple[int, Any]]:
    """The number and the result of each task, each run in a fork, in the order in which they end.

    A fork that its own alarm ends has the result TIMED_OUT; one that dies otherwise has its exit status as text. Raises
    ForkError for a task that raises.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    running: dict[int, int] = {}
    try:
        for number, task in enumerate(tasks):
            if len(running) >= processes:
                yield _ended(running, folder)
            running[_start(task, folder / str(number))] = number
        while running:
            yield _ended(running, folder)
    finally:
        for pid in running:
            _end_group(pid)
        shutil.rmtree(folder, ignore_errors=True)


def _start(task: Callable[[], Any], folder: Path) -> int:
    folder.mkdir()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        limit = _address_space() + _MORE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        (folder / "result").write_bytes(pickle.dumps(task()))
    except BaseException as error:  # noqa: BLE001 (pytest's own exceptions are no Exception)
        (folder / "result").write_bytes(pickle.dumps(ForkError(f"{type(error).__name__}: {error}")))
    finally:
        os._exit(0)


def _ended(running: dict[int, int], folder: Path) -> tuple[int, Any]:
    pid, status = os.wait()
    number = running.pop(pid)
    _end_group(pid)
    result = folder / str(number) / "result"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        found = TIMED_OUT
    elif result.exists() and os.WIFEXITED(status):
        found = pickle.loads(result.read_bytes())
    else:
        found = f"exit status {status}"
    shutil.rmtree(folder / str(number), ignore_errors=True)
    if isinstance(found, ForkError):
        raise found
    return number, found


def _end_group(pid: int) -> None:
    """Ends what a fork has started and left behind; the fork leads its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _address_space() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
