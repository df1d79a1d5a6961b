"""Feedback on recommendations: recorded, shown, and turned into a suggestion, never into a threshold."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.state.feedback import Feedback, Verdict, count_verdicts, suggest
from gpu_advisor.state.ledger import Ledger
from gpu_advisor.web.api.app import ApiContext, create_app

from tests.unit.advisor.builders import AT, ExporterTarget, FakeClock, FakeSource, GpuSpec, ServiceHarness

SETTINGS = EvaluationSettings()


def given(verdicts: str, kind: str = "idle_reclaim", reason: str = "too early: it was still needed") -> list[Feedback]:
    """`a`ccepted and `d`ismissed ones, oldest first."""
    names: dict[str, Verdict] = {"a": "accepted", "d": "dismissed"}
    return [Feedback(str(n), kind, names[each], reason, "", AT + n) for n, each in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("feedback", "suggestions"),
    [
        (given("addddd"), ["5 of the last 6 idle_reclaim recommendations were dismissed as too early: consider "
                           "evaluation.idle_window_seconds: 7200 (2 h) instead of 1800 (30 min)"]),
        (given("ddddd", reason="wrong"), ["5 of the last 5 idle_reclaim recommendations were dismissed: look at the "
                                          "reasons"]),
        (given("dddddd", "cooling"), ["6 of the last 6 cooling recommendations were dismissed: look at the reasons"]),
        (given("dddd"), []),  # few
        (given("dddddaa"), []),  # the latest count
        ([*given("ddddd"), Feedback("1", "idle_reclaim", "accepted", "", "", AT + 99)], []),  # a change of mind
        ([], []),
    ],
)  # fmt: skip
def test_suggestions(feedback: list[Feedback], suggestions: list[str]) -> None:
    assert list(suggest(feedback, SETTINGS)) == suggestions


def test_the_latest_verdict_on_a_recommendation_counts() -> None:
    changed = [*given("dd"), Feedback("0", "idle_reclaim", "accepted", "", "", AT + 9)]
    assert count_verdicts(changed) == {("idle_reclaim", "accepted"): 1, ("idle_reclaim", "dismissed"): 1}


def test_feedback_is_shown_and_survives_a_restart(tmp_path: Path) -> None:
    source = FakeSource([ExporterTarget("a:1", [GpuSpec("g0", 0.0), GpuSpec("g1", 0.0, index="1")])])
    advisor = ServiceHarness(tmp_path, source, FakeClock()).after(0)
    service = advisor.service
    context = ApiContext(
        lambda: service.view, lambda: (), service.snooze, clock=lambda: AT, give_feedback=service.give_feedback
    )
    client = create_app(context).test_client()
    (id_,) = advisor.given
    path = f"/recommendations/{id_}/feedback"
    body = {"verdict": "dismissed", "reason": "too early", "by": "ada"}
    made = {**body, "made": "2027-01-15T08:00:00.000Z"}
    assert client.post(path, json=body).get_json() == made
    assert client.get("/recommendations").get_json()["recommendations"][0]["feedback"] == made
    assert 'gpu_advisor_feedback{kind="idle_reclaim",verdict="dismissed"} 1.0' in client.get("/metrics").text
    assert "Dismissed by <bdi>ada</bdi>: <bdi>too early</bdi>" in client.get(f"/page/{id_}").text
    assert client.get("/outcomes").get_json()["suggestions"] == []
    for wrong, status in (({"verdict": "dismissed"}, 422), ({"verdict": "maybe"}, 422), ({}, 422)):
        assert client.post(path, json=wrong).status_code == status
    assert client.post("/recommendations/unknown/feedback", json=body).status_code == 404
    advisor.close()
    again = ServiceHarness(tmp_path, source, advisor.clock).after(0)
    (issued,) = again.service.view.issued
    assert issued.feedback == Feedback(id_, "idle_reclaim", "dismissed", "too early", "ada", AT)
    again.ledger.close()
    assert "disk of state_dir" in client.post(path, json=body).get_json()["detail"]


def test_old_feedback_is_deleted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for each in given("ad"):
        ledger.add_feedback(each)
    ledger.delete_before(AT + 0.5)
    assert [each.verdict for each in ledger.feedback()] == ["dismissed"]
    ledger.close()
