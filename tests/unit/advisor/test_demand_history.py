"""A pool's past, point by point: bounds, steps, saturation, and what is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import ceil

import pytest
from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.scaling.demand_history import (
    MAX_OVERSHOOT,
    SATURATION_RATIO,
    DemandEstimate,
    DemandPoint,
    align_to_steps,
    demand_points,
    estimate_demand,
)
from gpu_advisor.evaluation.scaling.forecast import (
    Forecast,
    Horizon,
    excess_scale,
    expect,
    exponential_moving_average,
)
from gpu_advisor.evaluation.scaling.persistence import DemandBounds, faded_sums
from gpu_advisor.evaluation.scaling.saturation import SaturatedRun, next_size, saturated_run
from gpu_advisor.evaluation.scaling.training import GangCounts, decide_gangs
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

STEP = 60


# Steps


@given(st.integers(0, 2_000_000_000), st.sampled_from([30, 60, 300]), st.integers(1, 2000))
def test_the_history_is_so_many_whole_steps(at: int, step: int, steps: int) -> None:
    evaluation = Settings().evaluation.model_copy(update={"step_seconds": step, "history_seconds": steps * step + 7})
    first, last = step_bounds(at + 0.5, evaluation)
    assert last % step == first % step == 0
    assert last <= at < last + step
    assert last - first == (steps - 1) * step


# Points


@given(st.integers(0, 8), st.integers(0, 8), st.floats(0, 1))
def test_what_does_not_report_lies_between_idle_and_busy(reporting: int, silent: int, busy: float) -> None:
    point = DemandPoint(0, reporting + silent, reporting, busy)
    assert point.min_demand == pytest.approx(busy * reporting)
    assert point.max_demand == pytest.approx(busy * reporting + silent)
    assert point.min_demand <= point.demand + 1e-9 <= point.max_demand + 2e-9
    assert point.complete is (silent == 0)
    signal = dataclasses.replace(point, signal_demand=3.0)
    assert signal.min_demand == signal.demand == signal.max_demand == 3.0


@pytest.mark.parametrize(
    ("utilization", "signal", "saturated"),
    [(SATURATION_RATIO, None, True), (SATURATION_RATIO - 1e-9, None, False), (1.0, 3.0, False)],
)
def test_a_point_is_saturated_from_a_ratio_on_and_never_with_a_signal(
    utilization: float, signal: float | None, saturated: bool
) -> None:
    assert DemandPoint(0, 2, 2, utilization, signal).saturated is saturated


def point(at: float, size: float = 2, utilization: float = 0.5, reporting: float | None = None) -> DemandPoint:
    return DemandPoint(at, size, size if reporting is None else reporting, utilization)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 12), st.integers(-2, 3))
def test_points_stand_at_their_steps_from_the_first_one_on(there: list[bool], steps: int, ahead: int) -> None:
    """`ahead`: steps after (or before) which it is asked."""
    history = [point(STEP * i, 1 + i) for i, present in enumerate(there) if present]
    at = STEP * (len(there) - 1 + ahead)
    expected: list[float | None] = [
        1 + i if 0 <= i < len(there) and there[i] else None
        for i in range(len(there) + ahead - steps, len(there) + ahead)
    ]
    while expected and expected[0] is None:
        expected.pop(0)
    found = align_to_steps(history, at, STEP, steps)
    assert [each and each.replicas for each in found] == expected


def test_of_two_points_of_a_step_the_later_one_counts() -> None:
    (found,) = align_to_steps([point(55, 1), point(60, 2), point(65, 3)], 60, STEP, 5)
    assert found is not None
    assert found.replicas == 3


def test_a_missing_point_repeats_the_last_in_the_estimate_and_is_open_in_the_bounds() -> None:
    points = [None, point(0, 4), None, point(120, 6, reporting=3), None]
    found = estimate_demand(points)
    assert found.estimate == (0.0, 2.0, 2.0, 3.0, 3.0)
    assert found.lower_bound == (0.0, 2.0, 0.0, 1.5, 0.0)
    assert found.upper_bound == (6.0, 2.0, 6.0, 4.5, 6.0)  # six replicas were the most
    assert not found.complete
    assert estimate_demand([point(0, 4)]) == DemandEstimate((2.0,), (2.0,), (2.0,))
    assert estimate_demand([point(0, 4)]).complete
    assert estimate_demand([None]) == DemandEstimate((0.0,), (0.0,), (0.0,))


def test_a_demand_above_the_size_bounds_what_is_missing() -> None:
    queued = DemandPoint(0, 2, 2, 1.0, signal_demand=9.0)
    assert estimate_demand([queued, None]).upper_bound == (9.0, 9.0)


@pytest.mark.parametrize(
    ("counts", "now", "sizes"),
    [
        ([4, 4, 4], 4, [4, 4, 4]),
        ([4, 2, 4], 4, [4, 4, 4]),  # an outage
        ([4, 2, 3], 3, [4, 3, 3]),  # the smaller of the sizes around it
        ([2, 4], 4, [2, 4]),  # grown
        ([4, 2], 2, [4, 2]),  # shrunk
        ([2, 2], 4, [2, 2]),  # grown just now
        ([4, 2], 4, [4, 4]),
    ],
)
def test_a_dip_is_an_outage_and_a_lasting_change_is_one_of_size(counts: list[int], now: int, sizes: list[int]) -> None:
    found = demand_points([(STEP * i, count, 0.5 * count) for i, count in enumerate(counts)], now, 1)
    assert [each.replicas for each in found] == sizes
    assert [each.reporting for each in found] == counts
    halves = demand_points([(STEP * i, count, 0.5 * count) for i, count in enumerate(counts)], now, 2)
    assert [each.replicas for each in halves] == [size / 2 for size in sizes]


@pytest.mark.parametrize(
    ("ratio", "taken"),
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (1 + MAX_OVERSHOOT - 1e-9, 1.0),
        (1 + MAX_OVERSHOOT + 1e-6, None),
        (-MAX_OVERSHOOT + 1e-9, 0.0),
        (-MAX_OVERSHOOT - 1e-6, None),
    ],
)
def test_a_rate_may_overshoot_a_little_and_what_cannot_be_is_missing(ratio: float, taken: float | None) -> None:
    found = demand_points([(0.0, 2, 2 * ratio)], 2, 1)
    assert [each.utilization_ratio for each in found] == ([] if taken is None else [taken])
    assert demand_points([(0.0, 0, 0.0)], 2, 1) == ()


# Saturation


def saturated_history(sizes: Sequence[float], before: Sequence[float] = ()) -> list[DemandPoint]:
    """Points with utilizations `before`, then saturated ones at these sizes."""
    parts = [*((2.0, value) for value in before), *((size, 1.0) for size in sizes)]
    return [point(STEP * i, size, value) for i, (size, value) in enumerate(parts)]


def test_a_run_is_what_the_history_ends_with() -> None:
    history = saturated_history([2, 2, 3, 4], before=[1.0, 0.5])
    run = saturated_run(history, 1e9)
    assert run is not None
    assert (run.points, run.size, run.growths) == (4, 4, 2)
    assert saturated_run(history, STEP * 1.5) is None  # then the last point was another one
    earlier = saturated_run(history, STEP * 3)
    assert earlier is not None
    assert (earlier.points, earlier.size, earlier.growths) == (2, 2, 0)
    assert saturated_run([], 0) is None


@pytest.mark.parametrize(
    ("before", "short", "informative"),
    [
        ([0.5] * 18, True, True),
        ([0.5] * 19, False, True),
        ([0.5] * 2 + [0.0] * 17, False, True),
        ([0.5] + [0.0] * 18, False, False),
        ([0.05] * 19, False, False),  # the ends of the range show nothing
        ([0.95] * 19, False, False),
        ([0.06] * 19, False, True),
        ([0.94] * 19, False, True),
        ([0.5] * 3 + [0.0] * 27, False, True),
        ([0.5] * 3 + [0.0] * 28, False, False),  # fewer than a tenth
        ([], True, False),
    ],
)
def test_what_the_past_shows_about_a_run(before: list[float], short: bool, informative: bool) -> None:
    run = saturated_run(saturated_history([2.0], before), 1e9)
    assert run is not None
    fields = dataclasses.astuple(run)
    assert fields[3:] == (short, informative)


@pytest.mark.parametrize(
    ("growths", "short", "informative", "exhausted"),
    [(2, False, False, False), (3, False, False, True), (3, True, False, True), (3, False, True, False)],
)
def test_growing_ends_after_three_steps_unless_the_past_is_informative(
    growths: int, short: bool, informative: bool, exhausted: bool
) -> None:
    run = SaturatedRun(9, 2.0, growths, short, informative)
    assert run.exhausted is exhausted
    if exhausted:
        assert next_size(SaturatedRun(9, 2.5, growths, short, informative), 64) == 3


@pytest.mark.parametrize(
    ("size", "growths", "short", "informative", "limit", "wanted"),
    [
        (8, 0, False, True, 64, 10),  # a quarter
        (8, 1, False, True, 64, 12),  # each further step is longer
        (8, 2, False, True, 64, 14),
        (8, 0, False, True, 9, 9),  # the limit
        (2, 0, False, True, 64, 3),  # one at least
        (8, 0, True, False, 64, 32),  # little is known: three times its size more
        (8, 0, True, False, 40, 24),  # and at most half of what is left
        (8, 0, True, True, 40, 32),
        (1, 0, True, False, 2, 2),
        (1, 0, True, False, 3, 2),
        (62, 2, False, False, 64, 63),
    ],
)
def test_a_step_at_saturation(
    size: float, growths: int, short: bool, informative: bool, limit: int, wanted: int
) -> None:
    assert next_size(SaturatedRun(5, size, growths, short, informative), limit) == wanted


# Training


@pytest.mark.parametrize(
    ("present", "waiting", "wanted"),
    [
        (1, None, 2),  # below the minimum
        (2, None, 2),
        (5, None, 5),
        (6, 9.0, 5),  # above the maximum
        (3, 0.0, 3),
        (3, 1e-10, 3),
        (3, 0.2, 4),
        (3, 1 + 1e-10, 4),  # rounding is no gang
        (3, 2.0, 5),
        (3, 9.0, 5),
        (5, 1.0, 5),
    ],
)
def test_gangs_are_whole_and_within_the_limits(present: int, waiting: float | None, wanted: int) -> None:
    assert decide_gangs(GangCounts(present, 2, 5, waiting))[0] == wanted


@given(st.integers(0, 9), st.one_of(st.none(), st.floats(0, 9)))
def test_the_limit_is_named_where_it_decides(present: int, waiting: float | None) -> None:
    wanted, why = decide_gangs(GangCounts(present, 2, 5, waiting))
    assert 2 <= wanted <= 5
    if 2 <= present <= 5:
        assert ("limit" in why) is (waiting is not None and waiting > 1e-9 and wanted == 5)
        assert wanted == min(5, present + ceil((waiting or 0) - 1e-9))


# Forecast


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(1, 50))
def test_a_moving_average_begins_as_the_plain_mean(values: list[float], half_life: float) -> None:
    found = exponential_moving_average(values, half_life)
    assert len(found) == len(values)
    assert found[0] == values[0]
    weight = 1 - 0.5 ** (1 / half_life)
    for index in range(1, len(values)):
        share = max(weight, 1 / (index + 1))
        assert found[index] == pytest.approx((1 - share) * found[index - 1] + share * values[index], abs=1e-9)


@pytest.mark.parametrize(("level", "scale"), [(0, 1.0), (15, 2.0), (80, 3.0)])
def test_headroom_grows_with_the_fourth_root(level: float, scale: float) -> None:
    assert excess_scale(level) == pytest.approx(scale)
    assert Forecast((), (), (), 0.5).needed(level, 4) == pytest.approx(level + 4 * 0.5 * scale)


# Forecast


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.floats(0.3, 1),
    st.integers(1, 35),
)
def test_a_faded_sum_is_of_its_window(values: list[float], fade: float, window: int) -> None:
    expected = [
        sum(values[k] * fade ** (now - k) for k in range(max(0, now - window + 1), now + 1))
        for now in range(len(values))
    ]
    assert faded_sums(values, fade, window) == pytest.approx(expected, abs=1e-9 / fade**window)


@given(st.floats(-3, 3), st.integers(1, 9), st.integers(1, 9))
def test_a_rising_line_goes_on_and_a_falling_one_does_not(slope: float, ahead: int, trend: int) -> None:
    """The first steps have a shorter past: from the first level on."""
    levels = [50 + slope * k for k in range(12)]
    bounds = DemandBounds(levels, levels, levels, levels)
    rise = max(0.0, slope) * ahead / trend
    assert expect(bounds, [0.0] * 12, Horizon(ahead, 5, 5, trend)) == pytest.approx(
        [level + rise * min(k, trend) for k, level in enumerate(levels)]
    )
