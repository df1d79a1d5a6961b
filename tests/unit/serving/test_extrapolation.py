"""Fewer replicas have more load than any has shown: their curve is read on the safe side."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits
from gpu_advisor.evaluation.serving import capacity_advice
from gpu_advisor.evaluation.serving.advice import ServerOptions
from gpu_advisor.evaluation.serving.diagnosis import diagnose_window
from gpu_advisor.evaluation.serving.extrapolation import (
    DEFAULT_LIMIT,
    HIDDEN_TOKENS,
    LEAST_HISTORY_SECONDS,
    MARGIN,
    MOST_BEYOND,
    CautiousCurve,
    cautious_curve,
)
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.sizing import group_work, size_group
from gpu_advisor.evaluation.serving.step_model import StepModel
from gpu_advisor.evaluation.serving.surplus import GROWTH, busiest_window
from gpu_advisor.settings import EvaluationSettings, Settings
from hypothesis import given
from hypothesis import strategies as st

EVALUATION = EvaluationSettings()
AT = 1_795_000_020.0 // EVALUATION.step_seconds * EVALUATION.step_seconds
SHARES, RATIOS = st.floats(0.01, 1.0), st.floats(0.0, 10.0)


@given(
    weights=st.floats(0.004, 0.05), token=st.floats(1e-5, 3e-4), cache=st.floats(0.0, 1e-4), ratio=RATIOS,
    seen_of_knee=SHARES, beyond=st.floats(1.0, 30.0), cached=st.floats(0.0, 0.9),
)  # fmt: skip
def test_a_step_is_never_longer_than_the_cautious_curve_has_it(
    weights: float, token: float, cache: float, ratio: float, seen_of_knee: float, beyond: float, cached: float
) -> None:
    """A server that was seen below the knee of its roofline; of the prompts, some are found in the prefix cache."""
    computed = ratio * (1 - cached)
    knee = weights / token / (1 + computed)
    seen = seen_of_knee * knee
    curve = StepModel(weights, cache, token * (1 - cached), 0.0, seen)
    prefix = {"prefix_query_rate": 1000.0, "prefix_hit_rate": 1000.0 * cached}
    cautious = cautious_curve(curve, [ServingReplica("vllm", "j", "h", values=prefix)], LEAST_HISTORY_SECONDS)
    running = beyond * seen
    real = max(weights, token * running * (1 + computed)) + cache * running
    assert cautious.itl(running, ratio) >= real * (1 - 1e-9)


@given(
    per_sequence=st.floats(1e-6, 1e-3), per_token=st.floats(1e-6, 1e-3), root=st.sampled_from([0.0, 1e-4, 1e-3]),
    ratio=RATIOS, seen=st.floats(1.0, 200.0), itl=st.floats(0.005, 1.0),
)  # fmt: skip
def test_the_most_requests_keep_the_latency_and_are_no_more_than_by_the_curve(
    per_sequence: float, per_token: float, root: float, ratio: float, seen: float, itl: float
) -> None:
    curve = StepModel(0.01, per_sequence, per_token, 0.0, seen, root)
    cautious = CautiousCurve(curve, per_token, math.inf)
    most = cautious.largest(itl, ratio)
    assert most <= curve.largest(itl, ratio)
    if most > 0:
        assert cautious.itl(most, ratio) <= itl * (1 + 1e-9)
    if most > seen:
        assert root or cautious.itl(most, ratio) == pytest.approx(itl)
    within = min(most, seen)
    assert cautious.itl(within, ratio) == curve.itl(within, ratio)


def test_without_the_cost_of_a_token_twice_the_requests_seen_are_expected_or_a_few() -> None:
    replicas = [ServingReplica("vllm", "j", "h")]
    unknown, fitted = StepModel(0.01, 1e-5, 0.0, 0.0, 20.0), StepModel(0.01, 1e-5, 1e-5, 0.0, 20.0)
    assert cautious_curve(unknown, replicas, LEAST_HISTORY_SECONDS).largest(0.05, 1.0) == MOST_BEYOND * 20
    assert cautious_curve(fitted, replicas, LEAST_HISTORY_SECONDS - 60).largest(0.05, 1.0) == MOST_BEYOND * 20
    assert cautious_curve(fitted, replicas, LEAST_HISTORY_SECONDS).largest(0.05, 1.0) > MOST_BEYOND * 20
    few = cautious_curve(replace(unknown, seen=2.0), replicas, LEAST_HISTORY_SECONDS)
    assert few.largest(0.05, 0.0) == HIDDEN_TOKENS
    assert few.largest(0.05, 2.0) == HIDDEN_TOKENS / 3


@pytest.mark.parametrize(
    ("values", "limit"),
    [({}, DEFAULT_LIMIT), ({"running_max": 700.0}, 700.0), ({"running_max": 10.0, "max_num_seqs": 16.0}, 16.0)],
)
def test_no_more_requests_run_than_the_server_takes(values: dict[str, float], limit: float) -> None:
    curve = StepModel(0.01, 1e-9, 1e-9, 0.0, 1000.0)
    replicas = [ServingReplica("vllm", "j", "h", values=values)]
    assert cautious_curve(curve, replicas, LEAST_HISTORY_SECONDS).largest(0.05, 1.0) == limit


@pytest.mark.parametrize(("room", "most"), [(math.inf, 256.0), (100.0, 100.0), (40.0, 40.0)])
def test_near_a_full_cache_less_is_expected_than_its_room(room: float, most: float) -> None:
    curve = StepModel(0.01, 1e-9, 1e-9, 0.0, 50.0)
    found = cautious_curve(curve, [ServingReplica("vllm", "j", "h")], LEAST_HISTORY_SECONDS, room)
    assert found.largest(0.05, 1.0) == pytest.approx(most if most < 50 else 50 + (most - 50) / MARGIN)


def lightly_loaded(replicas: int, running: float = 40.0, token: float = 1.7e-4) -> ServingGroup:
    """Of 40 requests running on each, below the 50 from which on computing tokens takes longer than reading weights."""
    curve = StepModel(0.02, 5e-5, token, 0.002, 48.0)
    itl = curve.itl(running, 1.0)
    values = {"output_tokens": 300.0, "prompt_tokens": 300.0, "running": running, "kv_usage": 0.02, "running_max": 48.0}
    values["request_rate"] = running / itl / 300
    members = tuple(ServingReplica("vllm", "j", f"h{n}:1", "m", values=values) for n in range(replicas))
    tokens = replicas * running / itl
    steps = EVALUATION.history_seconds // EVALUATION.step_seconds
    demand = tuple(
        DemandSample(AT - back * EVALUATION.step_seconds, replicas, tokens, 0.0) for back in reversed(range(steps))
    )
    return ServingGroup(
        "vllm", "m", "", "", members, (CurvePoint(running, running / itl, itl, running),), curve, AT, 300.0, demand
    )  # fmt: skip


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_replicas_that_are_removed_leave_others_that_serve_by_the_roofline(replicas: int) -> None:
    found, objectives = lightly_loaded(replicas), Objectives(1.0, 0.075)
    decided = size_group(found, objectives, ScalingLimits(1, 40, 0.85, 0.60, 120), EVALUATION, AT)
    assert decided is not None
    wanted = decided[0].replicas
    trusting = group_work(found, objectives)
    assert trusting is not None
    demand = found.demand[-1].tokens_per_second
    assert demand / wanted < trusting[0]
    real, running = 0.02, 0.0
    for _ in range(200):  # settles, if it does
        running = demand / wanted * real
        real = 0.003 + max(0.017, 1.7e-4 * 2 * running) + 5e-5 * running
    assert real <= objectives.itl if objectives.itl else False


def test_a_removal_names_the_work_that_it_rests_on() -> None:
    found, objectives = lightly_loaded(8), Objectives(1.0, 0.075)
    decided = size_group(found, objectives, ScalingLimits(1, 40, 0.85, 0.60, 120), EVALUATION, AT)
    works = [group_work(found, objectives, cautious=each) for each in (False, True)]
    assert decided is not None
    assert works[0] is not None
    assert works[1] is not None
    assert decided[0].replicas < 8
    assert works[1][0] < works[0][0]
    assert decided[1] == works[1][0]


@pytest.mark.parametrize(("running", "left"), [(20.0, 1), (30.0, None)])
def test_a_cause_removes_replicas_by_the_same_reading(running: float, left: int | None) -> None:
    """With a fifth more, one replica would do in both cases if its curve were a line."""
    group = lightly_loaded(2, running)
    trusting, demand = group_work(group, Objectives(1.0, 0.075)), group.demand[-1].tokens_per_second
    assert trusting is not None
    assert GROWTH * demand < trusting[0]
    found = diagnose_window(group, Objectives(1.0, 0.075))
    advice = capacity_advice.over_provisioned(found, ServerOptions("vLLM", {}, {}, None))
    assert (None if advice is None else advice.recommended) == left


@given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=40), st.integers(1, 10))
def test_the_busiest_window_is_the_most_mean_of_as_many_steps(tokens: list[float], steps: int) -> None:
    demand = [DemandSample(60.0 * number, 1.0, each, 0.0) for number, each in enumerate(tokens)]
    means = [sum(tokens[end - steps : end]) / steps for end in range(steps + 1, len(tokens) + 1)]
    assert busiest_window(demand, 60.0 * steps) == pytest.approx(max(means, default=0.0), abs=1e-6)


def advice(missing: set[int], busiest: float = 1.0) -> tuple[tuple[Recommendation, ...], tuple[Abstention, ...]]:
    """On four replicas of which half serve the load, without these last steps of the demand, as counted back."""
    curve = [
        CurvePoint(load, load / (0.02 + 4e-4 * load), 0.02 + 4e-4 * load)
        for load in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    ]  # fmt: skip
    itl = 0.02 + 4e-4 * 2
    values = {
        "running": 2.0, "running_max": 3.0, "samples": 20.0, "waiting": 0.0, "waiting_now": 0.0, "kv_usage": 0.1,
        "kv_usage_max": 0.15, "preemption_rate": 0.0, "request_rate": 2 / itl / 200, "ttft_p50": 0.1,
        "ttft_p90": 0.15, "ttft_p95": 0.2, "itl_p95": 1.02 * itl, "itl_p99": 1.1 * itl, "itl_mean": itl,
        "prompt_tokens": 100.0, "output_tokens": 200.0, "generation_token_rate": 2 / itl,
    }  # fmt: skip
    members = tuple(
        ServingReplica("vllm", "j", f"h{n}:1", "m", values=values, before=values, started=0.0) for n in range(4)
    )
    steps = EVALUATION.history_seconds // EVALUATION.step_seconds
    demand = tuple(
        DemandSample(AT - back * 60.0, 4.0, 8 / itl * (busiest if 60 <= back < 70 else 1.0), 0.0)
        for back in reversed(range(steps))
        if back not in missing
    )
    key = GroupKey("vllm", "m")
    serving = ServingFacts(members, histories={key: tuple(curve)}, demand={key: demand})
    settings = Settings.model_validate(
        {"pools": [{"name": "m", "kind": "serving", "slo": {"ttft_p95": "1s", "itl_p95": "60ms"}}]}
    )
    found = decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)
    return found.recommendations, found.abstentions


def test_replicas_go_for_a_cause_only_where_the_demand_of_the_hour_is_known() -> None:
    """What is missing may have been the peak: a few lost scrapes are none, an hour is."""
    whole, _ = advice(set())
    assert [each.kind for each in whole] == ["scale_down"]
    few, why = advice({0, 1, 2})
    assert [each.kind for each in few] == ["serving_replicas"]
    assert any("points" in each.message for each in why)
    assert advice(set(range(3)) | set(range(20, 50)))[0] == ()


def test_replicas_do_not_go_where_an_hour_ago_they_were_needed() -> None:
    assert [each.kind for each in advice({0, 1, 2})[0]] == ["serving_replicas"]
    assert advice({0, 1, 2}, busiest=60.0)[0] == ()
