"""Shares of requests that miss an objective, from quantiles and means; and what a step is made of, from counters."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.features import group_features
from gpu_advisor.evaluation.serving.groups import Objectives, make_group
from gpu_advisor.evaluation.serving.loads import itl_spread, measure_load
from hypothesis import given
from hypothesis import strategies as st


def replica(**values: float) -> ServingReplica:
    return ServingReplica("vllm", "j", "h:8000", "m", values=values)


@given(sigma=st.floats(0.3, 2.5), share=st.floats(0.06, 0.49))
def test_skewed_waits_are_estimated_between_quantiles(sigma: float, share: float) -> None:
    """Log-normal times to the first token, from which a line in plain time errs by up to 0.2."""
    waits = NormalDist(0, sigma)
    quantiles = {f"ttft_p{q}": math.exp(waits.inv_cdf(q / 100)) for q in (50, 90, 95)}
    objective = math.exp(waits.inv_cdf(1 - share))

    missed = measure_load(replica(request_rate=1.0, **quantiles), Objectives(ttft=objective), 300.0).missed
    assert missed == pytest.approx(share, abs=0.06)


@given(share=st.floats(0.06, 0.49))
def test_latencies_of_requests_are_taken_as_published(share: float) -> None:
    """Where a server has a histogram of requests' means, nothing is inferred from the spread of single tokens."""
    means = NormalDist(math.log(0.03), 0.5)
    quantiles = {f"request_itl_p{q}": math.exp(means.inv_cdf(q / 100)) for q in (50, 90, 95)}
    objective = math.exp(means.inv_cdf(1 - share))
    tokens = {"itl_mean": 0.001, "itl_p95": 0.001, "output_tokens": 100.0}
    missed = measure_load(replica(request_rate=1.0, **tokens, **quantiles), Objectives(itl=objective), 300.0).missed
    assert missed == pytest.approx(share, abs=0.06)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_stricter_objective_is_missed_more(one: float, other: float) -> None:
    each = replica(request_rate=1.0, ttft_p50=0.2, ttft_p90=2.0, ttft_p95=2.0)
    strict, lax = (measure_load(each, Objectives(ttft=limit), 300.0).missed for limit in sorted((one, other)))
    assert strict is not None
    assert lax is not None
    assert 0 <= lax <= strict <= 1


@given(st.floats(2, 2000), st.floats(10, 20_000))
def test_short_answers_and_long_prompts_spread_latencies(tokens: float, prompt: float) -> None:
    def spread(tokens: float, prompt: float) -> float:
        return itl_spread(
            replica(itl_mean=0.02, itl_p95=0.05, output_tokens=tokens, prompt_tokens=prompt, iteration_tokens=300.0)
        )

    assert spread(tokens, prompt) >= spread(2 * tokens, prompt)
    assert spread(tokens, prompt) <= spread(tokens, 2 * prompt)


@given(st.floats(1, 10), st.floats(1, 10))
def test_latencies_that_differ_more_spread_more(one: float, other: float) -> None:
    """By the ratio of their 95th percentile to their mean, whatever the mean is."""
    low, high = sorted((one, other))
    for mean in (0.01, 1.0):
        steady, narrow, wide = (
            itl_spread(replica(itl_mean=mean, itl_p95=ratio * mean, output_tokens=100.0)) for ratio in (1, low, high)
        )
        assert steady <= narrow <= wide
    assert wide == pytest.approx(itl_spread(replica(itl_mean=0.01, itl_p95=high * 0.01, output_tokens=100.0)))


@pytest.mark.parametrize("running", [1.0, 50.0, 200.0])
def test_the_share_of_prompts_counts_tokens_not_requests(running: float) -> None:
    """Of the requests running, many still compute their prompts: they generate nothing."""
    each = replica(
        running=running, iteration_tokens=256.0, iteration_rate=10.0, generation_token_rate=64.0, itl_mean=0.1,
        ttft_p50=1.0, request_rate=1.0,
    )  # fmt: skip
    features, _ = group_features(make_group([each], (), 1e6, 300.0), Objectives(1.0, 0.1))
    assert features["prompt_share"] == pytest.approx(1 - 6.4 / 256)
