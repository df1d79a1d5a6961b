"""What glibc's malloc holds for later, kept small (mallopt(3), malloc_trim(3)). Other C libraries have none of this."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8
"""A parameter of mallopt."""


def share_arena() -> None:
    """Let all threads allocate from one arena.

    By default each thread gets one of its own, which keeps what the largest page ever took: 7 MiB after 16 scrapes at
    once. The interpreter's lock makes threads allocate in turn anyway.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give free memory back, also between blocks that are in use. Takes a millisecond or so.

    Without it, the pages that a crowd of slow clients took leave holes: an hour with them added 5 MiB
    (benchmarks/soak). A fixed threshold for mappings prevents that, too, but doubles the cost of a scrape.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
