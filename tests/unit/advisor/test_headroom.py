"""Headroom tuned to an SLO: what the replay may know, what it decides, and what it states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, exp, factorial

import numpy as np
import pytest
from gpu_advisor.documents.slo import pool_slo
from gpu_advisor.evaluation.scaling import frontier
from gpu_advisor.evaluation.scaling.candidate_replay import CandidateReplay
from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO, DemandPoint
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand, record_demand
from gpu_advisor.evaluation.scaling.forecast import Horizon
from gpu_advisor.evaluation.scaling.frontier import cheapest_replayed, frontiers_of
from gpu_advisor.evaluation.scaling.headroom import FRONTIER_RATIOS, READ_SECONDS, Headroom, TunedHeadroom, tuning_time
from gpu_advisor.evaluation.scaling.headroom_text import describe_headroom
from gpu_advisor.evaluation.scaling.persistence import DemandBounds, running_persistence
from gpu_advisor.evaluation.scaling.replay_steps import prepare_steps
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, decide_size, sizing_rules, tuned_headroom
from gpu_advisor.settings import EvaluationSettings, Settings
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

EVALUATION = EvaluationSettings()
STEP = EVALUATION.step_seconds
LIMITS = ScalingLimits(1, 40, scale_up_ratio=0.85, scale_down_ratio=0.6)
START = 1_800_000_000 // 3600 * 3600
TARGETS = (0.0005, 0.002, 0.005, 0.02)


def demand(seed: int, minutes: int) -> list[float]:
    """Requests on a level, and bursts of some minutes."""
    random = np.random.default_rng(seed)
    values = random.poisson(random.uniform(2, 12) / 0.3, minutes) * 0.3
    for start in np.nonzero(random.random(minutes) < 0.05)[0]:
        values[start : start + random.integers(1, 8)] += random.uniform(1, 5)
    return [float(value) for value in values]


def points(values: Sequence[float], replicas: int) -> list[DemandPoint]:
    return [
        DemandPoint(START + STEP * index, replicas, replicas, min(1.0, value / replicas))
        for index, value in enumerate(values)
    ]


def tune(history: Sequence[DemandPoint], target: float, at: float | None = None) -> TunedHeadroom:
    return tuned_headroom(history, LIMITS, EVALUATION, history[-1].at if at is None else at, target)


SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(61, 400), st.integers(6, 20), st.integers(1, 30))
def test_the_future_changes_nothing(seed: int, minutes: int, replicas: int, now: int) -> None:
    history = points(demand(seed, minutes), replicas)
    at = history[-1].at
    later = [replace(history[-1], at=at + STEP * (1 + index), utilization_ratio=1.0) for index in range(90)]
    known, foreseen = tune(history, 0.002), tune([*history, *later], 0.002, at)
    assert foreseen == known
    sizes = [
        decide_size(each, replicas, LIMITS, EVALUATION, at, headroom=known) for each in (history, [*history, *later])
    ]
    assert sizes[0].replicas == sizes[1].replicas
    # Within the hour, the headroom stays: it is a function of the past before the last tuning.
    tuned_at = tuning_time(at, STEP)
    assert tune([each for each in history if each.at <= tuned_at] or history[:1], 0.002, at).deviations == (
        known.deviations
    )


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(61, 400), st.integers(3, 20))
def test_a_stricter_slo_never_has_fewer_replicas(seed: int, minutes: int, replicas: int) -> None:
    history = points(demand(seed, minutes), replicas)
    at = history[-1].at
    found = [tune(history, target) for target in TARGETS]
    means = [each.chosen.replicas for each in found if each.chosen]
    assert len(means) == len(TARGETS)
    assert all(strict >= lax for strict, lax in pairwise(means))
    sizes = [decide_size(history, replicas, LIMITS, EVALUATION, at, headroom=each).replicas for each in found]
    assert all(size == replicas or LIMITS.min <= size <= LIMITS.max for size in sizes)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(121, 400), st.integers(3, 20))
def test_the_frontier_trades_gpu_hours_for_unserved_demand(seed: int, minutes: int, replicas: int) -> None:
    found = tune(points(demand(seed, minutes), replicas), 0.002)
    assert found.chosen is not None
    assert found.reached_ratio is not None
    assert found.upper_ratio is not None
    for strict, lax in pairwise(found.frontier):
        assert strict.unserved_ratio < lax.unserved_ratio
        assert strict.replicas >= lax.replicas
    assert all(LIMITS.min <= point.replicas <= LIMITS.max for point in found.frontier)
    assert 0 <= found.reached_ratio < found.upper_ratio
    assert found.chosen.unserved_ratio <= 0.002 * 1.001


@pytest.mark.parametrize("seed", range(8))
def test_the_upper_bound_is_that_of_a_poisson_count_of_shortages(seed: int) -> None:
    """With as many shortages expected as the bound has, so few are seen in one of twenty days."""
    found = tune(points(demand(seed, 400), 8), 0.02)
    assert found.reached_ratio
    assert found.upper_ratio
    expected = found.shortages * found.upper_ratio / found.reached_ratio
    so_few = sum(exp(-expected) * expected**count / factorial(count) for count in range(found.shortages + 1))
    assert so_few == pytest.approx(0.05, abs=0.01 + 0.03 / found.shortages)  # shortages are whole numbers here


@pytest.mark.parametrize("signals", [(), (3,), (0, 1, 2, 3, 4)])
def test_a_record_is_by_a_signal_where_any_step_has_one(signals: tuple[int, ...]) -> None:
    steps = [replace(point, signal_demand=2.0) if index in signals else point
             for index, point in enumerate(points([1.0] * 5, 4))]  # fmt: skip
    del steps[2]
    record = record_demand(steps, START + 4 * STEP, STEP, 60)
    assert record.has_signal == bool(signals)
    assert record.work[2] is None
    assert record.capacity == (4, 4, 0, 4, 4)


@pytest.mark.parametrize(("minutes", "missing"), [(1, 59), (30, 30), (59, 1)])
def test_without_enough_history_the_headroom_is_the_default(minutes: int, missing: int) -> None:
    found = tune(points(demand(1, minutes), 10), 0.0005)
    assert (found.deviations, found.chosen, found.frontier) == (EVALUATION.headroom_deviations, None, ())
    assert found.missing_seconds == 60 * missing
    text = describe_headroom(found, 1)
    assert "default of 3.5" in text
    assert f"{missing} more minutes" in text


def test_a_day_is_replayed_once_an_hour() -> None:
    """Of what is read, no step of the day before the last tuning is dropped until the next."""
    history = points(demand(3, READ_SECONDS // STEP + 59), 12)
    found = set()
    for minute in range(0, 59, 7):
        read = history[minute : minute + READ_SECONDS // STEP]
        found.add((tuning_time(read[-1].at, STEP), tune(read, 0.002)))
    assert len(found) == len({tuned_at for tuned_at, _ in found})


def test_gaps_are_not_history() -> None:
    history = points(demand(1, 180), 10)
    assert tune(history[::4], 0.002, history[-1].at).missing_seconds == 15 * 60
    assert tune(history[::2], 0.002, history[-1].at).missing_seconds == 0


def test_new_pools_assume_a_deviation_that_their_past_replaces() -> None:
    quiet = points([6.0] * 30, 10)
    tuned = TunedHeadroom(3.5, target_ratio=0.002)
    assumed = decide_size(quiet, 10, LIMITS, EVALUATION, quiet[-1].at, headroom=tuned).needed
    assert assumed is not None
    assert assumed > 8
    day = points([6.0] * 1440, 10)
    known = decide_size(day, 10, LIMITS, EVALUATION, day[-1].at, headroom=tuned).needed
    assert known == pytest.approx(6 / SATURATION_RATIO, rel=0.05)


# What is varied


def test_what_starts_from_idle_is_served_by_replicas_that_are_kept() -> None:
    """No headroom foresees a start; a minimum size costs less than what follows each."""
    random = np.random.default_rng(7)
    values: list[float] = []
    while len(values) < 1440:
        values += [7.6] * int(random.exponential(60)) + [0.0] * (1 + int(random.exponential(60)))
    found = tune(points(values, 16), 0.001)
    assert found.chosen is not None
    assert (found.min_replicas, found.reached_ratio) == (8, 0)
    assert 8 <= found.chosen.replicas <= 9
    decided = decide_size(points([0.0] * 300, 16), 16, LIMITS, EVALUATION, START + 299 * STEP, headroom=found)
    assert decided.replicas == 8


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("minutes", [8, 14, 20])
def test_of_minimum_sizes_the_smallest_that_is_enough_is_kept(seed: int, minutes: int) -> None:
    """A short step needs more than 98 % of the minutes do, and not all of it has to be served."""
    random, target = np.random.default_rng(seed), 0.0025
    levels = np.full(1440, 4.0)
    levels[700 : 700 + minutes] = 30.0
    history = points([float(value) for value in random.poisson(levels / 0.1) * 0.1], 40)
    rules, at = sizing_rules(LIMITS.for_objective(), EVALUATION), tuning_time(history[-1].at, STEP)
    replayed = CandidateReplay(record_demand(history, at, STEP, 1440), rules)
    usual = ceil(sorted(replayed.demands)[int(0.98 * replayed.steps)])
    found = cheapest_replayed(replayed, frontiers_of(replayed, target), target)
    assert usual < found.min_replicas < ceil(max(replayed.demands))
    fewer = frontier._replay(replayed, found.deviations, found.min_replicas - 1)
    assert fewer.unserved_ratio > target or fewer.replicas > found.replicas


@pytest.mark.parametrize(("is_rising", "min_replicas"), [(True, 0), (False, 8)])
def test_in_a_part_of_a_day_a_minimum_size_has_to_cost_clearly_less(is_rising: bool, min_replicas: int) -> None:
    """The largest demand of a morning is no size for the day, but all or nothing is not a daily pattern."""
    rising = [float(value) for value in np.random.default_rng(4).poisson(np.linspace(1, 7, 150) / 0.3) * 0.3]
    found = tune(points(rising if is_rising else ([7.6] * 25 + [0.0] * 25) * 4, 20), 0.005)
    assert found.chosen is not None
    assert found.min_replicas == min_replicas


def test_many_observed_shortages_outweigh_what_is_usual() -> None:
    """Fluctuations without bursts need less headroom than usual, and a day of them shows it."""
    random = np.random.default_rng(3)
    values = [float(value) for value in random.poisson(100, 1440) * 0.1]
    few, many = tune(points(values[:90], 20), 0.0025), tune(points(values, 20), 0.0025)
    assert few.chosen is not None
    assert many.chosen is not None
    assert many.chosen.replicas < few.chosen.replicas
    assert many.chosen.replicas < 10 / LIMITS.scale_up_ratio + 1  # no band of utilization, but whole replicas
    assert many.reached_ratio is not None
    assert many.reached_ratio <= 0.0025


@pytest.mark.parametrize(("saturated_steps", "grows"), [(1, False), (2, True)])
def test_an_slo_allows_a_single_saturated_step(saturated_steps: int, grows: bool) -> None:
    values = [5.0] * 240 + [10.0] * saturated_steps
    history = points(values, 10)
    tuned = TunedHeadroom(0.0, target_ratio=0.005)
    sizes = [
        decide_size(history, 10, LIMITS, EVALUATION, history[-1].at, headroom=each).replicas
        for each in (tuned, Headroom(0.0))
    ]
    assert (sizes[0] > 10, sizes[1] > 10) == (grows, True)


@pytest.mark.parametrize(
    ("busier_until", "missing", "headroom", "size"),
    [
        (75, None, TunedHeadroom(0.0, min_replicas=12), 12),
        (62, None, TunedHeadroom(0.0, min_replicas=12), 13),  # the level was above 12 within the hour
        (75, 30, TunedHeadroom(0.0, min_replicas=12), 14),  # and this minute may have been, too
        (62, 30, TunedHeadroom(0.0, min_replicas=11), 11),  # three fewer: no small reduction
        (75, None, Headroom(0.0), 14),  # without an objective, two fewer are not worth a change
    ],
)
def test_with_an_slo_a_small_reduction_is_made_after_an_hour(
    busier_until: int, missing: int | None, headroom: Headroom, size: int
) -> None:
    """In minutes before the evaluation."""
    history = points([13.0] * (300 - busier_until) + [9.5] * busier_until, 14)
    at = history[-1].at
    if missing is not None:
        del history[-1 - missing]
    limits = replace(LIMITS, scale_down_ratio=0.98)
    assert decide_size(history, 14, limits, EVALUATION, at, headroom=headroom).replicas == size


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from(TARGETS))
def test_the_chosen_headroom_was_replayed(seed: int, target: float) -> None:
    """Between whole replicas, two candidates do not show what a headroom between theirs gives."""
    history = points(demand(seed, 400), 16)
    rules, at = sizing_rules(LIMITS.for_objective(), EVALUATION), tuning_time(history[-1].at, STEP)
    found = tune(history, target)
    replayed = CandidateReplay(record_demand(history, at, STEP, 1440), rules)
    own = replayed.candidate(found.deviations, found.min_replicas)
    assert found.chosen is not None
    assert found.chosen.replicas == pytest.approx(own.replicas / replayed.steps)
    assert found.chosen.unserved_ratio <= target * (1 + 1e-9)


# The replay

RULES = replace(sizing_rules(LIMITS, EVALUATION), horizon=Horizon(3, 10, 150, 10))


def test_what_always_fits_is_served_and_what_never_fits_is_not() -> None:
    steady = record_demand(points([5.0] * 120, 10), START + STEP * 119, STEP, 240)
    found = CandidateReplay(steady, RULES).candidate(2.0)
    assert (found.unserved, found.shortages, found.replicas) == (0, 0, 90 * 6)  # 5 / 0.85, rounded up
    small = CandidateReplay(steady, replace(RULES, max=4)).candidate(2.0)
    assert small.unserved == pytest.approx(90 * 1.0)
    assert small.shortages == 1


@pytest.mark.parametrize(
    ("capacities", "work", "demanded"),
    [
        ((4, 4, 4, 8, 8), (2, 4, 4, 7, 6), 7),  # more replicas showed what the demand was
        ((4, 4, 8, 16, 16), (4, 4, 8, 11, 6), 11),  # in two steps
        ((4, 4, 4, 4, 8), (2, 4, 4, 2, 7), 4),  # it ended by itself: nothing is known but the least
    ],
)
def test_a_shortage_is_as_large_as_more_replicas_showed(
    capacities: tuple[int, ...], work: tuple[float, ...], demanded: float
) -> None:
    before = points([2.0] * 60, 4)
    after = [
        DemandPoint(START + STEP * (60 + index), size, size, done / size)
        for index, (size, done) in enumerate(zip(capacities, work, strict=True))
    ]
    record = record_demand([*before, *after], after[-1].at, STEP, 240)
    found = CandidateReplay(record, RULES)
    least = 30 * 2.0 + sum(
        max(each, demanded if each == size else 0) for size, each in zip(capacities, work, strict=True)
    )
    assert found.demanded >= least - 1e-9
    assert found.demanded - least < 3  # of saturated steps, the expectation of what was not recorded


def test_replicas_that_were_saturated_too_show_only_the_least() -> None:
    """A burst outgrew each size, and ended at the last: all of its steps may have had more than that."""
    work, capacity = (4.0, 4.0, 8.0, 16.0, 3.0), (4.0, 4.0, 8.0, 16.0, 16.0)
    saturated = tuple(done == size for done, size in zip(work, capacity, strict=True))
    before = (2.0, 3.0) * 30
    record = RecordedDemand((*before, *work), (4.0,) * 60 + capacity, (False,) * 60 + saturated, has_signal=False)
    steps = prepare_steps(record, RULES)
    assert list(steps.work[-5:]) == [16, 16, 16, 16, 3]
    assert [excess > 0 for excess in steps.mean_excess[-5:]] == [True, True, True, True, False]
    assert list(steps.capacity[-5:-1]) == [16] * 4


# Persistence


def persistence(values: Sequence[float]) -> float:
    levels = [2.0] * len(values)
    return running_persistence(DemandBounds(values, values, levels, levels), 3, 0.5 ** (1 / 150), 240)[-1]


def bursts(length: int) -> list[float]:
    return [8.0 if index % 40 < length else 2.0 for index in range(240)]


def test_long_bursts_persist_and_short_ones_do_not() -> None:
    lengths = [persistence(bursts(length)) for length in (1, 3, 6, 12, 24)]
    assert lengths[:2] == [0, 0]
    assert lengths == sorted(lengths)
    assert 0.4 < lengths[2] < 0.6  # three of six minutes' bursts are left
    assert lengths[4] > 0.8
    assert persistence([2.0] * 240) == 0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sets(st.integers(0, 99), max_size=20))
def test_unknown_steps_never_lower_the_persistence(seed: int, unknown: set[int]) -> None:
    values = demand(seed, 100)
    levels = [4.0] * 100
    whole = running_persistence(DemandBounds(values, values, levels, levels), 3, 0.99, 50)
    upper = [30.0 if index in unknown else value for index, value in enumerate(values)]
    lower = [0.0 if index in unknown else value for index, value in enumerate(values)]
    bounds = running_persistence(DemandBounds(upper, lower, levels, levels), 3, 0.99, 50)
    assert all(0 <= one <= other + 1e-9 <= 1 + 1e-9 for one, other in zip(whole, bounds, strict=True))


# What is stated


@pytest.mark.parametrize(
    ("most", "saturated", "unreachable"), [(40, False, False), (6, False, True), (6, True, True), (40, True, False)]
)
def test_what_no_headroom_reaches_and_no_replay_knows_is_stated(most: int, saturated: bool, unreachable: bool) -> None:
    history = points([4.0, 8.0] * 200, 7 if saturated else 9)
    limits = replace(LIMITS, max=most)
    found = tuned_headroom(history, limits, EVALUATION, history[-1].at, 0.0005)
    text = describe_headroom(found, 1)
    assert ("No headroom reaches 0.05 %" in text) == unreachable
    assert ("a demand signal shows it" in text) == saturated


@pytest.mark.parametrize("share", [0.9, 1.03, 1.08, 1.2])
def test_an_objective_is_out_of_reach_only_if_no_headroom_reaches_it(share: float) -> None:
    history = points(demand(3, 300), 40)
    rules, at = sizing_rules(replace(LIMITS, max=9).for_objective(), EVALUATION), tuning_time(history[-1].at, STEP)
    replayed = CandidateReplay(record_demand(history, at, STEP, 1440), rules)
    least = min(frontier[-1].unserved_ratio for frontier in frontiers_of(replayed, min(FRONTIER_RATIOS)))
    found = tuned_headroom(history, replace(LIMITS, max=9), EVALUATION, at, share * least)
    assert least > min(FRONTIER_RATIOS)
    assert found.chosen is not None
    assert found.is_out_of_reach == (share < 1) == (found.chosen.unserved_ratio > share * least * (1 + 1e-9))


def test_the_document_is_in_gpu_hours() -> None:
    found = tune(points(demand(3, 300), 12), 0.002)
    document = pool_slo(found, 4)
    assert document["unserved_ratio"] == 0.002
    assert found.chosen is not None
    assert document["gpu_hours_per_day"] == pytest.approx(found.chosen.replicas * 4 * 24)
    assert [each["unserved_ratio"] for each in document["frontier"]] == [each.unserved_ratio for each in found.frontier]
    text = describe_headroom(found, 4)
    for part in ("slo.unserved 0.2 %", "95 % confidence", "GPU-hours a day"):
        assert part in text


# Settings


@pytest.mark.parametrize(("text", "ratio"), [("0.2%", 0.002), (" 0.05 % ", 0.0005), (0.25, 0.0025), ("10%", 0.1)])
def test_the_objective_is_a_percentage(text: object, ratio: float) -> None:
    pool = {"name": "p", "kind": "serving", "slo": {"unserved": text}}
    assert Settings.model_validate({"pools": [pool]}).pools[0].unserved_ratio == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slo": {"unserved": "a lot"}}, "write it as in 0.2%"),
        ({"slo": {"unserved": "0%"}}, "0.01% to 10%"),
        ({"slo": {"unserved": 0.002}}, "did you mean 0.2%"),
        ({"slo": {"unserved": "50%"}}, "0.01% to 10%"),
        ({"slo": {}}, "no objective"),
        ({"headroom_deviations": 2}, "remove one"),
        ({"kind": "training"}, "set kind: serving"),
    ],
)
def test_objectives_that_cannot_be_met_are_refused(change: dict[str, object], message: str) -> None:
    pool = {"name": "p", "kind": "serving", "slo": {"unserved": "0.2%"}, **change}
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"pools": [pool]})


def test_headroom_by_hand_for_all_pools_contradicts_an_slo() -> None:
    pool = {"name": "chat", "kind": "serving", "slo": {"unserved": "0.2%"}}
    with pytest.raises(ValidationError, match=r"contradicts slo\.unserved of chat"):
        Settings.model_validate({"pools": [pool], "evaluation": {"headroom_deviations": 3}})
