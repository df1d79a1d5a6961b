"""The pure decision: how many replicas a serving pool should have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, demand_points
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, decide_size
from gpu_advisor.settings import EvaluationSettings
from hypothesis import given, settings
from hypothesis import strategies as st

AT = 1_800_000_000.0
EVALUATION = EvaluationSettings()
STEP = EVALUATION.step_seconds
WINDOW = EVALUATION.scale_down_stabilization_seconds // STEP
COOLDOWN = EVALUATION.cooldown_seconds // STEP


def utilization_points(values: Sequence[float | None], replicas: int = 4, at: float = AT) -> tuple[DemandPoint, ...]:
    """Points a step apart, the last at `at`; None is a point that is missing."""
    first = at - STEP * (len(values) - 1)
    return tuple(
        DemandPoint(first + STEP * i, replicas, replicas, value) for i, value in enumerate(values) if value is not None
    )


def limits(lowest: int = 1, highest: int = 16) -> ScalingLimits:
    return ScalingLimits(lowest, highest, scale_up_ratio=0.85, scale_down_ratio=0.60)


def replicas_for(points: Sequence[DemandPoint], replicas: int, at: float = AT, **change: object) -> int:
    evaluation = EVALUATION.model_copy(update=change)
    return decide_size(points, replicas, limits(), evaluation, at).replicas


utilizations = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=60)
LEVEL = st.sampled_from([0.0, 0.1, 0.3, 0.59, 0.7, 0.86, 0.97, 1.0])
#: Loads that last, so that both directions come about often.
loads = st.lists(st.tuples(LEVEL, st.integers(1, 20)), min_size=1, max_size=4).map(
    lambda parts: [value for value, count in parts for _ in range(count)]
)


@given(utilizations | loads, st.integers(1, 16), st.integers(0, 4), st.integers(0, 12))
@settings(deadline=None)
def test_limits_and_projection_hold(values: list[float | None], replicas: int, lowest: int, more: int) -> None:
    highest = max(1, lowest + more)
    found = decide_size(utilization_points(values, replicas), replicas, limits(lowest, highest), EVALUATION, AT)
    if found.reason:
        assert found.replicas == replicas
    if found.replicas > replicas:
        assert found.replicas <= highest
    if found.replicas < replicas <= highest:
        assert found.replicas >= max(1, lowest)
        assert found.projected_ratio is None or found.projected_ratio <= 0.85 + 1e-9
        recent = [value for value in values[-WINDOW:] if value is not None]
        assert max(recent) * replicas <= found.replicas + 1e-9  # whatever came in the window would have been served
        assert len(recent) == WINDOW


@given(loads, st.data())
@settings(deadline=None)
def test_missing_points_and_replicas_never_make_a_pool_smaller(values: list[float], data: st.DataObject) -> None:
    """Whatever is taken away within the trail, no smaller size comes out than from the whole of it."""
    whole = utilization_points(values)
    there = replicas_for(whole, 4)
    reporting = [data.draw(st.sampled_from([0, 1, 3, 4, 4, 4, 4])) for _ in whole[1:]]
    silenced = [
        dataclasses.replace(point, reporting=count, utilization_ratio=point.utilization_ratio if count == 4 else 0.0)
        for point, count in zip(whole[1:], reporting, strict=True)
        if count
    ]
    assert replicas_for([whole[0], *silenced], 4) >= min(there, 4)


@given(loads, st.integers(1, COOLDOWN), st.data())
@settings(deadline=None)
def test_growth_is_not_taken_back_within_the_cooldown(values: list[float], steps: int, data: st.DataObject) -> None:
    grown = replicas_for(utilization_points(values), 4)
    later = data.draw(st.lists(LEVEL, min_size=steps, max_size=steps))
    if grown > 4:
        points = utilization_points(values, 4, AT) + utilization_points(later, grown, AT + steps * STEP)
        assert replicas_for(points, grown, AT + steps * STEP) >= grown


@given(loads, st.lists(LEVEL.filter(lambda value: value < 0.98), min_size=1, max_size=COOLDOWN))
@settings(deadline=None)
def test_what_was_given_back_is_not_asked_for_within_the_cooldown_but_at_the_ceiling(
    values: list[float], later: list[float]
) -> None:
    less = replicas_for(utilization_points(values, 12), 12)
    if less < 12:
        points = utilization_points(values, 12) + utilization_points(later, less, AT + len(later) * STEP)
        assert replicas_for(points, less, AT + len(later) * STEP) <= less
        full = utilization_points(values, 12) + utilization_points([1.0], less, AT + STEP)
        assert replicas_for(full, less, AT + STEP) > less


@pytest.mark.parametrize(
    ("values", "replicas", "expected"),
    [
        ([0.95] * 60, 1, 2),  # not blocked by 48 % being below the lower threshold
        ([0.95] * 60, 16, 16),  # at its limit
        ([0.86] * 60, 4, 5),
        ([0.80] * 60, 4, 4),
        ([1.0] * 60, 8, 10),  # saturated: by a quarter of itself
        ([1.0], 2, 8),  # and by more while nothing is known of the pool
        ([1.0], 1, 4),
        ([0.2] * 60, 12, 3),
        ([0.5] * 60, 4, 4),  # one fewer is not worth it: 66 % would follow
        ([0.2] * (WINDOW - 1), 12, 12),  # not for long enough
        ([0.2] * 55 + [0.9] + [0.2] * 4, 12, 12),  # the peak is within the window
        ([0.2] * 4 + [None] + [0.2] * 4, 12, 12),  # and so may have been what is missing
        ([], 4, 4),
    ],
)
def test_sizes(values: list[float | None], replicas: int, expected: int) -> None:
    assert replicas_for(utilization_points(values, replicas), replicas) == expected


def test_restless_demand_gets_more_head_room_than_steady_demand_of_the_same_level() -> None:
    steady = decide_size(utilization_points([0.25] * 120, 16), 16, limits(), EVALUATION, AT)
    restless = decide_size(utilization_points([0.15, 0.35] * 60, 16), 16, limits(), EVALUATION, AT)
    assert steady.needed is not None
    assert restless.needed is not None
    assert steady.needed == pytest.approx(0.25 * 16 / 0.85)
    assert restless.needed > steady.needed + 1


def test_rising_demand_is_met_before_it_is_there() -> None:
    rising = decide_size(utilization_points([0.30 + 0.005 * i for i in range(60)], 8), 8, limits(), EVALUATION, AT)
    assert rising.level is not None
    assert rising.expected is not None
    assert rising.expected > rising.level
    slow = dataclasses.replace(limits(), start_delay_seconds=1200)
    slower = decide_size(utilization_points([0.30 + 0.005 * i for i in range(60)], 8), 8, slow, EVALUATION, AT)
    assert slower.expected is not None
    assert slower.expected > rising.expected  # what takes longer to start is looked further ahead for


def test_replicas_that_start_are_neither_asked_for_again_nor_given_back() -> None:
    assert decide_size(utilization_points([0.2] * 60, 4), 6, limits(), EVALUATION, AT, pending=2).replicas == 6
    saturated = decide_size(utilization_points([1.0] * 60, 8), 10, limits(), EVALUATION, AT, pending=2)
    assert saturated.replicas == 10


def simulate_replicas(demand: float, replicas: int, highest: int, steps: int, blind: bool = False) -> list[int]:
    """Replicas after each change, while the advice is followed at once. A blind server shows 100 % at any load."""
    points = list(utilization_points([0.5] * 60, replicas, AT - STEP)) if not blind else []
    sizes = [replicas]
    for step in range(steps):
        at = AT + step * STEP
        points.append(DemandPoint(at, replicas, replicas, 1.0 if blind else min(1.0, demand / replicas)))
        replicas = decide_size(points, replicas, limits(1, highest), EVALUATION, at).replicas
        if replicas != sizes[-1]:
            sizes.append(replicas)
    return sizes


@pytest.mark.parametrize("replicas", [1, 2, 4, 10, 40])
def test_three_times_the_capacity_is_reached_in_a_bounded_number_of_steps(replicas: int) -> None:
    sizes = simulate_replicas(3 * replicas, replicas, 10 * replicas, 30)
    assert max(sizes) >= 3 * replicas
    assert next(i for i, count in enumerate(sizes) if count >= 3 * replicas) <= 4


@pytest.mark.parametrize(("replicas", "highest"), [(1, 8), (2, 8), (2, 114), (4, 64), (10, 1000)])
def test_a_server_that_shows_100_percent_at_any_load_does_not_run_to_the_maximum(replicas: int, highest: int) -> None:
    sizes = simulate_replicas(0, replicas, highest, 600, blind=True)
    assert sizes[-1] < highest
    assert len(sizes) <= 4
    last = utilization_points([1.0] * 30, sizes[-1])
    found = decide_size(simulated_points(sizes, last), sizes[-1], limits(1, highest), EVALUATION, AT)
    assert found.saturated


def simulated_points(sizes: list[int], last: tuple[DemandPoint, ...]) -> list[DemandPoint]:
    before = [
        DemandPoint(last[0].at - STEP * (len(sizes) - i), count, count, 1.0) for i, count in enumerate(sizes[:-1])
    ]
    return [*before, *last]


def test_growing_that_does_not_help_is_reported() -> None:
    sizes = simulate_replicas(0, 2, 114, 60, blind=True)
    points = simulated_points(sizes, utilization_points([1.0] * 10, sizes[-1]))
    found = decide_size(points, sizes[-1], limits(1, 114), EVALUATION, AT)
    assert (found.exhausted, found.replicas) == (True, sizes[-1])


def test_a_demand_signal_sizes_in_one_step() -> None:
    points = [dataclasses.replace(point, signal_demand=4.0) for point in utilization_points([1.0] * 60)]
    points[-1] = dataclasses.replace(points[-1], signal_demand=12.0)
    assert replicas_for(points, 4) >= 12
    assert replicas_for(points[:-1], 4, AT - STEP) == 5  # 4 replicas' worth of work, at the threshold of 85 %


def test_missing_data_is_distinguished_from_a_smaller_pool() -> None:
    reporting = [(60.0, 4, 2.0), (120.0, 2, 1.0), (180.0, 4, 2.0), (240.0, 6, 2.0)]
    assert [point.replicas for point in demand_points(reporting, 6, 1)] == [4, 4, 4, 6]
    assert [point.reporting for point in demand_points(reporting, 6, 2)] == [2, 1, 2, 3]
    assert [point.replicas for point in demand_points([*reporting, (300.0, 3, 1.0)], 3, 1)] == [4, 4, 4, 6, 3]
    assert [point.replicas for point in demand_points([*reporting, (300.0, 3, 1.0)], 6, 1)] == [4, 4, 4, 6, 6]


def test_a_pool_keeps_a_replica_to_be_measured_by() -> None:
    assert decide_size(utilization_points([0.0] * 240, 4), 4, limits(0), EVALUATION, AT).replicas == 1
    assert decide_size((), 0, limits(0), EVALUATION, AT).replicas == 1


def test_too_few_points_decide_nothing() -> None:
    found = decide_size(utilization_points([0.95, None]), 4, limits(), EVALUATION, AT)
    assert found.reason is Reason.INSUFFICIENT_HISTORY
    assert (
        decide_size(utilization_points([0.95] * 60, at=AT - 10 * STEP), 4, limits(), EVALUATION, AT).reason is not None
    )
