"""Progress on standard error of what takes longer than two seconds: a line that is renewed, or one now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

#: What is quicker shows nothing.
QUIET_SECONDS = 2.0
TERMINAL_SECONDS, PIPE_SECONDS = 0.5, 10.0


class Progress:
    """Shows `text` of the count so far and of the seconds since the start."""

    def __init__(
        self,
        text: Callable[[int, float], str],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._text = text
        self._stream = stream or sys.stderr
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + QUIET_SECONDS
        self._shown = False
        self._count = 0

    def update(self, count: int) -> None:
        self._count = count

    def tick(self) -> None:
        """Show the line if it is due."""
        now = self._clock()
        if now < self._next:
            return
        terminal = self._stream.isatty()
        line = self._text(self._count, now - self._begun)
        self._stream.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")
        self._stream.flush()
        self._shown = True
        self._next = now + (TERMINAL_SECONDS if terminal else PIPE_SECONDS)

    def end(self) -> None:
        """Later output begins on a line of its own."""
        if self._shown and self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()


@contextmanager
def shown(progress: Progress) -> Iterator[Progress]:
    """Ticks in the background until the block ends: the work may be silent for a while."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TERMINAL_SECONDS):
            progress.tick()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()
        progress.end()
