"""A cache of what is computed from texts that come from outside: bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")

#: A longer text is computed each time: some hundred thousand texts of a megabyte would be kept otherwise.
MAX_TEXT_LENGTH = 256


def cache_texts(size: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Cache a pure function of a text: the `size` texts used last, each at most MAX_TEXT_LENGTH characters long.

    An entry takes about 300 bytes, and at most 1,300.
    """

    def decorate(compute: Callable[[str], T]) -> Callable[[str], T]:
        cached = lru_cache(size)(compute)

        @wraps(compute)
        def look_up(text: str) -> T:
            return cached(text) if len(text) <= MAX_TEXT_LENGTH else compute(text)

        return look_up

    return decorate
