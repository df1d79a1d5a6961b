"""GPU-hours: added up as an independent count of single steps adds them up, and never from what is missing."""

from __future__ import annotations

from dataclasses import replace
from math import isclose

import pytest
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.report.period import DAY, HOUR, MAX_GPU_STEPS, report_period
from gpu_advisor.report.usage import cost, gpu_hour_usage, total, trends
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.builders import PERIOD, PRICE_SETTINGS, GpuHistorySpec, cards, history_of, report_of, steady_gpu

STEP_HOURS = 0.5


@given(cards())
def test_hours_are_those_of_the_single_steps(found: list[GpuHistorySpec]) -> None:
    past = history_of(found)
    for card, gpu in zip(found, past.gpus, strict=True):
        seen = busy = held = idle = 0.0
        for index, mean in card.utilization.items():
            share = min(1.0, card.coverage[index])
            seen += share * STEP_HOURS
            busy += mean * share * STEP_HOURS
            holds = card.memory.get(index, 0) > 0.05
            held += share * STEP_HOURS * holds
            idle += share * STEP_HOURS * (holds and mean < 0.01 and card.coverage[index] >= 0.9)
        reported = gpu_hour_usage(past, gpu)
        assert (reported.observed, reported.busy) == pytest.approx((seen, busy))
        assert reported.unused == pytest.approx(seen - busy, abs=1e-9)
        if any(index in card.memory for index in card.utilization):
            assert (reported.memory_allocated, reported.idle_allocated) == pytest.approx((held, idle))
        else:
            assert reported.memory_allocated is None
            assert reported.idle_allocated is None
        assert reported.observed + reported.unobserved == pytest.approx(reported.present, abs=1e-9)
        assert reported.busy <= reported.observed + 1e-9 <= reported.present + 2e-9


@given(cards(), st.data())
def test_what_is_missing_is_in_no_sum(found: list[GpuHistorySpec], data: st.DataObject) -> None:
    """Taking readings away makes no sum larger: neither use nor waste is made up."""
    fewer = [
        replace(card, utilization={i: value for i, value in card.utilization.items() if data.draw(st.booleans())})
        for card in found
    ]
    before, after = (
        total([gpu_hour_usage(past, gpu) for gpu in past.gpus]) for past in (history_of(found), history_of(fewer))
    )
    for name in ("observed", "busy", "unused", "memory_allocated", "idle_allocated", "present"):
        assert (getattr(after, name) or 0.0) <= (getattr(before, name) or 0.0) + 1e-9, name


@given(cards())
def test_pools_and_models_add_up_to_the_fleet(found: list[GpuHistorySpec]) -> None:
    reported = report_of(found, PRICE_SETTINGS)
    if not found:
        assert reported["groups"] == []
        return
    fleet, *pools = reported["groups"]
    for name in ("present", "observed", "busy", "unused"):
        of_fleet = fleet["gpu_hours"][name]
        for parts in (pools, reported["models"]):
            assert sum(part["gpu_hours"][name] for part in parts) == pytest.approx(of_fleet, abs=1e-6)
    assert sum(pool["gpus"] for pool in pools) == fleet["gpus"]


def test_money_is_unknown_without_a_price_and_never_zero() -> None:
    past = history_of([steady_gpu("GPU-0"), steady_gpu("GPU-1", name="Tesla T4")])
    of_each = {gpu: gpu_hour_usage(past, gpu) for gpu in past.gpus}
    assert cost(of_each, {})["unused"] is None
    both = cost(of_each, {"GPU-0": GpuPrice(2.0, "USD")})
    assert both["unused"] == pytest.approx(2.0 * 0.5 * PERIOD.points * STEP_HOURS)
    assert both["unpriced_gpu_hours"] == pytest.approx(PERIOD.points * STEP_HOURS)


@given(cards())
def test_a_trend_has_no_value_where_nothing_was_seen(found: list[GpuHistorySpec]) -> None:
    past = history_of(found)
    reported = trends(past, past.gpus)
    for index in range(PERIOD.points):
        shares = {card.uuid: min(1.0, card.coverage[index]) for card in found if index in card.utilization}
        seen = sum(shares.values())
        work = sum(card.utilization[index] * shares[card.uuid] for card in found if card.uuid in shares)
        if seen > 0:
            assert isclose(reported["gpu_utilization"][index] or 0.0, work / seen, abs_tol=1e-9)
            work_then = sum(card.utilization[index] for card in found if card.uuid in shares)
            assert isclose(reported["busy_gpus"][index] or 0.0, work_then, abs_tol=1e-9)
        else:
            assert reported["gpu_utilization"][index] is None
            assert reported["busy_gpus"][index] is None
        named = sum(1 for card in found if index in card.named)
        assert reported["gpus"][index] == (named or None)


@given(st.integers(0, 20_000), st.integers(300, 400 * DAY))
def test_a_large_fleet_has_longer_steps_and_the_same_time(gpus: int, since: int) -> None:
    found, small = report_period(1_795_003_217.4, since, gpus), report_period(1_795_003_217.4, since)
    assert found.step_seconds >= small.step_seconds
    assert found.points * gpus <= MAX_GPU_STEPS or found.step_seconds == DAY
    assert 0 <= found.points * found.step_seconds - since < found.step_seconds


def test_steps_grow_with_the_length_and_stand_on_whole_multiples() -> None:
    for since, step in ((HOUR, 300), (2 * DAY, 300), (7 * DAY, 1800), (30 * DAY, 3600), (400 * DAY, 21600)):
        found = report_period(1_795_003_217.4, since)
        assert found.step_seconds == step
        assert found.end % step == 0
        assert 0 <= 1_795_003_217.4 - found.end < step
        assert found.start == found.end - since
        assert found.index(found.time(5)) == 5
    for since in (0, 299, 401 * DAY):
        with pytest.raises(ValueError, match="5m"):
            report_period(1_795_003_217.4, since)


@pytest.mark.parametrize(
    ("named", "hours"), [({0}, 0.5), ({2, 5}, 2.0), ({7}, 0.5), (set(range(PERIOD.points)), PERIOD.points / 2)]
)
def test_a_gpu_counts_from_its_first_to_its_last_sample(named: set[int], hours: float) -> None:
    past = history_of([GpuHistorySpec("a", named=frozenset(named))])
    assert gpu_hour_usage(past, past.gpus[0]).present == hours
    unseen = history_of([GpuHistorySpec("a", named=frozenset(named))], observed_spans={})
    assert gpu_hour_usage(unseen, unseen.gpus[0]).present == 0


@pytest.mark.parametrize(("memory", "held"), [(0.05, 0.0), (0.0501, 0.5), (0.0, 0.0), (None, None)])
def test_memory_is_allocated_above_its_limit(memory: float | None, held: float | None) -> None:
    """Half an hour in which nothing ran."""
    known = {} if memory is None else {3: memory}
    past = history_of([GpuHistorySpec("a", utilization={3: 0.0}, coverage={3: 1.0}, memory=known)])
    found = gpu_hour_usage(past, past.gpus[0])
    assert (found.memory_allocated, found.idle_allocated) == (held, held)
    assert found.memory_unknown == (0.5 if memory is None else 0.0)


@pytest.mark.parametrize(
    ("utilization", "coverage", "idle"),
    [(0.0099, 0.9, True), (0.01, 0.9, False), (0.0, 0.89, False), (0.0, 1.01, True)],
)
def test_a_step_is_idle_below_its_limit_and_with_enough_data(utilization: float, coverage: float, idle: bool) -> None:
    past = history_of([GpuHistorySpec("a", utilization={3: utilization}, coverage={3: coverage}, memory={3: 0.5})])
    found = gpu_hour_usage(past, past.gpus[0])
    assert found.idle_allocated == pytest.approx(min(coverage, 1.0) / 2 if idle else 0.0)
    assert found.memory_allocated == found.observed == pytest.approx(min(coverage, 1.0) / 2)
    assert found.busy == pytest.approx(min(coverage, 1.0) * utilization / 2)
