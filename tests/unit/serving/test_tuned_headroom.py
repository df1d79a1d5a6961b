"""Headroom of language models, tuned to the share of windows that keep their latency objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gpu_advisor.documents.slo import pool_slo
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS, Headroom, TunedHeadroom
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits
from gpu_advisor.evaluation.serving.facts import DemandSample, GroupKey, ServingFacts
from gpu_advisor.evaluation.serving.headroom import group_headroom
from gpu_advisor.observation.serving_day import Demands, ServingDayCache
from gpu_advisor.settings import EvaluationSettings, Settings
from pydantic import ValidationError

from tests.unit.serving.test_situations_of_scaling import AT, LAST, SLO, STEP, WORK, curve, replicas, wanted

KEY = GroupKey("vllm", "llama")
STEPS = READ_SECONDS // STEP


def past(loads: np.ndarray, size: int = 12, limit: float = 1.0) -> tuple[DemandSample, ...]:
    """Loads in replicas' work, the newest last. A window misses its TTFT above `limit` of what there is."""
    worst = [loads[max(0, index - 4) : index + 1].max() for index in range(len(loads))]
    return tuple(
        DemandSample(
            LAST - (len(loads) - 1 - index) * STEP, size, WORK * float(load), 0.0,
            ttft_p95=2.0 if high > limit * size else 0.2, itl_p95=0.04,
        )
        for index, (load, high) in enumerate(zip(loads, worst, strict=True))
    )  # fmt: skip


def bursts(seed: int, steps: int = STEPS) -> np.ndarray:
    """Bursts of some minutes on a level of 4 replicas' work, the last of which is over."""
    random = np.random.default_rng(seed)
    loads = 4 + random.normal(0, 0.1, steps)
    for first in random.integers(0, steps - 30, steps // 60):
        loads[first : first + random.integers(2, 9)] += random.uniform(1, 5)
    return loads


def evaluated(
    demand: tuple[DemandSample, ...], pool: Mapping[str, Any] | None = None, evaluation: Mapping[str, Any] | None = None
) -> Evaluation:
    settings = Settings.model_validate({
        "pools": [{"name": "llama", "kind": "serving", "slo": SLO, "start_delay_seconds": 180,
                   "gpu": {"min": 1, "max": 40}, **(pool or {})}],
        "evaluation": evaluation or {},
    })  # fmt: skip
    load = demand[-1].tokens_per_second if demand else WORK
    members = tuple(sorted(replicas(12, load)))
    # The KV cache is no limit here.
    members = tuple(replace(each, values={**each.values, "kv_usage": 0.001}) for each in members)
    serving = ServingFacts(members, histories={KEY: curve()}, demand={KEY: demand})
    return decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)


def headroom(found: Evaluation) -> Headroom:
    (served,) = found.served
    assert served.pool.headroom is not None
    return served.pool.headroom


def test_it_is_tuned_without_being_asked_and_says_so() -> None:
    found = evaluated(past(bursts(1)))
    tuned = headroom(found)
    assert isinstance(tuned, TunedHeadroom)
    assert (tuned.of_windows, round(tuned.target_ratio, 6)) == (True, 0.01)
    assert tuned.reached_ratio is not None
    assert tuned.reached_ratio <= 0.0101
    (advice,) = (each for each in found.recommendations if each.kind == "scale_down")
    for part in ("tuned to slo.windows 99 %", "of the windows", "Other objectives: 99.", "not covered"):
        assert part in advice.explanation


def test_bursts_need_more_than_calm_and_strict_more_than_lax() -> None:
    sizes = {
        (name, windows): wanted(evaluated(past(loads), {"slo": {**SLO, "windows": windows}})) or 0
        for name, loads in (("calm", 4 + 0.1 * np.sin(np.arange(STEPS) / 9)), ("bursts", bursts(2)))
        for windows in ("95%", "99%", "99.9%")
    }  # fmt: skip
    assert sizes["calm", "99%"] < sizes["bursts", "99%"]
    assert sizes["bursts", "95%"] < sizes["bursts", "99.9%"]


@pytest.mark.parametrize("limit", [0.7, 1.0])
def test_windows_that_missed_correct_the_work_of_a_replica(limit: float) -> None:
    loads = np.repeat(np.random.default_rng(3).uniform(4, 13, STEPS // 5), 5)
    tuned = headroom(evaluated(past(loads, limit=limit)))
    assert tuned.work_ratio == pytest.approx(limit, rel=0.06)


@pytest.mark.parametrize(
    ("pool", "evaluation", "deviations"),
    [
        ({"headroom_deviations": 2.0}, {}, 2.0),
        ({}, {"headroom_deviations": 1.0}, 1.0),  # by hand for all pools
    ],
)
def test_headroom_by_hand_is_not_tuned(pool: dict[str, Any], evaluation: dict[str, Any], deviations: float) -> None:
    found = headroom(evaluated(past(bursts(1)), pool, evaluation))
    assert found == Headroom(deviations)


def test_an_unserved_share_is_of_the_counted_demand() -> None:
    found = headroom(evaluated(past(bursts(1)), {"slo": {**SLO, "unserved": "0.2%"}}))
    assert isinstance(found, TunedHeadroom)
    assert (found.of_windows, found.target_ratio) == (False, 0.002)
    assert found.history_seconds > 80_000


def test_a_new_pool_has_the_default_and_says_what_is_missing() -> None:
    found = evaluated(past(bursts(1, 30)))
    tuned = headroom(found)
    assert isinstance(tuned, TunedHeadroom)
    assert (tuned.deviations, tuned.missing_seconds) == (3.5, 1800)


def test_within_an_hour_the_headroom_stays() -> None:
    """It is a function of the day before the last tuning: what came since changes nothing."""
    loads = bursts(4)
    later = loads.copy()
    later[-3:] = 11.0
    tuned = [headroom(evaluated(past(each))) for each in (loads, later)]
    assert tuned[0] == tuned[1]


def test_a_day_is_replayed_once_an_hour() -> None:
    """Though the curve, and with it the work of a replica, is fitted again at each evaluation."""
    whole = past(bursts(6, STEPS + 10))
    (served,) = evaluated(whole).served
    assert served.group.curve is not None
    limits, evaluation = ScalingLimits(1, 40, 0.85, 0.6, 180), EvaluationSettings()
    first = whole[STEPS - 1].at
    found = set()
    for minute in range(10):
        curve_now = replace(served.group.curve, base=served.group.curve.base * (1 + 1e-5 * minute))
        group = replace(served.group, demand=whole[minute : STEPS + minute], curve=curve_now)
        at = first + minute * STEP
        found.add(group_headroom(group, served.objectives, served.pool.settings, limits, evaluation, at, first % 3600))
    assert len(found) == 1


def test_the_document_is_of_windows() -> None:
    found = evaluated(past(bursts(1)))
    tuned = headroom(found)
    assert isinstance(tuned, TunedHeadroom)
    document = pool_slo(tuned, 2)
    assert (document["unserved_ratio"], document["missed_windows_ratio"]) == (None, tuned.target_ratio)
    assert all(each["unserved_ratio"] is None for each in document["frontier"])
    shares = [each["missed_windows_ratio"] for each in document["frontier"]]
    assert shares == sorted(shares, key=lambda share: share or 0)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"slo": {"ttft_p95": "1s", "windows": "99%"}}, "state it, as in itl_p95: 50ms"),
        ({"slo": {"itl_p95": "50ms", "windows": "99%", "unserved": "1%"}}, "remove one"),
        ({"slo": {"itl_p95": "50ms", "windows": 0.99}}, "did you mean 99%"),
        ({"slo": {"itl_p95": "50ms", "windows": "100%"}}, "90% to 99.9%"),
        ({"slo": {"itl_p95": "50ms", "windows": "most"}}, "write it as in 99%"),
        ({"slo": {"itl_p95": "50ms", "windows": "99%"}, "headroom_deviations": 2}, "slo.windows and headroom"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_fix(pool: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        Settings.model_validate({"pools": [{"name": "llama", "kind": "serving", **pool}]})


# The day's history


def test_each_step_of_the_day_is_read_once() -> None:
    whole = past(bursts(5, 4 * STEPS))
    cache, reads = ServingDayCache(), list[tuple[float, float]]()

    def between(first: float, last: float) -> Demands:
        return {KEY: tuple(each for each in whole if first <= each.at <= last)}

    def read(first: float, last: float) -> Demands:
        reads.append((first, last))
        return between(first, last)

    start = whole[2 * STEPS].at
    for minute in (0, 1, 60, 61):
        last = start + STEP * minute
        first = last - 239 * STEP
        found = cache.extend(between(first, last), read, frozenset({"vllm"}), first, last, STEP)
        assert found == between(last - STEPS * STEP, last)
    assert len(reads) == 1
    for kinds, last in ((frozenset({"vllm", "tgi"}), start + 62 * STEP), (frozenset({"vllm"}), start + 600 * STEP)):
        first = last - 239 * STEP
        assert cache.extend(between(first, last), read, kinds, first, last, STEP) == between(last - STEPS * STEP, last)
    assert len(reads) == 3  # another kind of server; nothing read for ten hours
