"""What keeps the memory of a process that runs for months as small as what it needs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

#: A parameter of mallopt(3).
_M_ARENA_MAX = -8


def share_arena() -> None:
    """Let all threads allocate from one arena of glibc's malloc; before any thread starts.

    By default each thread gets one of its own, which keeps what its largest request ever took. The interpreter's lock
    makes threads allocate in turn anyway. Other C libraries have no arenas.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def freeze_objects() -> None:
    """Take the objects of now out of the passes of the cyclic collector; after a reload, those of now only.

    A full collection waits until a quarter as many objects are new as the last one found. Imported modules are a third
    of a million: garbage would gather for hours, and its peaks stay resident, as other objects lie between.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.collect()  # what was found last is now next to nothing
