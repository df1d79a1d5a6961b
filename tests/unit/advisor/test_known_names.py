"""A filter's name that is not known is an error with a hint, in the API and so in every command that uses it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.backtest.recorded_demand import find_serving_pool
from gpu_advisor.backtest.trace import TraceError
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.what_if import WhatIfError, apply_changes
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app

from tests.unit.advisor.builders import AT, GpuSpec, facts

SETTINGS = Settings.model_validate(
    {"pools": [{"name": "chat", "kind": "serving", "match": {"node": "chat-.*"}}, {"name": "batch", "match": {}}]}
)
FACTS = facts([GpuSpec("g0", 0.0, node="node-a"), GpuSpec("g1", 0.0, node="node-a", index="1")], SETTINGS)
OWNER = GpuOwner(namespace="team-a", pod="work-1", started=AT - 86400)
EVALUATION = decide(replace(FACTS, owners={"g0": (OWNER,)}), SETTINGS)
VIEW = View(
    "c",
    SourceStatus("fake", "memory", True),
    EVALUATION,
    tuple(PublishedRecommendation(each.id("c"), AT, each) for each in EVALUATION.recommendations),
)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/recommendations?kind=idle_reclam", "did you mean idle_reclaim?"),
        ("/recommendations?kind=idle_reclaim", ""),
        ("/recommendations?pool=chaat", "did you mean chat?"),
        ("/recommendations?pool=chat", ""),  # known, and empty
        ("/recommendations?node=node-b", "did you mean node-a?"),
        ("/recommendations?node=node-a", ""),
        ("/recommendations?job=work-2", "did you mean work-1?"),
        ("/recommendations?job=work-1", ""),
        ("/recommendations?job=team-a/work-1", ""),
        ("/recommendations?kind=x&format=csv", "no such kind; there are "),
        ("/checks?item=gpu_utilisation", "did you mean gpu_utilization?"),
        ("/checks?item=gpu_utilization", ""),
        ("/outcomes?kind=idle", "no such kind"),
        ("/outcomes?pool=batsh", "did you mean batch?"),
    ],
)
@pytest.mark.parametrize("evaluated", [True, False])
def test_filters_of_the_api(path: str, words: str, evaluated: bool) -> None:
    view = VIEW if evaluated else replace(VIEW, evaluation=None, issued=())
    answer = create_app(ApiContext(lambda: view, lambda: (), lambda _id, _snooze: None)).test_client().get(path)
    if words and (evaluated or "kind=" in path):
        assert answer.status_code == 400
        assert words in answer.get_json()["detail"]
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize("name", ["work-1", "team-a/work-1", "pod team-a/work-1"])
def test_recommendations_of_an_owner_are_those_for_its_gpus(name: str) -> None:
    context = ApiContext(lambda: VIEW, lambda: (), lambda _id, _snooze: None)
    answer = create_app(context).test_client().get("/recommendations", query_string={"job": name})
    kinds = {each["kind"] for each in answer.get_json()["recommendations"]}
    assert kinds == {each.kind for each in EVALUATION.recommendations if "g0" in each.gpus} != set()


def test_pools_of_what_if_and_backtest() -> None:
    with pytest.raises(WhatIfError, match=r"no such pool; did you mean chat\?"):
        apply_changes(SETTINGS, {"pools": {"chaat": {"gpu": {"max": 4}}}})
    for wrong in ("chaat", "batch"):  # batch is no serving pool
        with pytest.raises(TraceError, match=r"no such serving pool in the settings; .*chat"):
            find_serving_pool(SETTINGS, wrong)
    with pytest.raises(TraceError, match="there is none: add one under pools"):
        find_serving_pool(Settings(), "chat")


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("chaat", ["chat"], "; did you mean chat?"),
        ("zzz", ["b", "a"], "; there are a, b"),
        ("zzz", [f"p{n:02d}" for n in range(25)], ", p19, ..."),
        ("zzz", [], ""),
    ],
)
def test_hints(name: str, known: list[str], words: str) -> None:
    assert hint(name, known).endswith(words)
