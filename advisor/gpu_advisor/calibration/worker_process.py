"""Runs a module in its own process: a task as JSON to its stdin, its result as JSON from a file descriptor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended. `result`: None if it wrote none. `last_line`: of its stderr, "" if there is none."""

    result: dict[str, Any] | None
    return_code: int
    last_line: str

    @property
    def killed(self) -> bool:
        """By SIGKILL, as the kernel does when the host's memory runs out."""
        return self.return_code == -signal.SIGKILL


def run_worker(module: str, task: Mapping[str, Any], timeout_seconds: float) -> WorkerExit:
    """Run `python -m MODULE RESULT_FD` in its own process group, which is killed at the time limit.

    Raises TimeoutError.
    """
    reader, writer = os.pipe()
    command = [sys.executable, "-m", module, str(writer)]
    with os.fdopen(reader, "rb") as results:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(writer,),
            start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        try:
            _, log = process.communicate(json.dumps(task).encode(), timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{module} did not finish within {timeout_seconds:g} s") from error
        finally:
            _kill(process)
        output = results.read()
    lines = log[-LOG_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
    return WorkerExit(json.loads(output) if output else None, process.returncode, lines[-1] if lines else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
