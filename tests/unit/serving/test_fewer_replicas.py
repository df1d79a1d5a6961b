"""Advice to remove replicas: given where they serve, and not where one thing speaks against it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from gpu_advisor.evaluation.serving.diagnosis import diagnose_window
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, make_group

BASE, PER_SEQUENCE, ITL, TTFT = 0.02, 0.0004, 0.06, 1.0
FEWER = {"under_batched", "over_provisioned"}


def step(running: float) -> float:
    return BASE + PER_SEQUENCE * running


def calm(running: float, **changes: float) -> dict[str, float]:
    itl = step(running)
    values = {
        "running": running, "running_max": 1.4 * running, "samples": 20.0, "waiting": 0.0, "waiting_now": 0.0,
        "kv_usage": 0.1, "kv_usage_max": 0.15, "preemption_rate": 0.0, "request_rate": running / itl / 200,
        "ttft_p50": 0.1, "ttft_p90": 0.15, "ttft_p95": 0.2, "itl_p95": 1.02 * itl, "itl_p99": 1.1 * itl,
        "itl_mean": itl, "prompt_tokens": 100.0, "output_tokens": 200.0, "iteration_tokens": running,
        "iteration_rate": 1 / itl, "generation_token_rate": running / itl,
    }  # fmt: skip
    return values | changes


def points(running: float, error: float = 0.0, most: float = 1.5) -> list[CurvePoint]:
    draw = random.Random(1)
    found = []
    for number in range(30):
        load = running * (0.5 + (most - 0.5) * number / 29)
        itl = step(load) * (1 + draw.choice((-1, 1)) * error)
        found.append(CurvePoint(load, load / itl, itl))
    return found


def found(
    replicas: Sequence[dict[str, float]], curve: Sequence[CurvePoint], itl: float = ITL, busiest: float = 1.0
) -> set[str]:
    """`busiest`: the most demand in the history, by that of the window."""
    members = [
        ServingReplica("vllm", "j", f"h{number}:8000", "m", values=values) for number, values in enumerate(replicas)
    ]
    demand = busiest * sum(each["generation_token_rate"] for each in replicas)
    group = replace(
        make_group(members, curve, 1e6, 300.0), demand=(DemandSample(1e6 - 7200, len(replicas), demand, 0.0),)
    )
    return {each.name for each in diagnose_window(group, Objectives(TTFT, itl)).causes} & FEWER


@pytest.mark.parametrize(("replicas", "running", "cause"), [(4, 2.0, "under_batched"), (4, 20.0, "over_provisioned")])
def test_replicas_that_are_not_needed_are_found(replicas: int, running: float, cause: str) -> None:
    assert found([calm(running)] * replicas, points(running)) == {cause}
    assert found([calm(running)] * replicas, points(running), busiest=1.1) == {cause}


def test_between_the_two_causes_there_is_no_gap() -> None:
    """Where four replicas are too many for a load, they are for each smaller one, and exactly one cause says so."""
    causes = [found([calm(running)] * 4, points(running)) for running in np.geomspace(0.5, 20, 60)]
    assert all(len(each) == 1 for each in causes)
    assert [min(each) for each in causes] == sorted((min(each) for each in causes), reverse=True)


@pytest.mark.parametrize("running", [2.0, 20.0])
@pytest.mark.parametrize(
    "found_with",
    [
        lambda running: found([calm(running)], points(running)),
        lambda running: found([calm(running)] * 4, []),
        lambda running: found([calm(running)] * 4, points(running, error=0.3)),
        lambda running: found([calm(running)] * 4, points(running), itl=1.10 * step(running)),
        lambda running: found([calm(running, kv_usage=0.8)] * 4, points(running)),
        lambda running: found([calm(running, ttft_p90=1.2, ttft_p95=1.4)] * 4, points(running)),
        lambda running: found([calm(running, running_max=100 * running + 200)] * 4, points(running)),
        lambda running: found([calm(running, max_num_seqs=1.1 * running)] * 4, points(running)),
        lambda running: found([calm(running, ttft_p95=0.7)] * 4, points(running)),
        lambda running: found([calm(running)] * 4, points(0.2 * running)),
        lambda running: found([calm(running)] * 4, points(running, most=20.0), busiest=15.0),
    ],
    ids=[
        "one",
        "no curve",
        "a curve that errs",
        "latency near",
        "cache fills",
        "late already",
        "peaks",
        "a limit of requests",
        "first tokens near",
        "unseen loads",
        "busier before",
    ],
)
def test_one_thing_against_it_suffices(found_with: Callable[[float], set[str]], running: float) -> None:
    assert found_with(running) == set()


def little_load(most: float, per_prompt_token: float) -> list[CurvePoint]:
    """Points of at most so many requests, with prompts beside them."""
    return [
        CurvePoint(load, load / itl, itl, prompts)
        for load in np.linspace(0.2 * most, most, 6)
        for prompts in ((5.0, 40.0) if per_prompt_token else (0.0,))
        for itl in [step(load) + per_prompt_token * prompts]
    ]


@pytest.mark.parametrize(
    ("most", "per_prompt_token", "expected"),
    [
        (2.5, 2e-5, {"under_batched"}),  # the loads of two replicas are less than three times those seen
        (1.0, 2e-5, {"over_provisioned"}),  # three and a half times: of one fewer
        (1.0, 0.0, set()),  # what a token costs is not known
        (1.0, 6e-3, set()),  # computing the tokens takes too long
        (0.8, 2e-5, set()),
    ],
)
def test_loads_far_beyond_those_seen_cost_the_computation_that_little_load_hides(
    most: float, per_prompt_token: float, expected: set[str]
) -> None:
    assert found([calm(2.0)] * 4, little_load(most, per_prompt_token)) == expected


def test_without_an_exposed_limit_the_usual_one_is_expected() -> None:
    many = points(60.0, most=6.0)
    assert found([calm(60.0, max_num_seqs=1024.0, kv_usage=0.02)] * 4, many, itl=1.0) != set()
    assert found([calm(60.0, kv_usage=0.02)] * 4, many, itl=1.0) == set()


def test_what_a_window_of_few_requests_shows_may_be_too_little() -> None:
    answers = {"output_tokens": 200.0, "request_rate": 2.0 / step(2.0) / 200}
    longer = {"output_tokens": 20_000.0, "request_rate": 2.0 / step(2.0) / 20_000}
    assert found([calm(2.0, **answers)] * 2, points(2.0), itl=1.6 * BASE) == {"under_batched"}
    assert found([calm(2.0, **longer)] * 2, points(2.0), itl=1.6 * BASE) == set()


@pytest.mark.parametrize("signal", ["running", "kv_usage", "output_tokens", "prompt_tokens", "itl_mean"])
def test_nothing_follows_from_missing_data(signal: str) -> None:
    values = {name: value for name, value in calm(2.0).items() if name != signal}
    assert found([values] * 4, points(2.0)) == set()
