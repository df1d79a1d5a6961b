"""The log: names from outside cannot forge lines, and a repeated message cannot fill the disk."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Of one message of the code, whatever its arguments.
MAX_PER_INTERVAL = 20
INTERVAL_SECONDS = 60.0
MAX_MESSAGES = 1000


def log_to_stderr() -> None:
    """Log to stderr from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter(FORMAT))
    handler.addFilter(RepetitionLimit())
    logging.basicConfig(level="INFO", handlers=[handler])


def escape_control_characters(text: str) -> str:
    """Replace line breaks, terminal escapes and other unprintable characters by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class EscapingFormatter(logging.Formatter):
    """One line per message; tracebacks, which are the program's own text, keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = escape_control_characters(record.message)
        return super().formatMessage(record)


class RepetitionLimit(logging.Filter):
    """Drops a message that is logged too often; the first of the next interval says how many were dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}  # since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, str(record.msg)), self._clock()
        since, count = self._counts.get(key, (now, 0))
        if now - since >= INTERVAL_SECONDS:
            dropped = count - MAX_PER_INTERVAL
            since, count = now, 0
            if dropped > 0:
                record.msg, record.args = f"{record.getMessage()} ({dropped} more like this were not logged)", ()
        self._counts[key] = (since, count + 1)
        if len(self._counts) > MAX_MESSAGES:
            self._counts.clear()
        return count < MAX_PER_INTERVAL
