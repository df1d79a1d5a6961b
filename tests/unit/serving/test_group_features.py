"""What is counted and compared of a group of replicas, at its edges."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.serving.advice import span_of_loads
from gpu_advisor.evaluation.serving.capacity_advice import replicas_for
from gpu_advisor.evaluation.serving.facts import DemandSample
from gpu_advisor.evaluation.serving.features import LATE_RATIO, LONGEST_START_SECONDS, group_features
from gpu_advisor.evaluation.serving.groups import Objectives, make_group
from gpu_advisor.evaluation.serving.settings_advice import prefill

from tests.unit.serving.test_advice import AT, BATCH_LIMIT, CALM, diagnosed, options, text_of
from tests.unit.serving.test_missed_requests import replica

WINDOW = 300.0


@pytest.mark.parametrize(
    ("samples", "started", "counts"),
    [
        (20.0, AT - 60, False),  # its page is as old as the other's
        (10.0, AT - 60, True),
        (10.0, None, True),
        (10.0, AT - WINDOW - LONGEST_START_SECONDS + 1, True),  # it loaded its model for nearly an hour
        (10.0, AT - WINDOW - LONGEST_START_SECONDS, False),  # an old process, not scraped for a while
        (20.0 * (1 - LATE_RATIO), AT - 60, True),
        (20.0 * (1 - LATE_RATIO) + 0.1, AT - 60, False),
        (None, AT - 60, False),
    ],
)
def test_a_replica_that_began_in_the_window(samples: float | None, started: float | None, counts: bool) -> None:
    values = {name: value for name, value in {**CALM, "samples": samples}.items() if value is not None}
    young = replace(replica(**values), instance="young:1", started=started)
    group = make_group([replica(**CALM), young], (), AT, WINDOW)
    assert group_features(group, Objectives())[0]["started"] == float(counts)


@pytest.mark.parametrize(
    ("ttft_p95", "itl_p95", "missed"),
    [
        (1.0, 0.05, False),  # exactly met
        (1.01, 0.05, True),
        (1.0, 0.051, True),
        (None, 0.05, False),
        (1.01, None, True),
        (None, None, None),
    ],
)
def test_a_window_misses_what_is_above_its_objective(
    ttft_p95: float | None, itl_p95: float | None, missed: bool | None
) -> None:
    sample = DemandSample(AT, 1.0, 100.0, 0.0, ttft_p95, itl_p95)
    assert sample.misses(1.0, 0.05) is missed
    assert sample.misses(None, None) is None


def test_the_span_of_loads_is_the_most_by_the_least() -> None:
    assert span_of_loads(diagnosed(BATCH_LIMIT, loads=(4, 2, 8))) == pytest.approx(4)
    assert span_of_loads(diagnosed(BATCH_LIMIT, loads=(0.5,))) == pytest.approx(1)
    assert span_of_loads(diagnosed(BATCH_LIMIT)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("stalls", "stall", "smaller"),
    [(1.2, None, True), (1.1, None, False), (None, None, False), (1.1, 0.6, True), (None, 0.4, False)],
)
def test_prompts_that_stall_answers_are_cut_smaller(stalls: float | None, stall: float | None, smaller: bool) -> None:
    found = diagnosed(CALM)
    found = replace(found, features={**found.features, "stalls": stalls, "itl_stall": stall})
    advice = prefill(found, options())
    assert advice is not None
    assert ("smaller parts of prompts" in text_of(advice), "more prompt tokens in a step" in text_of(advice)) == (
        smaller, not smaller,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, 2),  # 800 tokens/s; within 90 % of 0.05 s a replica makes 778: 35 sequences of 0.01 s + 1 ms each
        ({"request_rate": 0.0, "output_tokens": None}, 1),  # nothing finished on the second
        ({"request_rate": None}, None),
        ({"output_tokens": None}, None),
    ],
)
def test_replicas_for_a_load_that_is_known_of_each(changes: dict[str, float | None], needed: int | None) -> None:
    second = {name: value for name, value in {**CALM, **changes}.items() if value is not None}
    found = diagnosed(CALM, second, loads=(4, 8, 16, 24))
    assert replicas_for(found) == needed
