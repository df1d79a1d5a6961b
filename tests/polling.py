"""Wait for a condition instead of sleeping: the one polling loop of the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import pytest

#: Long enough for a machine that is busy with other work: a deadline finds what never happens, not what is slow.
TIMEOUT_SECONDS = 60.0

T = TypeVar("T")


class HasLog(Protocol):
    def log(self) -> str: ...


def wait_until(
    condition: Callable[[], T | None],
    expected: str,
    program: HasLog | None = None,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    interval_seconds: float = 0.05,
) -> T:
    """Return the first true value of the condition.

    Fail the test after `timeout_seconds` with what was expected, the last value, and the program's log.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            log = f"\n{program.log()}" if program else ""
            pytest.fail(f"not within {timeout_seconds:g} s: {expected} (last value: {value!r}){log}", pytrace=False)
        time.sleep(interval_seconds)
    return value
