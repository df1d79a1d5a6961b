"""What keeps the memory of a long-lived process small."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from pathlib import Path

from gpu_advisor.runtime.process_memory import freeze_objects, share_arena
from gpu_advisor.storage.sqlite import CACHE_KIB, SMALL_CACHE_KIB, open_database


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_frozen_is_collected_once_a_reload_has_dropped_it() -> None:
    try:
        parts = Cycle()  # as a web application is
        freeze_objects()
        assert gc.get_freeze_count() > 0
        lives = weakref.ref(parts)
        del parts
        gc.collect()
        assert lives() is not None  # frozen: no pass looks at it
        freeze_objects()
        assert lives() is None
    finally:
        gc.unfreeze()


def test_an_arena_may_be_shared_more_than_once() -> None:
    share_arena()
    share_arena()
    assert bytearray(1 << 20)


def test_a_database_keeps_few_pages_in_memory(tmp_path: Path) -> None:
    def cache_kib(database: sqlite3.Connection) -> int:
        with database:
            return -int(database.execute("PRAGMA cache_size").fetchone()[0])

    assert cache_kib(open_database(tmp_path / "a.db")) == CACHE_KIB
    assert cache_kib(open_database(tmp_path / "b.db", cache_kib=SMALL_CACHE_KIB)) == SMALL_CACHE_KIB
