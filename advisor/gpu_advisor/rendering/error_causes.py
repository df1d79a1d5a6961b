"""Errors of connections in words for people: what is at the end of a chain of exceptions."""

from __future__ import annotations

import ssl
from collections.abc import Iterator


def system_messages(error: BaseException) -> Iterator[str]:
    """The words of the operating system for an error and its causes (`Connection refused`), the nearest first.

    Those of OpenSSL are no words for people, although its errors are an OSError.
    """
    found = (cause for cause in causes(error) if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError))
    return (cause.strerror for cause in found if cause.strerror)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, through Python's exception chain and urllib3's `reason`."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or current in seen:
            continue
        seen.append(current)
        yield current
        waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
