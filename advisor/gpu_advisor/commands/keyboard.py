"""Single keys from the terminal, without Enter and without echo; none where standard input is no terminal."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

#: What keys without a character of their own send (ECMA-48).
_ESCAPE_SEQUENCE = r"\x1b[\[O][0-9;]*[~A-Za-z]"


class Keyboard(Protocol):
    def wait(self, seconds: float) -> str:
        """The next key, or an empty string after `seconds`."""
        ...


class NoKeyboard:
    def wait(self, seconds: float) -> str:
        time.sleep(max(0.0, seconds))
        return ""


class TerminalKeyboard:
    def __init__(self, file: int) -> None:
        self._file = file
        self._pending = ""

    def wait(self, seconds: float) -> str:
        if not self._pending and select.select([self._file], [], [], max(0.0, seconds))[0]:
            text = os.read(self._file, 1024).decode("utf-8", "ignore")
            self._pending = re.sub(_ESCAPE_SEQUENCE, "", text)  # arrow keys and the like
        key, self._pending = self._pending[:1], self._pending[1:]
        return key


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Restores the terminal at the end, also after an interrupt."""
    try:
        import termios
        import tty

        file = sys.stdin.fileno()
        before = termios.tcgetattr(file)
    except (ImportError, OSError, ValueError, AttributeError):  # Windows, a pipe, no standard input
        yield NoKeyboard()
        return
    except termios.error:
        yield NoKeyboard()
        return
    try:
        tty.setcbreak(file)
        yield TerminalKeyboard(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
