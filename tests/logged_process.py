"""A program of ours in a process of its own, with the lines of its log as they come."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def run_module(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`python -m ARGUMENTS`: the process, and the lines of its standard error so far. It is terminated at the end."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        lines: list[str] = []

        def read() -> None:
            for line in process.stderr or ():
                lines.append(line)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield process, lines
        finally:
            process.terminate()
            process.wait(60)
            reader.join(5)
