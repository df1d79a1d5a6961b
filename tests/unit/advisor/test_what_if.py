"""Other settings over the same facts: the same code decides, and nothing is kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flask.testing import FlaskClient
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.what_if import WhatIfError, apply_changes
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, GpuSpec, concluded

CHOSEN = Settings.model_validate(
    {
        "pools": [
            {"name": "chat", "kind": "serving", "match": {"node": "s"}, "gpu": {"min": 1, "max": 4}},
            {"name": "rest", "kind": "training", "match": {"node": "r"}},
        ],
        "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2}, "budget_per_hour": 100},
        "alertmanagers": [{"url": "http://a", "username": "u", "password": "secret"}],
    }
)
HISTORY = tuple((AT - 60 * step, 0.95) for step in reversed(range(16)))
GPUS = [
    *(GpuSpec(f"GPU-s{n}", 0.95, node="s", trail=HISTORY) for n in range(4)),
    *(GpuSpec(f"GPU-r{n}", 0.0, node="r") for n in range(3)),
]


@pytest.fixture(scope="module")
def view() -> View:
    evaluation = concluded(GPUS, CHOSEN)
    issued = tuple(PublishedRecommendation(each.id("default"), AT, each) for each in evaluation.recommendations)
    return View("default", SourceStatus("fake", "memory", True, last_success=AT), evaluation, issued)


@pytest.fixture(scope="module")
def client(view: View) -> FlaskClient:
    return create_app(ApiContext(lambda: view, lambda: (), lambda _id, _snooze: None, CHOSEN)).test_client()


def asked(client: FlaskClient, changes: Any) -> dict[str, Any]:
    answer = client.post("/what-if", json=changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def test_a_higher_limit_begins_advice_and_a_higher_minimum_ends_it(client: FlaskClient, view: View) -> None:
    before = client.get("/recommendations").data
    answer = asked(client, {"pools": {"chat": {"gpu": {"max": 8}}, "rest": {"gpu": {"min": 3}}}})
    then = {each["id"]: each for each in answer["then"]}
    now = {each["id"]: each for each in answer["now"]}
    [begins], [ends] = answer["difference"]["begins"], answer["difference"]["ends"]
    assert (then[begins]["kind"], now[ends]["kind"]) == ("scale_up", "idle_reclaim")
    pools = {each["name"]: each for each in answer["pools"]}
    assert pools["chat"]["desired_now"] in (4, None)
    assert pools["chat"]["desired_then"] > 4
    assert "only serving pools are sized" in pools["rest"]["cannot_tell"]
    assert client.get("/recommendations").data == before  # nothing is kept


def test_nothing_scales_on_stale_data(view: View) -> None:
    stale = dataclasses.replace(view, overdue=True)
    client = create_app(ApiContext(lambda: stale, lambda: (), lambda _id, _snooze: None, CHOSEN)).test_client()
    chat = next(each for each in asked(client, {"pools": {"chat": {"gpu": {"max": 8}}}})["pools"] if each["sized"])
    assert (chat["desired_now"], chat["desired_then"]) == (None, None)
    assert "stale" in chat["cannot_tell"]


def test_prices_and_targets(client: FlaskClient) -> None:
    answer = asked(client, {"cost": {"budget_per_hour": 1}, "resources": {"memory": {"target_usage": 50}}})
    assert answer["checks_then"] != answer["checks_now"]
    dearer = asked(client, {"cost": {"gpu_price_per_hour": {"NVIDIA H100": 4}}})
    changes = [
        {each["kind"]: each["projection"]["cost_change_per_hour"] for each in dearer[when]} for when in ("now", "then")
    ]
    assert changes[1] == {kind: 2 * cost for kind, cost in changes[0].items()}


def test_without_changes_nothing_is_different(client: FlaskClient) -> None:
    answer = asked(client, {})
    assert answer["now"] == answer["then"]
    assert answer["difference"] == {"begins": [], "ends": [], "changes": []}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"source": {}}, "/source", "resources, cost, pools"),
        ({"resources": {"gpu": {"mni": 1}}}, "/resources/gpu/mni", ""),
        ({"resources": {"gpu": {"min": 9, "max": 8}}}, "/resources/gpu", "make max at least 9"),
        ({"resources": {"gpu": {"min": "2"}}}, "/resources/gpu/min", "integer"),
        ({"resources": []}, "/resources", "object"),
        ({"cost": {"gpu_price_per_hour": {"a/b~c": 0}}}, "/cost/gpu_price_per_hour/a~1b~0c", "greater than 0"),
        ({"pools": {"chit": {}}}, "/pools/chit", "did you mean chat?"),
        ({"pools": {"chat": {"match": {}}}}, "/pools/chat/match", "gpu, gpus_per_replica"),
        ({"pools": {"chat": {"gpus_per_replica": 5}}}, "/pools/chat", "is below gpus_per_replica"),
        ({"pools": {"chat": None}}, "/pools/chat", "object"),
        ({"pools": {"rest": {"gpu": {"target_utilization": 101}}}}, "/pools/rest/gpu/target_utilization", "100"),
    ],
)
def test_what_cannot_be_is_refused_with_the_place(client: FlaskClient, changes: Any, pointer: str, words: str) -> None:
    answer = client.post("/what-if", json=changes)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    (error,) = answer.get_json()["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]
    assert "secret" not in answer.text


def test_before_anything_is_known(view: View) -> None:
    empty = View("default", SourceStatus("fake", "memory", False, "not_yet", "wait"))
    client = create_app(ApiContext(lambda: empty, lambda: (), lambda _id, _snooze: None, CHOSEN)).test_client()
    assert client.post("/what-if", json={}).status_code == 503


@given(st.integers(1, 6), st.integers(1, 12), st.floats(61, 85))
def test_the_answer_is_the_engines_with_these_settings(least: int, most: int, up: float) -> None:
    least, most = sorted((least, most))
    limits = {"min": least, "max": most, "scale_up_threshold": up}
    other = apply_changes(CHOSEN, {"pools": {"chat": {"gpu": limits}}})
    written = CHOSEN.model_copy(
        update={"pools": [CHOSEN.pools[0].model_copy(update={"gpu": other.pools[0].gpu}), CHOSEN.pools[1]]}
    )
    assert other == written
    facts = concluded(GPUS, CHOSEN).facts
    assert decide(facts, other) == decide(facts, written)
    assert other.pools[0].gpu is not None
    assert (other.pools[0].gpu.min, other.pools[0].gpu.max) == (least, most)


@pytest.mark.parametrize("change", [{"min": 2}, {"target_utilization": 90}])
def test_a_pool_with_one_limit_of_its_own_has_the_others_as_changed(change: dict[str, Any]) -> None:
    globally = {"target_utilization": 80, "scale_up_threshold": 75, "max": 9}
    other = apply_changes(CHOSEN, {"resources": {"gpu": globally}, "pools": {"rest": {"gpu": change}}})
    found = other.pools[1].gpu
    assert found is not None
    assert found.model_dump() == {**other.resources.gpu.model_dump(), **change}


def test_all_problems_are_reported_at_once() -> None:
    limits = {"min": 9, "max": 8}
    with pytest.raises(WhatIfError) as error:
        apply_changes(
            CHOSEN,
            {"resources": {"gpu": {**limits, "scale_up_threshold": 99}}, "pools": {"chat": {"gpu": limits}}},
        )
    (first, words), (second, _) = error.value.problems
    assert (first, second) == (("resources", "gpu"), ("pools", "chat", "gpu"))
    assert "make max at least 9" in words
    assert "scale_up_threshold (99)" in words


def test_settings_are_not_touched() -> None:
    before = CHOSEN.model_copy(deep=True)
    with pytest.raises(WhatIfError):
        apply_changes(CHOSEN, {"resources": {"gpu": {"min": 99, "max": 98}}})
    apply_changes(CHOSEN, {"resources": {"gpu": {"max": 99}}})
    assert before == CHOSEN
