from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from gpu_advisor.promql.expressions import Labels, Matcher, Selector
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History, as_labels
from gpu_advisor.sources.embedded.history_file import HistoryError, HistoryFullError, OutOfOrderSampleError
from gpu_advisor.sources.embedded.history_rows import SeriesSamples
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.reductions import is_stale

A: Labels = (("uuid", "A"),)
B: Labels = (("uuid", "B"),)
T = 1_700_000_000.0


@pytest.fixture
def history(tmp_path: Path):
    with_file = History(tmp_path / "new" / "history.db")
    yield with_file
    with_file.close()


def points(history: History, metric: str = "x", labels: Labels = A) -> list[tuple[float, float | None]]:
    """Seconds after T and values, None for a staleness marker."""
    for series in history.read(metric, (), T - 1e6, T + 1e6):
        if series.labels == labels:
            return as_lists(series)
    return []


def as_lists(series: SeriesSamples) -> list[tuple[float, float | None]]:
    stale = is_stale(series.values)
    return [
        ((time_ms - T * 1000) / 1000, None if gone else value)
        for time_ms, value, gone in zip(series.times_ms.tolist(), series.values.tolist(), stale, strict=True)
    ]


def test_what_is_written_is_read(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", B, -2.5), ("y", (), 3.0)])
    history.append("b", T, [("x", (("uuid", "C"),), 4.0)])
    history.append("a", T + 5.001, [("x", A, math.inf), ("x", B, 1e-300), ("y", (), 0.0)])
    assert points(history) == [(0, 1.0), (5.001, math.inf)]
    assert points(history, labels=B) == [(0, -2.5), (5.001, 1e-300)]
    assert points(history, labels=(("uuid", "C"),)) == [(0, 4.0)]
    assert points(history, "y", ()) == [(0, 3.0), (5.001, 0.0)]
    assert history.read("z", (), T, T) == []
    assert history.span() == (T, T + 5.001)


def test_times_are_included_at_both_ends(history: History):
    for second in range(5):
        history.append("a", T + second, [("x", A, float(second))])
    (series,) = history.read("x", (), T + 1, T + 3)
    assert as_lists(series) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history.read("x", (), T + 3.001, T + 3.999) == []


def test_a_measured_nan_is_not_a_marker(history: History):
    history.append("a", T, [("x", A, math.nan)])
    (series,) = history.read("x", (), T, T)
    assert np.isnan(series.values).all()
    assert not is_stale(series.values).any()


def test_of_two_values_the_first_counts(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", A, 2.0)])
    assert points(history) == [(0, 1.0)]


def test_staleness_of_a_series(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", B, 1.0), ("y", A, 1.0)])
    history.append("a", T + 5, [("x", A, 2.0)])
    history.append("a", T + 10, [("x", A, 3.0), ("x", B, 3.0)])
    assert points(history, labels=A) == [(0, 1.0), (5, 2.0), (10, 3.0)]
    assert points(history, labels=B) == [(0, 1.0), (5, None), (10, 3.0)]
    assert points(history, "y") == [(0, 1.0), (5, None)]  # marked once, not with every scrape


def test_a_failed_scrape_ends_all_of_its_target_and_nothing_else(history: History):
    history.append("a", T, [("x", A, 1.0), ("up", A, 1.0)])
    history.append("b", T, [("x", B, 1.0), ("up", B, 1.0)])
    history.append("a", T + 5, [("up", A, 0.0)])
    assert points(history, labels=A) == [(0, 1.0), (5, None)]
    assert points(history, "up", A) == [(0, 1.0), (5, 0.0)]
    assert points(history, labels=B) == [(0, 1.0)]


def test_staleness_over_a_restart(tmp_path: Path):
    with_file = History(tmp_path / "h.db")
    with_file.append("a", T, [("x", A, 1.0), ("x", B, 1.0), ("y", A, 1.0)])
    with_file.append("a", T + 5, [("x", A, 1.0), ("x", B, 1.0)])
    with_file.close()
    with_file = History(tmp_path / "h.db")
    with_file.append("a", T + 10, [("x", A, 2.0)])
    assert points(with_file, labels=B) == [(0, 1.0), (5, 1.0), (10, None)]
    assert points(with_file, "y") == [(0, 1.0), (5, None)]
    with_file.close()


def test_import_keeps_what_is_there(history: History):
    history.append("a", T, [("x", A, 1.0)])
    past = [("x", A, 9.0, T), ("x", B, 9.0, T), ("x", A, 7.0, T - 5), ("x", A, 8.0, T - 5)]
    assert history.import_samples("a", past) == 4
    assert history.import_samples("a", [(name, labels, 0.0, at) for name, labels, _, at in past]) == 4
    assert points(history) == [(-5, 7.0), (0, 1.0)]
    assert points(history, labels=B) == [(0, 9.0)]
    history.append("a", T + 5, [("x", A, 2.0)])  # the past is no previous scrape
    assert points(history, labels=B) == [(0, 9.0)]


def test_a_clock_that_went_back_does_not_mix_two_pasts(history: History):
    for second in range(0, 100, 5):
        history.append("a", T + second, [("x", A, float(second))])
    with pytest.raises(OutOfOrderSampleError, match=r"3\.000 s after this time.*time synchronization"):
        history.append("a", T + 52, [("x", A, 0.0)])
    with pytest.raises(OutOfOrderSampleError):
        history.append("a", T + 95, [("x", A, 0.0)])
    history.append("b", T + 52, [("x", B, 0.0)])  # another target has its own time
    history.append("a", T + 100, [("x", A, 100.0)])
    assert points(history) == [(second, float(second)) for second in range(0, 105, 5)]


def test_samples_of_a_far_future_do_not_block_the_present(history: History):
    history.append("a", T + 1e5, [("x", A, 1.0)])
    history.append("a", T, [("x", A, 2.0)])
    assert points(history) == [(0, 2.0), (1e5, 1.0)]


def test_delete_before(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", B, 1.0)])
    history.append("a", T + 5, [("x", A, 2.0)])
    history.append("a", T + 10, [("x", A, 3.0)])
    assert history.delete_before(T + 10) == 2
    assert points(history) == [(10, 3.0)]
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT labels FROM series").fetchall() == [('[["uuid","A"]]',)]
    history.append("a", T + 15, [("x", A, 4.0), ("x", B, 4.0)])  # B comes back, as a new series
    assert points(history, labels=B) == [(15, 4.0)]
    assert points(history) == [(10, 3.0), (15, 4.0)]
    assert history.delete_before(T + 12) == 1
    assert points(history, labels=B) == [(15, 4.0)]


def stored_series(history: History) -> list[str]:
    with sqlite3.connect(history.path) as raw:
        return [labels for (labels,) in raw.execute("SELECT labels FROM series ORDER BY labels").fetchall()]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("pause", [5, 900])
def test_the_series_of_a_removed_target_are_deleted_with_its_samples(
    tmp_path: Path, restarted: bool, pause: float
) -> None:
    """Nothing marks them stale: the target is scraped no more, perhaps since a restart with other settings."""
    history = History(tmp_path / "h.db")
    for second in (0, 5):
        history.append("kept", T + second, [("x", A, 1.0)])
        history.append("removed", T + second, [("x", B, 1.0)])
    if restarted:
        history.close()
        history = History(tmp_path / "h.db")
        history.delete_before(T)  # before the first scrape: both may go on
    for later in (5 + pause, 10 + pause):
        history.append("kept", T + later, [("x", A, 1.0)])
    history.delete_before(T)
    assert len(stored_series(history)) == 2, "its samples are still kept"
    assert points(history, labels=B) == [(0, 1.0), (5, 1.0)]
    history.append("kept", T + 2000, [("x", A, 2.0)])
    history.delete_before(T + 1000)
    history.append("kept", T + 4000, [("x", A, 3.0)])
    history.delete_before(T + 3000)
    assert stored_series(history) == ['[["uuid","A"]]']
    assert points(history) == [(4000, 3.0)]
    history.append("removed", T + 4000, [("x", B, 2.0)])  # added again
    assert points(history, labels=B) == [(4000, 2.0)]
    history.close()


def test_a_target_that_pauses_keeps_its_series(tmp_path: Path) -> None:
    history = History(tmp_path / "h.db")
    history.append("a", T, [("x", A, 1.0)])
    history.append("b", T + 900, [("x", B, 1.0)])
    history.delete_before(T)  # a is not scraped now
    history.append("a", T + 905, [("x", A, 2.0)])
    for second in (2000, 3000):
        history.append("a", T + second, [("x", A, 3.0)])
        history.append("b", T + second, [("x", B, 3.0)])
        history.delete_before(T + second)
    assert points(history) == [(3000, 3.0)]
    assert points(history, labels=B) == [(3000, 3.0)]
    history.close()


def test_a_series_that_came_back_is_kept(history: History):
    for second, samples in ((0, [("x", A, 1.0)]), (5, []), (10, [("x", A, 2.0)])):
        history.append("a", T + second, [*samples, ("up", A, 1.0)])
    history.delete_before(T + 8)
    assert points(history) == [(10, 2.0)]


def test_matchers(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", B, 2.0), ("x", (), 3.0)])

    def found(*matchers: Matcher) -> list[float]:
        return sorted(float(series.values[0]) for series in history.read("x", matchers, T, T))

    assert found(Matcher("uuid", "=", "A")) == [1]
    assert found(Matcher("uuid", "=~", "A|B")) == [1, 2]
    assert found(Matcher("uuid", "!~", "A|B")) == [3]
    assert found(Matcher("uuid", "=~", "A+")) == [1]
    history.append("b", T, [("x", (("uuid", "AA"),), 4.0)])
    assert found(Matcher("uuid", "=~", "A+")) == [1, 4]  # the answer is not from before there was this series
    with pytest.raises(SourceError):
        found(Matcher("uuid", "=~", "("))
    with pytest.raises(SourceError):
        history.read("not_there", (Matcher("uuid", "=~", "("),), T, T)


def test_odd_labels_survive(tmp_path: Path):
    labels = as_labels({"b": 'q"\\\n🚀', "a": "ä", "empty": "", "__name__": "x"})
    assert labels == (("a", "ä"), ("b", 'q"\\\n🚀'))
    first = History(tmp_path / "h.db")
    first.append("a", T, [("x", labels, 1.0)])
    first.close()
    second = History(tmp_path / "h.db", read_only=True)
    assert second.read("x", (), T, T)[0].labels == labels
    second.close()


@pytest.mark.parametrize("labels", [(("b", "1"), ("a", "1")), (("a", ""),), (("__name__", "x"),)])
def test_labels_out_of_order_are_refused(history: History, labels: Labels):
    with pytest.raises(ValueError, match="sorted"):
        history.append("a", T, [("y", (), 1.0), ("x", labels, 1.0)])
    assert points(history, "y", ()) == []  # all of a scrape or nothing


def test_disk_full(history: History):
    history.append("a", T, [("x", A, 1.0), ("x", B, 1.0)])
    assert history._writer is not None
    (pages,) = history._writer.execute("PRAGMA page_count").fetchone()
    history._writer.execute(f"PRAGMA max_page_count = {pages}")
    many = [("x", (("uuid", str(number)),), 1.0) for number in range(5000)]
    with pytest.raises(HistoryFullError, match=r"No space left.*retention"):
        history.append("a", T + 5, many)
    assert points(history) == [(0, 1.0)]
    history._writer.execute("PRAGMA max_page_count = 1000000")
    history.append("a", T + 10, [*many, ("x", A, 2.0)])
    assert points(history) == [(0, 1.0), (10, 2.0)]
    assert points(history, labels=B) == [(0, 1.0), (10, None)]  # compared with what is on disk, not what was lost
    assert len(history.read("x", (), T + 10, T + 10)) == 5002


def test_one_writer(tmp_path: Path):
    first = History(tmp_path / "h.db")
    with pytest.raises(HistoryError, match=r"Another process \(\d+\) is writing"):
        History(tmp_path / "h.db")
    reader = History(tmp_path / "h.db", read_only=True)
    first.append("a", T, [("x", A, 1.0)])
    assert points(reader) == [(0, 1.0)]
    with pytest.raises(HistoryError, match="reading only"):
        reader.append("a", T, [])
    reader.close()
    first.close()
    History(tmp_path / "h.db").close()


def test_not_a_history(tmp_path: Path):
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(HistoryError, match="moves it aside"):
        History(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(HistoryError, match="not a history"):
        History(tmp_path / "other.db")
    with sqlite3.connect(tmp_path / "later.db") as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match=r"99.*Run the version that wrote it"):
        History(tmp_path / "later.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="another folder"):
        History(tmp_path / "file" / "h.db")
    with pytest.raises(HistoryError, match="permissions"):
        History(tmp_path / "nothing.db", read_only=True)


def test_a_damaged_file_is_a_source_error(tmp_path: Path):
    with_file = History(tmp_path / "h.db")
    with_file.append("a", T, [("x", A, 1.0)])
    source = EmbeddedSource(with_file)
    assert source.instant({"x": Selector("x")}, T) == {"x": {A: 1.0}}
    with_file.close()
    with pytest.raises(SourceError) as caught:
        source.instant({"x": Selector("x")}, T)
    assert caught.value.kind is SourceErrorKind.UNREACHABLE


def test_readers_and_the_writer_do_not_wait_for_each_other(history: History):
    history.append("a", T, [("x", A, 1.0)])
    with sqlite3.connect(history.path, isolation_level=None) as reading:
        reading.execute("BEGIN")
        assert len(reading.execute("SELECT * FROM samples").fetchall()) == 1
        history.append("a", T + 5, [("x", A, 2.0)])
        assert len(reading.execute("SELECT * FROM samples").fetchall()) == 1  # as of the moment it began
    assert points(history) == [(0, 1.0), (5, 2.0)]


def test_many_threads(history: History):
    def write(target: int) -> None:
        for second in range(30):
            history.append(f"t{target}", T + second, [("x", (("t", str(target)),), float(second))])

    threads = [threading.Thread(target=write, args=(target,)) for target in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for series in history.read("x", (), T, T + 100):
            assert series.values.tolist() == list(range(len(series.values)))  # whole scrapes, in order
    assert [len(series.values) for series in history.read("x", (), T, T + 100)] == [30] * 4


_CRASHING = """
import sys
from gpu_advisor.sources.embedded.history import History
history = History(sys.argv[1])
second = 0
while True:
    history.append("a", 1.7e9 + second, [("x", (("uuid", str(n)),), float(second)) for n in range(200)])
    print(second, flush=True)
    second += 1
"""


def test_kill_9(tmp_path: Path):
    path = tmp_path / "h.db"
    for _ in range(2):
        path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", _CRASHING, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            reported = [int(writer.stdout.readline()) for _ in range(100)]
            os.kill(writer.pid, signal.SIGKILL)
            reported += [int(line) for line in writer.stdout.read().split()]
        history = History(path)
        found = history.read("x", (), T, T + 1e6)
        assert len(found) == 200
        lengths = {len(series.values) for series in found}
        assert len(lengths) == 1  # no half scrape
        assert lengths.pop() >= len(reported)  # and none lost that was reported as stored
        assert found[0].values.tolist()[: len(reported)] == reported
        history.append("a", T + 1e5, [("x", A, 1.0)])
        history.close()
        with sqlite3.connect(path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for rest in tmp_path.glob("h.db-*"):
            rest.unlink()


def test_labels_on_disk_are_plain_json(history: History):
    history.append("a", T, [("x", A, 1.0)])
    with sqlite3.connect(history.path) as raw:
        assert json.loads(raw.execute("SELECT labels FROM series").fetchone()[0]) == [["uuid", "A"]]
