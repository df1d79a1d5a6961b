"""A setting that holds a server back comes first; the number of replicas is that for what remains after it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.serving import advisers, recommend, settings_advice
from gpu_advisor.evaluation.serving.decision_table import CAUSES, ServingCause
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis, diagnose_group
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.settings_first import REMEDIED, REPLICAS_FIRST
from gpu_advisor.settings import EvaluationSettings, Settings

EVALUATION = EvaluationSettings()
AT = 1_795_000_020.0 // EVALUATION.step_seconds * EVALUATION.step_seconds


def itl(running: float) -> float:
    return 0.02 + 4e-4 * running


def advice(
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    cache_is_full: bool = False,
    waiting: float = 3000.0,
    growth: float = 0.0,
    pending: bool = False,
) -> dict[str, Recommendation]:
    """For two replicas of which each runs ten requests while others wait, and of which these causes are found: by kind.
    `growth` is by how many requests a queue grows per second."""
    found = tuple(CAUSES[name] for name in names)

    def diagnosed(group: ServingGroup, objectives: Objectives) -> GroupDiagnosis:
        real = diagnose_group(group, objectives)
        features = {**real.features, "ttft_tail": 3.0, "ttft_body": 0.5, "unevenness": 1.8}
        none: tuple[ServingCause, ...] = ()
        causes, only_last = (none, found) if pending else (found, none)
        return replace(real, features=features, causes=causes, pending=only_last)

    monkeypatch.setattr(recommend, "diagnose_group", diagnosed)
    used = 0.9 if cache_is_full else 0.2
    values = {
        "running": 10.0, "running_max": 10.0, "running_p50": 10.0, "samples": 20.0, "waiting": waiting,
        "waiting_now": waiting + 150 * growth, "kv_usage": used, "kv_usage_max": 1.05 * used, "preemption_rate": 0.1,
        "request_rate": 10 / itl(10) / 200, "ttft_p50": 5.0, "ttft_p90": 7.0, "ttft_p95": 8.0,
        "itl_p95": itl(10), "itl_p99": itl(10), "itl_mean": itl(10), "prompt_tokens": 100.0, "output_tokens": 200.0,
        "generation_token_rate": 10 / itl(10),
    }  # fmt: skip
    members = tuple(
        ServingReplica("vllm", "j", f"h{n}:1", "m", values=values, before=values, started=0.0) for n in range(2)
    )
    curve = tuple(CurvePoint(load, load / itl(load), itl(load)) for load in (2.0, 15.0, 30.0, 45.0, 60.0))
    steps = EVALUATION.history_seconds // EVALUATION.step_seconds
    demand = tuple(DemandSample(AT - 60.0 * back, 2.0, 20 / itl(10), 2 * waiting) for back in reversed(range(steps)))
    key = GroupKey("vllm", "m")
    serving = ServingFacts(members, histories={key: curve}, demand={key: demand})
    settings = Settings.model_validate(
        {"pools": [{"name": "m", "kind": "serving", "slo": {"ttft_p95": "1s", "itl_p95": "60ms"}}]}
    )
    decided = decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)
    return {each.kind: each for each in decided.recommendations}


def test_these_are_the_causes_whose_remedy_is_a_setting_or_routing() -> None:
    of_settings = {
        name for name, adviser in advisers._ADVISERS.items() if adviser.__module__ == settings_advice.__name__
    }
    assert REMEDIED.keys() == of_settings - {"prefix_cache_useless"} | {"imbalance"}


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("name", list(REMEDIED))
def test_a_queue_of_a_setting_is_no_demand_for_replicas(
    monkeypatch: pytest.MonkeyPatch, name: str, pending: bool
) -> None:
    full = name == "kv_cache_bound"
    as_it_is = advice(monkeypatch, cache_is_full=full)["scale_up"]
    assert as_it_is.recommended > 4
    changed = advice(monkeypatch, name, cache_is_full=full, pending=pending)
    assert "scale_up" not in changed
    if not pending:
        assert REPLICAS_FIRST in changed[CAUSES[name].kind].rejected


@pytest.mark.parametrize("name", list(REMEDIED))
def test_what_remains_after_the_change_is_sized_and_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each queue grows by four and a half times the requests that its replica serves."""
    growth, full = 4.5 * 10 / itl(10) / 200, name == "kv_cache_bound"
    as_it_is = advice(monkeypatch, cache_is_full=full, growth=growth)
    after = advice(monkeypatch, name, cache_is_full=full, growth=growth)
    found = after["scale_up"]
    assert 2 < found.recommended < as_it_is["scale_up"].recommended
    assert f"after {REMEDIED[name]}" in found.summary
    assert "after" not in as_it_is["scale_up"].summary


def test_a_cause_of_the_load_itself_does_not_keep_replicas_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("decode_bandwidth_bound", "prefix_cache_useless"):
        assert advice(monkeypatch, name)["scale_up"] == advice(monkeypatch)["scale_up"]


def test_replicas_of_a_server_that_a_setting_holds_back_are_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the replicas would serve what is served; how much more is asked for shows after the change."""
    assert "scale_down" in advice(monkeypatch, waiting=0.0)
    assert "scale_down" not in advice(monkeypatch, "batch_limit_bound", waiting=0.0)
