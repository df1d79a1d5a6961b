"""Let the cyclic garbage collector run rarely while very many long-lived objects are created."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: New objects between two collections, instead of 700: a collection of so many takes some milliseconds.
RARE_THRESHOLD = 300_000

_lock = threading.Lock()
_usual: list[tuple[int, int, int]] = []  # thresholds to return to, one for each block under way


@contextmanager
def rare_gc() -> Iterator[None]:
    """Collect once in RARE_THRESHOLD new objects inside. Works as a decorator, too; blocks in threads may overlap.

    The collector walks all objects again and again while an evaluation creates half a million for 10,000 GPUs: a third
    of its CPU time. They form no cycles, and reference counting frees them. It is not switched off: requests that are
    served meanwhile leave cycles, and an evaluation lasts as long as its data source makes it wait.
    """
    with _lock:
        _usual.append(_usual[0] if _usual else gc.get_threshold())
        first, *others = _usual[0]
        gc.set_threshold(max(RARE_THRESHOLD, first) if first else 0, *others)  # 0: it is switched off
    try:
        yield
    finally:
        with _lock:
            usual = _usual.pop()
            if not _usual:
                gc.set_threshold(*usual)
