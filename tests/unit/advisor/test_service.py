from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.notify.alerts import RESOLVED_RESEND_SECONDS, postable_alerts, update_alerts
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.runtime.wiring import max_evaluation_interval_seconds
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.feedback import Feedback, suggest
from gpu_advisor.state.view import View
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, ExporterTarget, FakeClock, FakeSource, GpuSpec, ServiceHarness, source_error

HOUR = 3600.0
IDLE = [GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.0, index="1"), GpuSpec("GPU-2", 0.7, index="2")]
BUSY = [dataclasses.replace(card, utilization=0.95) for card in IDLE]
Start = Callable[..., ServiceHarness]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A service on the same ledger each time it is called; a first call sets up an idle fleet."""
    running: list[ServiceHarness] = []
    clock, source = (
        FakeClock(),
        FakeSource([ExporterTarget("a:1", IDLE), ExporterTarget("b:1", [GpuSpec("GPU-9", 0.95, node="b")])]),
    )

    def begin(**settings: Any) -> ServiceHarness:
        for each in running:
            each.close()
        running.append(ServiceHarness(tmp_path, source, clock, Settings.model_validate(settings)))
        return running[-1]

    yield begin
    running[-1].close()


def test_a_restart_changes_neither_ids_nor_since(start: Start, tmp_path: Path) -> None:
    first = start().after(0).given
    assert [since for since, _ in first.values()] == [AT]
    again = start().after(600)
    assert again.given == first
    assert again.alertmanagers.firing == set(first)
    again.close()
    for file in tmp_path.iterdir():
        file.unlink()
    restarted = start().after(600).given
    assert set(restarted) == set(first)
    assert [since for since, _ in restarted.values()] == [AT + 1200]


def test_while_the_source_fails_the_last_advice_is_stale_and_alerts_go_on(start: Start) -> None:
    advisor = start(pools=[{"name": "p", "kind": "serving", "match": {"node": "b"}}]).after(0)
    given = advisor.given
    assert given
    for round_ in range(1, 4):
        advisor.source.failure = source_error()
        advisor.after(15)
        view = advisor.service.view
        assert (view.stale, view.source.error, advisor.given) == (True, "unreachable", given)
        assert dict(view.failures) == {"unreachable": round_}
        assert advisor.alertmanagers.firing == set(given)
    # Restarted meanwhile, it shows the earlier recommendations as stale, and resolves no alert.
    held = {id_: (since, True) for id_, (since, _) in given.items()}
    blind = start()
    assert blind.given == held
    assert (blind.after(15).given, blind.service.view.stale, blind.alertmanagers.firing) == (held, False, set(given))
    blind.source.failure = None
    assert blind.after(15).given == given
    assert not blind.service.view.stale


@settings(max_examples=25, deadline=None)  # on a busy machine a round may take long
@given(st.lists(st.sampled_from(["answers", "fails", "breaks", "exporter silent"]), min_size=1, max_size=12))
def test_a_flapping_source_ends_nothing(tmp_path_factory: pytest.TempPathFactory, rounds: list[str]) -> None:
    source = FakeSource([ExporterTarget("a:1", IDLE)])
    advisor = ServiceHarness(tmp_path_factory.mktemp("flapping"), source, FakeClock()).after(0)
    given = set(advisor.given)
    for each in rounds:
        source.failure = {"fails": source_error(), "breaks": RuntimeError("a defect")}.get(each)
        source.targets[0].up = each != "exporter silent"
        source.lost_at = None if source.targets[0].up else advisor.clock.now
        advisor.after(15)
        assert set(advisor.given) == advisor.alertmanagers.firing == given
        assert {since for since, _ in advisor.given.values()} == {AT}
        assert advisor.service.view.stale == (source.failure is not None)
    advisor.close()


def test_a_defect_in_a_round_does_not_pass_for_a_current_answer(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    advisor = start().after(0)
    advisor.source.failure = ZeroDivisionError("odd")
    advisor.after(15)
    view = advisor.service.view
    assert (view.stale, view.source.error, dict(view.failures)) == (True, "internal", {"internal": 1})
    assert "ZeroDivisionError" in caplog.text
    assert advisor.alertmanagers.firing == set(advisor.given)


@pytest.mark.parametrize("silent_for", [15.0, 0.4 * HOUR, 1.5 * HOUR, 20 * HOUR])
@pytest.mark.parametrize("how", ["exporter", "driver"])
def test_advice_is_stale_while_its_exporter_is_silent(start: Start, silent_for: float, how: str) -> None:
    """Beyond the idle window as well, in which its GPUs were last seen."""
    advisor = start().after(0)
    (id_,) = advisor.given
    target = advisor.source.targets[0]
    target.up, target.driver = how == "driver", "failed" if how == "driver" else "ok"
    advisor.source.targets.append(ExporterTarget("other:1", up=False, job="other"))
    advisor.source.lost_at = advisor.clock.now + 1
    if how == "driver" and silent_for > HOUR:
        target.up = False  # how long ago is asked only while a target is silent
    advisor.after(silent_for)
    assert advisor.given == {id_: (AT, True)}
    assert advisor.alertmanagers.firing == {id_}
    assert {gpu.uuid: gpu.up for gpu in advisor.service.view.evaluation.facts.gpus}["GPU-0"] is None  # type: ignore[union-attr]
    target.up, target.driver, advisor.source.lost_at = True, "ok", None
    assert start().after(15).given == {id_: (AT, False)}  # a restart meanwhile does not forget it


@pytest.mark.parametrize("silent_for", [15.0, 1.5 * HOUR, 20 * HOUR])
def test_a_silent_exporter_never_makes_a_serving_pool_smaller(silent_for: float) -> None:
    chosen = Settings.model_validate({"pools": [{"name": "p", "kind": "serving", "match": {"node": ".*"}}]})
    at = AT + silent_for
    low = tuple((at // 60 * 60 - 60 * i, 0.1) for i in reversed(range(16)))
    cards = [GpuSpec(f"GPU-{i}", 0.1, trail=low) for i in range(4)]
    source = FakeSource(
        [ExporterTarget("a:1", cards), ExporterTarget("b:1", [GpuSpec("GPU-9", 0.9, node="b")], up=False)], chosen
    )
    source.lost_at = AT
    evaluation = evaluate(source, chosen, at)
    assert (evaluation.recommendations, evaluation.desired_replicas) == ((), ())
    source.targets = source.targets[:1]  # taken off the list: gone on purpose
    assert dict(evaluate(source, chosen, at).desired_replicas) == {"p": 1}


def test_advice_is_stale_over_a_restart_while_its_exporter_is_silent(start: Start) -> None:
    """With their evidence: people can still read it, and paste its queries."""
    advisor = start().after(0)
    before = advisor.service.view.issued[0].recommendation
    advisor.source.targets[0].up, advisor.source.lost_at = False, advisor.clock.now + 1
    (issued,) = start().after(15).service.view.issued
    assert (issued.since, issued.stale) == (AT, True)
    assert issued.recommendation.summary == before.summary
    assert [each.promql for each in issued.recommendation.evidence] == [each.promql for each in before.evidence]
    assert [each.value for each in issued.recommendation.evidence] == [each.value for each in before.evidence]


def test_a_snooze_is_marked_not_alerted_kept_over_a_restart_and_ends_by_itself(start: Start) -> None:
    advisor = start().after(0)
    (id_,) = advisor.given
    snooze = Snooze("maintenance", AT, AT + HOUR)
    advisor.service.snooze(id_, snooze)
    assert [each.snoozed for each in advisor.service.view.issued] == [snooze]
    assert advisor.after(15).alertmanagers.resolved == {id_}
    advisor.source.failure = source_error()
    assert advisor.after(15).alertmanagers.firing == set()  # what cannot be judged is not alerted either
    advisor.source.failure = None
    advisor.service.snooze(id_, None)
    assert advisor.after(15).alertmanagers.firing == {id_}
    advisor.source.failure = source_error()
    advisor.service.snooze(id_, snooze)
    assert advisor.after(15).alertmanagers.resolved == {id_}  # a stale one ends with a snooze, too
    advisor.source.failure = None
    again = start().after(15)
    assert [each.snoozed for each in again.service.view.issued] == [snooze]
    assert again.alertmanagers.firing == set()
    assert again.after(HOUR).alertmanagers.firing == {id_}
    assert [each.snoozed for each in again.service.view.issued] == [None]
    again.service.snooze(id_, Snooze("x", AT, again.clock.now + HOUR))
    again.service.snooze(id_, None)
    assert again.after(15).alertmanagers.firing == {id_}


def test_a_snooze_that_cannot_be_kept_changes_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    advisor = start().after(0)
    (id_,) = advisor.given

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(advisor.ledger, "save_snooze", full)
    with pytest.raises(sqlite3.OperationalError):
        advisor.service.snooze(id_, Snooze("x", AT, AT + HOUR))
    assert advisor.after(15).alertmanagers.firing == {id_}


def test_what_became_of_advice_is_judged_when_it_has_settled_restarts_or_not(start: Start) -> None:
    advisor = start(outcomes={"settle_seconds": 60}).after(0)
    (id_,) = advisor.given
    advisor.source.targets[0].cards = IDLE[2:]  # the two idle GPUs were given back, as advised
    advisor.after(15)
    assert (advisor.given, advisor.service.view.outcomes.recent) == ({}, ())
    again = start(outcomes={"settle_seconds": 60}).after(30)
    assert again.service.view.outcomes.recent == ()
    (outcome,) = again.after(30).service.view.outcomes.recent
    assert (outcome.closed.tracked.id, outcome.result.value, outcome.improved) == (id_, "applied", True)
    assert outcome.error_ratio == pytest.approx(0.0, abs=1e-9)  # the projection was right
    view = start().service.view
    assert view.outcomes.recent == (outcome,)
    assert view.outcomes.counts == {("idle_reclaim", "applied"): 1}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"id": 1}', '{"of_another_version": true}', "\x00"])
def test_ledger_rows_that_cannot_be_read_are_dropped_with_a_warning(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """By a restart on a ledger that another version wrote, or that is damaged."""
    advisor = start().after(0)
    given = advisor.given
    advisor.close()
    columns = {
        "given": ("recommendation", "gpus"), "alerts": ("alert",), "promises": ("promise",), "settling": ("closed",),
        "outcomes": ("outcome",),
    }  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        db.execute("INSERT INTO settling VALUES ('')")
        db.execute("INSERT INTO outcomes VALUES (0, '')")
        for table, names in columns.items():
            for name in names:
                db.execute(f"UPDATE {table} SET {name} = ?", (text,))
    again = start()
    assert (again.given, again.service.view.outcomes.recent) == ({}, ())
    kinds = ("Alert", "ClosedRecommendation", "Outcome", "TrackedRecommendation")
    assert all(f"dropped a {kind} from the ledger" in caplog.text for kind in kinds)
    assert again.after(15).given.keys() == given.keys()
    caplog.clear()
    assert start().after(15).given.keys() == given.keys()
    assert "TrackedRecommendation" not in caplog.text  # the next save replaced the rows


def test_a_recommendation_of_another_version_stays_active(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only its text cannot be shown until the next evaluation; its start and its alert go on."""
    given = start().after(0).given
    start().close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        db.execute("UPDATE given SET recommendation = json_remove(recommendation, '$.summary')")
    again = start()
    assert again.given == {}
    assert "dropped a Recommendation from the ledger, written by another version or damaged: summary" in caplog.text
    assert again.after(15).given == given


def test_when_the_cause_is_over_the_alert_is_resolved_and_re_sent(start: Start) -> None:
    advisor = start().after(0)
    (id_,) = advisor.given
    advisor.source.targets[0].cards = BUSY
    advisor.after(15)
    assert (advisor.given, advisor.alertmanagers.resolved) == ({}, {id_})
    ended = advisor.alertmanagers.rounds[-1][id_].resolved
    assert start().after(RESOLVED_RESEND_SECONDS - 15).alertmanagers.rounds[-1][id_].resolved == ended
    assert start().after(16).alertmanagers.rounds[-1] == {}
    again = start()
    again.source.targets[0].cards = IDLE
    again.after(15)
    assert again.given == {id_: (again.clock.now, False)}
    assert again.alertmanagers.firing == {id_}


def test_a_gpu_that_was_taken_away_ends_its_advice(start: Start) -> None:
    advisor = start().after(0)
    advisor.source.targets.append(
        ExporterTarget("web:80", up=False, job="blackbox")
    )  # what else is down does not matter
    advisor.source.targets[0].cards = []
    advisor.source.targets[1].cards = [GpuSpec("GPU-9", 0.95, node="b", name="NVIDIA L4")]
    assert advisor.after(2 * HOUR).given == {}
    assert len(advisor.alertmanagers.resolved) == 1


def test_a_full_disk_costs_no_answer_and_no_alert(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    advisor = start()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(advisor.ledger, "record_recommendations", full)
    monkeypatch.setattr(advisor.ledger, "save_alerts", full)
    first = advisor.after(0).given
    assert advisor.after(15).given == first
    assert [since for since, _ in first.values()] == [AT]
    assert not advisor.service.view.stale
    assert dict(advisor.service.view.failures)["ledger"] >= 1
    assert advisor.alertmanagers.firing == set(first)


@pytest.mark.parametrize("index", ["²", "9" * 5000, "", "-1", "٣", "1\n"])
def test_odd_indexes_do_not_end_the_round(start: Start, index: str) -> None:
    advisor = start()
    advisor.source.targets[0].cards = [*IDLE, GpuSpec("GPU-x", 0.5, index=index)]
    assert advisor.after(0).given


def test_gpus_are_in_the_order_of_their_indexes_and_the_answer_the_same_in_any_order() -> None:
    cards = [GpuSpec(f"GPU-{n}", 0.0, index=n) for n in ("10", "9", "1")]
    views = [
        evaluate(FakeSource([ExporterTarget(f"{i}:1", [card]) for i, card in enumerate(order)]), Settings(), AT)
        for order in (cards, cards[::-1])
    ]
    assert [gpu.index for gpu in views[0].facts.gpus] == ["1", "9", "10"]
    assert views[0].checks == views[1].checks
    assert views[0].recommendations == views[1].recommendations


def test_of_one_address_scraped_by_two_jobs_each_counts_for_itself() -> None:
    targets = [ExporterTarget("a:1", IDLE, up=False), ExporterTarget("a:1", [], job="z-other")]
    source = FakeSource(targets)
    source.lost_at = AT - 5
    assert {gpu.up for gpu in evaluate(source, Settings(), AT).facts.gpus} == {None}


# Alerts


def alert(id_: str, resolved: float | None = None, started: float = AT) -> Alert:
    return Alert(id_, {"alertname": "X"}, {"summary": "s"}, started, resolved, "http://a/recommendations/1")


def seconds(text: str) -> float:
    assert text.endswith("Z")
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_payload() -> None:
    (one,) = postable_alerts([alert("1")], AT + 100, 15)
    assert set(one) == {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
    assert (one["labels"], one["generatorURL"]) == ({"alertname": "X"}, "http://a/recommendations/1")
    assert seconds(one["startsAt"]) == AT
    assert seconds(one["endsAt"]) >= AT + 100 + 3 * 15
    (over,) = postable_alerts([alert("1", AT + 5)], AT + 100, 15)
    assert seconds(over["endsAt"]) == AT + 5


@given(st.floats(-1e6, 1e6), st.booleans())
def test_no_alert_ends_before_it_starts_whatever_the_clock_does(step: float, over: bool) -> None:
    (one,) = postable_alerts([alert("1", AT + step if over else None)], AT + step, 15)
    assert seconds(one["startsAt"]) <= seconds(one["endsAt"])


@given(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abc")))
def test_an_alert_resolves_only_if_it_neither_recurs_nor_is_stale(
    before: set[str], firing: set[str], held: set[str]
) -> None:
    after = {each.id: each for each in update_alerts(map(alert, before), map(alert, firing), frozenset(held), AT + 15)}
    assert set(after) == before | firing
    assert {id_ for id_, each in after.items() if each.resolved} == before - firing - held


def test_labels_stay_the_same_while_values_change(start: Start) -> None:
    advisor = start(cluster="c", web={"external_url": "http://advisor/"}).after(0)
    advisor.source.targets[0].cards = [*IDLE, GpuSpec("GPU-3", 0.0, index="3")]
    advisor.after(15)
    (then,), (now,) = (round_.values() for round_ in advisor.alertmanagers.rounds)
    assert then.labels == now.labels
    assert then.annotations != now.annotations
    assert dict(now.labels) == {
        "alertname": "GpuAdvisorIdleReclaim",
        "severity": "warning",
        "cluster": "c",
        "kind": "idle_reclaim",
        "scope_kind": "pool",
        "scope": "NVIDIA H100",
        "recommendation_id": now.id,
    }
    assert now.url == f"http://advisor/recommendations/{now.id}"
    assert now.annotations["runbook_url"].endswith("/GpuAdvisorIdleReclaim.md")


def test_a_large_fleet_in_trouble_is_few_alerts(start: Start) -> None:
    """One a pool or job, not one a GPU: what is wrong with a thousand GPUs must not hide in a thousand words."""
    pools = [{"name": f"p{n}", "match": {"node": f"n{n}"}} for n in range(4)]
    advisor = start(pools=pools)
    cards = [GpuSpec(f"GPU-{n}-{i}", 0.0, node=f"n{n}", index=str(i)) for n in range(4) for i in range(250)]
    advisor.source.targets = [ExporterTarget("a:1", cards)]
    reported = advisor.after(0).alertmanagers.rounds[-1].values()
    kinds = {each.labels["kind"] for each in reported}
    assert 4 <= len(reported) <= 4 * len(kinds)
    assert {each.labels["scope_kind"] for each in reported} <= {"pool", "job"}


def test_a_view_before_any_answer_is_not_stale_but_says_why(start: Start) -> None:
    view: View = start().service.view
    assert (view.stale, view.source.up, view.source.error) == (False, False, "not_yet")


def test_alerts_outlive_a_source_that_is_slow_within_its_limit() -> None:
    slow = Settings.model_validate({"source": {"prometheus": {"url": "http://p", "timeout_seconds": 60}}})
    assert max_evaluation_interval_seconds(slow) >= 60
    assert max_evaluation_interval_seconds(Settings()) == Settings().evaluation.interval_seconds


class Interruption:
    """Runs an action in another thread the first time it is reached, and waits until that ends or waits for a lock."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=action, daemon=True)
        self._reached = threading.Lock()

    def reach(self) -> None:
        if self._reached.acquire(blocking=False):
            self._thread.start()
            self._thread.join(timeout=0.3)

    def finish(self) -> None:
        self._thread.join(timeout=30)
        assert self._thread.ident is not None, "it was not reached"
        assert not self._thread.is_alive()


def test_an_evaluation_that_finishes_during_the_age_check_is_not_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, source = FakeClock(), FakeSource([ExporterTarget("a:1", IDLE)])
    running = ServiceHarness(tmp_path, source, clock).after(0)
    clock.now += HOUR
    evaluation = Interruption(running.service.evaluate_safely)

    def interrupted_clock() -> float:
        evaluation.reach()
        return clock.now

    monkeypatch.setattr(running.service, "_clock", interrupted_clock)
    running.service.mark_overdue()
    evaluation.finish()
    published = running.service.view
    assert published.evaluation is not None
    assert (published.evaluation.at, published.overdue) == (clock.now, False)
    running.close()


def test_feedback_that_is_given_at_the_same_time_is_all_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = ServiceHarness(tmp_path, FakeSource([ExporterTarget("a:1", IDLE)]), FakeClock()).after(0)
    first, second = (Feedback(id_, "idle_reclaim", "accepted", "", "", AT) for id_ in "ab")
    other = Interruption(lambda: running.service.give_feedback(second))

    def interrupted_suggest(*arguments: Any) -> Iterator[str]:
        other.reach()
        return suggest(*arguments)

    monkeypatch.setattr("gpu_advisor.runtime.service.suggest", interrupted_suggest)
    running.service.give_feedback(first)
    other.finish()
    assert running.service.view.feedback == (first, second)
    running.close()


def test_a_view_is_stale_by_its_own_age(tmp_path: Path) -> None:
    """Also if the evaluation hangs, so that nothing says that it failed."""
    settings, clock = Settings(), FakeClock()
    running = ServiceHarness(
        tmp_path, FakeSource([ExporterTarget("a:1", [GpuSpec("GPU-0", 0.0)])], settings), clock, settings
    ).after(0)
    running.service.mark_overdue()
    assert not running.service.view.stale
    clock.now += 5 * settings.evaluation.interval_seconds + 60
    running.service.mark_overdue()
    assert running.service.view.stale
    assert running.service.view.source.up
    running.after(0)
    assert not running.service.view.stale
    running.close()


def test_what_lingers_ends_where_a_new_recommendation_contradicts_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    advisor = start().after(0)
    evaluated = advisor.service.view.evaluation
    assert evaluated is not None
    first = dataclasses.replace(
        evaluated.recommendations[0], kind="smaller_gpu", unit="affected GPUs", gpus=("GPU-2",), nodes=("a",)
    )
    grows = dataclasses.replace(first, kind="scale_up", direction="up", unit="replicas")

    def make(*advice: Any) -> dict[str, tuple[float, bool]]:
        def evaluate(*_: object) -> Any:
            return dataclasses.replace(evaluated, at=advisor.clock.now, recommendations=advice, abstentions=())

        monkeypatch.setattr("gpu_advisor.runtime.service.evaluate", evaluate)
        return advisor.after(60).given

    (id_,) = make(first)
    assert set(make()) == {id_}  # it lingers
    assert id_ not in make(grows)
    assert id_ not in advisor.alertmanagers.firing
    assert make() == {}
