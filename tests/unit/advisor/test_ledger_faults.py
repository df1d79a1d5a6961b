"""The ledger under faults: a disk that is full or read-only at any write, damaged rows, clocks that jump."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.state.active import MAX_CLOCK_ERROR_SECONDS, Snooze, active_snoozes
from gpu_advisor.state.feedback import MAX_RECENT_FEEDBACK, Feedback
from gpu_advisor.state.ledger import Ledger
from gpu_advisor.state.outcomes import (
    ClosedRecommendation,
    Outcome,
    OutcomeResult,
    UtilizationSnapshot,
    judge_settled,
)

from tests.unit.advisor.builders import AT
from tests.unit.advisor.test_outcomes import tracked

YEAR = 366 * 86400.0
CLOSED = ClosedRecommendation(tracked(2, 4), AT, 4)
OUTCOME = Outcome(CLOSED, AT + 60, OutcomeResult.APPLIED, 0.5, True, 0.1)


@contextmanager
def full(ledger: Ledger) -> Iterator[None]:
    """As SQLite reports a full disk: the database may not have another page."""
    ledger._db.execute("CREATE TABLE filler (x)")
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    ledger._db.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def read_only(ledger: Ledger) -> Iterator[None]:
    ledger._db.execute("PRAGMA query_only = ON")
    yield
    ledger._db.execute("PRAGMA query_only = OFF")


FAULTS = pytest.mark.parametrize("fault", [full, read_only])
LONG = "x" * 20_000


@FAULTS
def test_outcomes_that_could_not_be_written_are_written_later(tmp_path: Path, fault: Any) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    judged = replace(OUTCOME, not_measured=LONG)
    with fault(ledger), pytest.raises(sqlite3.OperationalError):
        ledger.save_tracked({}, [], [judged])
    ledger.save_tracked({}, [], [OUTCOME])
    ledger.save_tracked({}, [], [])
    ledger.close()
    assert Ledger(tmp_path / "ledger.db").outcomes() == (judged, OUTCOME)


@FAULTS
@pytest.mark.parametrize(
    "write",
    [
        lambda ledger: ledger.save_snooze("1", Snooze(LONG, AT, AT + 60)),
        lambda ledger: ledger.add_feedback(Feedback("1", "k", "accepted", LONG, "", AT)),
        lambda ledger: ledger.save_tracked({"1": replace(tracked(2, 4), scope=Scope("gpu", LONG))}, [], []),
        lambda ledger: ledger.save_tracked({}, [replace(CLOSED, tracked=replace(CLOSED.tracked, unit=LONG))], []),
    ],
)
def test_a_write_that_fails_changes_nothing_and_may_be_repeated(
    tmp_path: Path, fault: Any, write: Callable[[Ledger], None]
) -> None:
    ledger = Ledger(tmp_path / "ledger.db")

    def rows() -> list[int]:
        return [ledger._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("snoozes", "feedback", "promises", "settling")]  # fmt: skip

    with fault(ledger):
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError):
                write(ledger)
        assert rows() == [0, 0, 0, 0]
    write(ledger)
    assert sum(rows()) == 1
    ledger.close()


def test_alerts_that_could_not_be_written_are_written_with_the_next_evaluation(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    commits = []
    ledger._db.set_trace_callback(lambda text: commits.append(text) if text.startswith("COMMIT") else None)
    with read_only(ledger), pytest.raises(sqlite3.OperationalError):
        ledger.save_alerts([])
    ledger.save_alerts([])
    assert len(commits) == 1
    ledger.save_alerts([])  # what is written is not written again
    assert len(commits) == 1
    ledger.close()


GARBAGE = [None, b"\xff\x00", 7, 1e308, "", "null", "{}", "[" * 5000, '{"id": NaN}', "\ud83d\ude00" * 10, "x" * 100_000]
COLUMNS = {
    "given": ("since", "ended", "kind", "scope_kind", "scope_name", "gpus", "recommendation"),
    "alerts": ("alert",),
    "snoozes": ("reason", "made", "until"),
    "feedback": ("made", "feedback"),
    "promises": ("promise",),
    "settling": ("closed",),
    "outcomes": ("judged", "outcome"),
}


def filled(path: Path) -> None:
    ledger = Ledger(path)
    ledger.save_snooze("1", Snooze("why", AT, AT + 60))
    ledger.add_feedback(Feedback("1", "k", "accepted", "", "", AT))
    ledger.save_tracked({"1": tracked(2, 4)}, [CLOSED], [OUTCOME])
    ledger._db.execute("INSERT INTO given VALUES ('1', ?, NULL, 'k', 'gpu', 'g', '[]', '{}')", (AT,))
    ledger._db.execute("INSERT INTO alerts VALUES ('1', '{}')")
    ledger.close()


@pytest.mark.parametrize(("table", "column"), [(table, each) for table, found in COLUMNS.items() for each in found])
def test_a_damaged_row_is_dropped_and_the_others_stay(tmp_path: Path, table: str, column: str) -> None:
    """Whatever is in it, the service starts: a row counts, or does not; no read raises."""
    path = tmp_path / "ledger.db"
    filled(path)
    for value in GARBAGE:
        with sqlite3.connect(path) as database:
            try:
                database.execute(f"UPDATE {table} SET {column} = ?", (value,))
            except (sqlite3.IntegrityError, UnicodeEncodeError):
                continue  # no such value can be there
        database.close()
        ledger = Ledger(path)
        ledger.read_all()
        snoozes, feedback, (tracked, settling) = ledger.snoozes(), ledger.feedback(), ledger.tracked_recommendations()
        assert len(snoozes) + len(feedback) + len(tracked) + len(settling) + len(ledger.outcomes()) >= 4
        ledger.close()


def test_feedback_without_end_fills_no_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger._db.execute("PRAGMA synchronous = OFF")
    for number in range(MAX_RECENT_FEEDBACK + 50):
        ledger.add_feedback(Feedback(str(number), "k", "accepted", "", "", AT + number))
    assert ledger._db.execute("SELECT count(*) FROM feedback").fetchone() == (MAX_RECENT_FEEDBACK,)
    assert [each.id for each in ledger.feedback()][-1] == str(MAX_RECENT_FEEDBACK + 49)
    ledger.close()


def test_a_snooze_of_a_clock_that_was_ahead_does_not_last_a_year() -> None:
    day = 86400.0
    snoozes = {
        "now": Snooze("", AT, AT + day),
        "wrong clock": Snooze("", AT + YEAR, AT + YEAR + day),
        "corrected clock": Snooze("", AT + MAX_CLOCK_ERROR_SECONDS, AT + day),
        "over": Snooze("", AT - day, AT),
    }
    assert active_snoozes(snoozes, AT).keys() == {"now", "corrected clock"}


def test_outcomes_settle_though_the_clock_was_set_back_a_year() -> None:
    def look(at: float) -> UtilizationSnapshot:
        return UtilizationSnapshot(at, {("pool", "p"): 0.5}, {})

    closed = replace(CLOSED, at=AT + YEAR)
    waiting, outcomes = judge_settled([closed], look(AT), 600.0)
    assert not outcomes
    assert [each.at for each in waiting] == [AT]
    waiting, outcomes = judge_settled(waiting, look(AT + 4 * 600.0), 600.0)
    assert (len(waiting), len(outcomes)) == (0, 1)
