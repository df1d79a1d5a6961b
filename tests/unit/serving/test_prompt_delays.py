"""Requests differ by the prompts computed beside them: fewer replicas have more of these."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.serving.extrapolation import (
    cautious_curve,
    computed_share,
    delay_of_prompt_token,
    prompt_token_seconds,
)
from gpu_advisor.evaluation.serving.facts import DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.prompt_delays import (
    LENGTHS,
    Prompts,
    late_itl,
    running_in_time,
    share_in_time,
    wait_quantile,
)
from gpu_advisor.evaluation.serving.sizing import group_work, shown_work
from gpu_advisor.evaluation.serving.step_model import StepModel
from hypothesis import assume, given
from hypothesis import strategies as st

#: A replica of a 14B model on an A100, of which two prompt tokens in five are found in the prefix cache.
CURVE = StepModel(0.021, 3e-5, 1.19e-4, 0.007, 8.5)
LONG = Prompts(ratio=10.0, tokens=1800.0, token_seconds=1.07e-4, computed=0.58)

RATIOS, SECONDS, COMPUTED = st.floats(0.0, 20.0), st.floats(0.0, 3e-4), st.floats(0.05, 1.0)


def busy_period(work: float, rate: float, lengths: float, mean: float, draw: random.Random) -> float:
    """Seconds until `work` seconds are done, with prompts that arrive meanwhile: of gamma distributed lengths."""
    done, left, shape = 0.0, work, 1 / (lengths - 1)
    while True:
        step = draw.expovariate(rate)
        if step >= left:
            return done + left
        done, left = done + step, left - step + draw.gammavariate(shape, mean / shape)


@pytest.mark.parametrize(("rate", "prompt"), [(1.0, 0.1), (2.0, 0.2), (1.5, 0.35), (8.0, 0.05)])
def test_the_slowest_requests_are_those_of_busy_periods(rate: float, prompt: float) -> None:
    """Of requests that decode for four seconds and differ by the prompts beside them alone."""
    draw, work, tokens = random.Random(1), 4.0, 200.0
    found = sorted(busy_period(work, rate, LENGTHS, prompt, draw) for _ in range(8000))
    mean = work / (1 - rate * prompt)
    curve, running = StepModel(work / tokens, 0.0, prompt / tokens, 0.0, 100.0), rate * mean
    assert curve.itl(running, 1.0) * tokens == pytest.approx(mean)
    assert sum(found) / len(found) == pytest.approx(mean, rel=0.03)
    late, slowest = late_itl(curve, running, Prompts(1.0, tokens, prompt / tokens)) * tokens, found[-len(found) // 100]
    assert slowest <= late * 1.02  # answers of different lengths, which are counted, differ by more than these
    assert late - mean <= 1.25 * (slowest - mean)


@pytest.mark.parametrize(("share", "prompt"), [(0.2, 0.1), (0.5, 0.2), (0.7, 0.05)])
def test_the_longest_waits_are_those_of_a_queue(share: float, prompt: float) -> None:
    draw, shape, wait = random.Random(2), 1 / (LENGTHS - 1), 0.0
    waits = []
    for _ in range(40_000):
        waits.append(wait)
        wait = max(0.0, wait + draw.gammavariate(shape, prompt / shape) - draw.expovariate(share / prompt))
    late = wait_quantile(0.01, share, Prompts(1.0, prompt / 1e-4, 1e-4))
    assert late == pytest.approx(sorted(waits)[-len(waits) // 100], rel=0.2)


@given(running=st.floats(0.1, 300.0), ratio=RATIOS, token=SECONDS, computed=COMPUTED)
def test_late_requests_take_longer_than_the_mean_and_longer_still_with_more_prompts(
    running: float, ratio: float, token: float, computed: float
) -> None:
    curve = StepModel(0.02, 0.0, token, 0.0, 50.0)
    prompts = Prompts(ratio, 1000.0, token, computed)
    late = late_itl(curve, running, prompts)
    assert late >= curve.itl(running, ratio)
    assert late_itl(curve, 1.1 * running, prompts) >= late * (1 - 1e-9)
    assert late_itl(curve, running, replace(prompts, computed=computed / 2)) >= late * (1 - 1e-9)
    assert wait_quantile(0.05, 0.3, prompts) <= wait_quantile(0.01, 0.3, prompts) <= wait_quantile(0.01, 0.4, prompts)


@given(sequence=st.floats(1e-5, 1e-3), running=st.floats(1.0, 50.0))
def test_sequences_that_lengthen_steps_make_requests_differ_as_well(sequence: float, running: float) -> None:
    curve, prompts = StepModel(0.02, sequence, 1e-4, 0.0, 50.0), Prompts(4.0, 1000.0, 1e-4)
    longer = curve.itl(running, 4.0)
    spread = late_itl(curve, running, prompts) / longer
    assert spread > late_itl(StepModel(longer - 4e-4 * running, 0.0, 1e-4, 0.0, 50.0), running, prompts) / longer


@given(
    itl=st.floats(0.021, 0.5), ratio=RATIOS, token=SECONDS, computed=COMPUTED, sequence=st.floats(0.0, 1e-3),
    room=st.floats(0.01, 5.0),
)  # fmt: skip
def test_the_most_in_time_keep_the_objective_and_one_percent_more_do_not(
    itl: float, ratio: float, token: float, computed: float, sequence: float, room: float
) -> None:
    curve, prompts = StepModel(0.02, sequence, token, 0.0, 50.0), Prompts(ratio, 1000.0, token, computed)
    most, by_mean = running_in_time(curve, itl, prompts), curve.largest(itl, ratio)
    assert most <= by_mean
    assume(1e-3 < most < math.inf)
    assert late_itl(curve, most, prompts) <= itl * (1 + 1e-9)
    assert most == by_mean or late_itl(curve, 1.01 * most, prompts) > itl
    share = share_in_time(room, 0.0, 0.0, prompts, 0.7)
    assert wait_quantile(0.01, share, prompts) <= room * (1 + 1e-9)
    assert share == 0.7 or wait_quantile(0.01, 1.01 * share, prompts) > room


@given(now=st.floats(0.0, 0.6), first=st.floats(0.05, 2.0), token=st.floats(1e-5, 3e-4))
def test_first_tokens_wait_no_less_with_more_prompts_than_they_do_now(now: float, first: float, token: float) -> None:
    prompts = Prompts(5.0, 2000.0, token)
    share = share_in_time(first, first, now, prompts, 0.7)
    assert share <= max(now, 0.05) + 1e-9  # an objective that is just kept has no room
    assert share_in_time(2 * first, first, now, prompts, 0.7) >= share


def test_what_bounds_nothing_is_not_searched() -> None:
    flat = StepModel(0.02, 0.0, 0.0, 0.0, 50.0)
    assert running_in_time(flat, 0.05, Prompts(1.0, 100.0, 0.0)) == math.inf
    assert late_itl(flat, 10.0, Prompts(1.0, 100.0, 0.0)) == 0.02
    assert late_itl(flat, 10.0, Prompts(1.0, 100.0, 0.01)) == math.inf  # prompts that take more than all of the time
    assert wait_quantile(0.01, 1.0, LONG) == math.inf
    assert Prompts(1.0, 100.0, 1e-4, 0.0).lengths == 1.0


def test_of_two_replicas_with_long_prompts_one_is_not_enough_though_its_mean_is() -> None:
    """One alone keeps 50 ms for 86 to 98 % of the requests, by what the simulator draws; most 5-minute windows miss."""
    values = {
        "running": 4.4, "running_max": 9.0, "kv_usage": 0.043, "output_tokens": 176.0, "prompt_tokens": 1800.0,
        "prefix_query_rate": 1590.0, "prefix_hit_rate": 670.0, "prefill_seconds": 0.193, "ttft_p95": 0.56,
        "request_rate": 0.885, "generation_token_rate": 156.0,
    }  # fmt: skip
    members = tuple(ServingReplica("vllm", "j", f"h{n}:1", "m", values=values) for n in range(2))
    history = tuple(DemandSample(60.0 * n, 2, 312.0, 0.0) for n in range(240))
    group = ServingGroup("vllm", "m", "", "", members, (), CURVE, history[-1].at, 300.0, history)
    by_mean, in_time = (group_work(group, Objectives(3.0, 0.05), cautious=each) for each in (False, True))
    assert by_mean is not None
    assert in_time is not None
    assert in_time[0] < 312 < by_mean[0]


def test_an_unknown_token_rate_is_not_taken_for_an_idle_replica() -> None:
    """Of two replicas one does not report it: that is no replica without requests."""
    values = {"output_tokens": 180.0, "prompt_tokens": 1800.0, "ttft_p95": 0.5, "running": 2.0, "kv_usage": 0.02}
    known = ServingReplica("vllm", "j", "h:1", "m", values={**values, "generation_token_rate": 120.0})
    silent = replace(known, instance="h:2", values=values)

    def work(*replicas: ServingReplica) -> float:
        found = ServingGroup("vllm", "m", "", "", replicas, (), CURVE, 0.0, 300.0)
        tokens = group_work(found, Objectives(0.6, 0.05), cautious=True)
        assert tokens is not None
        return tokens[0]

    assert work(known, silent) == pytest.approx(work(known, known))
    assert work(silent, silent) < work(known, known)


@pytest.mark.parametrize(("ttft", "now", "binds"), [(3.0, 0.5, False), (0.6, 0.5, True), (0.5, 0.6, None)])
def test_first_tokens_that_wait_for_more_prompts_keep_their_objective(
    ttft: float, now: float, binds: bool | None
) -> None:
    values = {"output_tokens": 180.0, "prompt_tokens": 1800.0, "ttft_p95": now, "running": 2.0, "kv_usage": 0.02}
    members = tuple(ServingReplica("vllm", "j", f"h{n}:1", "m", values=values) for n in range(2))
    group = ServingGroup("vllm", "m", "", "", members, (), CURVE, 0.0, 300.0)
    free, bound = (group_work(group, Objectives(each, 0.05), cautious=True) for each in (None, ttft))
    assert free is not None
    assert (None if bound is None else bound[0] < free[0]) is binds


def test_first_tokens_that_nobody_reports_take_as_long_as_their_prompts() -> None:
    values = {"output_tokens": 180.0, "prompt_tokens": 1800.0, "running": 2.0, "kv_usage": 0.02}
    prompt = CURVE.per_prompt_token * 1800
    reported, unknown = (
        ServingGroup(
            "vllm", "m", "", "", (ServingReplica("vllm", "j", "h:1", "m", values=each),), (), CURVE, 0.0, 300.0
        )
        for each in ({**values, "ttft_p95": prompt}, values)
    )
    for ttft in (2.0, 0.6, 0.2):
        works = [group_work(each, Objectives(ttft, 0.05), cautious=True) for each in (reported, unknown)]
        assert works[0] == works[1]
        assert (works[0] is None) is (ttft < prompt)


def test_a_shared_prefix_leaves_prompts_of_more_different_lengths() -> None:
    whole, shared = (late_itl(CURVE, 11.0, replace(LONG, computed=each)) for each in (1.0, 0.58))
    mean = CURVE.itl(11.0, LONG.ratio)
    assert shared - mean > 1.1 * (whole - mean)


@pytest.mark.parametrize(
    ("values", "share", "seconds"),
    [
        ({}, 1.0, 1.19e-4),
        ({"prefill_seconds": 0.18, "prompt_tokens": 1800.0}, 1.0, 1e-4),
        ({"prefill_seconds": 0.36, "prompt_tokens": 1800.0}, 1.0, 1.19e-4),
        ({"prefill_seconds": 0.18, "prefix_query_rate": 1500.0, "prefix_hit_rate": 600.0}, 0.6, 1.19e-4),
        ({"prefix_query_rate": 0.0, "prefix_hit_rate": 0.0}, 1.0, 1.19e-4),
    ],
)
def test_a_prompt_takes_no_longer_than_its_prefill(values: dict[str, float], share: float, seconds: float) -> None:
    replicas = [ServingReplica("vllm", "j", "h:1", values=values), ServingReplica("vllm", "j", "h:2", values=values)]
    assert computed_share(replicas) == pytest.approx(share)
    assert prompt_token_seconds(CURVE, replicas) == pytest.approx(seconds)
    known = cautious_curve(CURVE, replicas, 7200.0)
    assert known.per_token == pytest.approx(seconds / share)
    assert delay_of_prompt_token(CURVE, replicas, 1800.0) >= seconds * (1 - 1e-9)


def test_a_prompt_of_several_steps_delays_others_by_all_that_they_read() -> None:
    """Ten steps of 50 ms, of which 28 add to what decoding takes anyway."""
    values = {"prefill_seconds": 0.5, "prompt_tokens": 5200.0}
    curve = StepModel(0.026, 6e-4, 5.4e-5, 0.007, 5.0)
    replicas = [ServingReplica("vllm", "j", "h:1", values=values)]
    assert prompt_token_seconds(curve, replicas) * 5200 == pytest.approx(0.28, abs=0.01)
    assert delay_of_prompt_token(curve, replicas, 5200.0) * 5200 == pytest.approx(0.474)


@pytest.mark.parametrize(
    ("busiest", "trusted"), [(156.0, None), (350.0, 1.0), (4000.0, math.inf)], ids=["half", "more", "all"]
)
def test_a_load_that_a_window_has_shown_is_no_extrapolation(busiest: float, trusted: float | None) -> None:
    """Less what its number of requests may be off by: of the load shown, or of all that the curve promises."""
    values = {"output_tokens": 176.0, "prompt_tokens": 1800.0, "running": 4.4, "kv_usage": 0.04, "ttft_p95": 0.5}
    members = tuple(ServingReplica("vllm", "j", f"h{n}:1", "m", values=values) for n in range(2))
    tokens = [busiest if 100 <= n < 106 else 156.0 for n in range(240)]
    history = tuple(DemandSample(60.0 * n, 2, 2 * each, 0.0) for n, each in enumerate(tokens))
    group = ServingGroup("vllm", "m", "", "", members, (), CURVE, history[-1].at, 300.0, history)
    calm = replace(group, demand=history[:90], at=history[89].at)
    plain, read, before = (
        group_work(one, Objectives(3.0, 0.05), cautious=each)
        for one, each in ((group, False), (group, True), (calm, True))
    )
    assert plain is not None
    assert read is not None
    assert before is not None
    assert read[0] <= plain[0]
    if trusted is None:
        assert read[0] == before[0]
    else:
        assert before[0] < read[0] <= max(before[0], min(trusted * busiest, plain[0]))
    assert shown_work(replace(group, demand=()), 176.0) == 0.0
    assert shown_work(group, 176.0) < busiest
