"""Replicas of a language model for its objectives: work per replica, demand, and the size that follows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.sizing import group_work, mean_below, size_group, work_per_replica
from gpu_advisor.evaluation.serving.step_model import StepModel
from gpu_advisor.settings import EvaluationSettings
from hypothesis import given
from hypothesis import strategies as st

CURVE = StepModel(0.01, 0.0005, 0.0, 0.01, 64)
EVALUATION = EvaluationSettings()
AT = 1_795_000_020.0
OBJECTIVES = Objectives(1.0, 0.05)


def group(replicas: int, tokens_per_second: float, waiting: float = 0.0) -> ServingGroup:
    values = {"output_tokens": 200.0, "prompt_tokens": 100.0, "running": 10.0, "kv_usage": 0.05}
    members = tuple(ServingReplica("vllm", "j", f"h{n}:1", "m", values=values) for n in range(replicas))
    steps = EVALUATION.history_seconds // EVALUATION.step_seconds
    last = AT // EVALUATION.step_seconds * EVALUATION.step_seconds
    demand = tuple(
        DemandSample(last - back * EVALUATION.step_seconds, replicas, tokens_per_second, waiting)
        for back in reversed(range(steps))
    )
    point = CurvePoint(10, 500, 0.015)
    return ServingGroup("vllm", "m", "", "", members, (point,), CURVE, AT, 300.0, demand)


def with_last_steps(found: ServingGroup, tokens_per_second: float, steps: int, output_tokens: float) -> ServingGroup:
    """The same with another demand in the last steps, and answers of this length."""
    before, last = found.demand[:-steps], found.demand[-steps:]
    demand = (*before, *(replace(each, tokens_per_second=tokens_per_second) for each in last))
    members = tuple(replace(each, values={**each.values, "output_tokens": output_tokens}) for each in found.replicas)
    return replace(found, demand=demand, replicas=members)


def size(found: ServingGroup, most: int = 40) -> int:
    limits = ScalingLimits(1, most, 0.85, 0.60, 120)
    decided = size_group(found, OBJECTIVES, limits, EVALUATION, found.demand[-1].at)
    assert decided is not None
    return decided[0].replicas


@given(st.floats(1.0, 1e4))
def test_the_95th_percentile_of_the_mean_is_the_limit(most: float) -> None:
    mean = mean_below(most)
    assert 0 <= mean < most
    assert mean + 1.645 * math.sqrt(mean) == pytest.approx(most, rel=1e-6)


def test_work_is_what_the_curve_gives_within_the_objective() -> None:
    mean = mean_below(80)  # 0.01 + 80 x 0.0005 = 0.05
    assert work_per_replica(CURVE, 0.05, 0.0) == pytest.approx(mean / (0.01 + 0.0005 * mean))
    cached = work_per_replica(CURVE, 0.05, 0.0, running_for_full_cache=20)
    assert cached == pytest.approx(mean_below(18) / (0.01 + 0.0005 * mean_below(18)))
    assert work_per_replica(CURVE, 0.01, 0.0) is None


@given(st.integers(1, 30), st.floats(0.05, 20))
def test_size_follows_demand_and_never_falls_with_it(replicas: int, demand: float) -> None:
    found = group_work(group(1, 1.0), OBJECTIVES)
    assert found is not None
    work = found[0]
    one, more = size(group(replicas, demand * work)), size(group(replicas, 1.3 * demand * work))
    assert one <= more
    assert one >= min(replicas, math.floor(demand))


def test_waiting_requests_are_demand() -> None:
    assert size(group(4, 4000.0, waiting=2000.0)) > size(group(4, 4000.0))


def test_without_the_curve_or_an_objective_nothing_is_sized() -> None:
    limits = ScalingLimits(1, 9, 0.85, 0.6)
    assert size_group(group(2, 100.0), Objectives(1.0, None), limits, EVALUATION, AT) is None


def test_a_busy_group_follows_its_last_step_and_one_with_few_requests_the_mean() -> None:
    work = group_work(group(1, 1.0), OBJECTIVES)
    assert work is not None
    calm = group(10, 5 * work[0])

    assert size(with_last_steps(calm, 12 * work[0], 2, output_tokens=200)) >= 12
    busy, few = (with_last_steps(calm, 9 * work[0], 2, output_tokens=each) for each in (200, 200_000))
    assert size(busy) > size(few)
