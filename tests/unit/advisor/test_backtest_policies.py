"""Policies of a replay by numbers: what each makes of an observation, and the account of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from gpu_advisor.backtest.advisor_policy import AdvisorPolicy
from gpu_advisor.backtest.baselines import HpaPolicy, OraclePolicy, StaticPolicy, ThresholdPolicy, oracle_replicas
from gpu_advisor.backtest.compare import advisor_policy, compare_policies
from gpu_advisor.backtest.replay import Observation, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace, resample
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS
from gpu_advisor.evaluation.scaling.sizing import decide_size
from gpu_advisor.settings import GpuLimits, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

EVALUATION = Settings().evaluation
POOL = SimulatedPool(start=4, min=2, max=30, start_delay_seconds=120)


# Baselines


@pytest.mark.parametrize(
    ("demand", "replicas"), [(0, 0), (0.9, 1), (0.9 + 1e-10, 1), (0.91, 2), (1.8, 2), (9.0, 10), (9.1, 11)]
)
def test_the_oracle_plans_for_nine_tenths(demand: float, replicas: int) -> None:
    assert oracle_replicas(demand) == replicas


def test_the_oracle_knows_the_next_interval_and_stays_where_nothing_is_known() -> None:
    policy = OraclePolicy((1.0, 8.1, None, 2.0), 60)
    assert [policy(Observation(60 * (i + 1), 5, 0, 0.5)) for i in range(4)] == [9, 5, 3, 5]


@pytest.mark.parametrize(
    ("utilization", "ready", "pending", "wanted"),
    [
        (0.769, 10, 0, 10),  # within the tolerance of a tenth
        (0.771, 10, 0, 12),
        (0.63, 10, 0, 10),
        (0.62, 10, 0, 9),
        (0.8, 10, 5, 15),  # those that start count as idle, and do not reverse the direction
        (1.0, 10, 2, 15),
        (None, 10, 3, 13),
        (0.7, 10, 3, 13),
        (0.35, 10, 3, 5),
        (0.84, 5, 0, 6),  # exactly six
    ],
)
def test_hpa_by_numbers(utilization: float | None, ready: int, pending: int, wanted: int) -> None:
    assert HpaPolicy(0.7)(Observation(0, ready, pending, utilization)) == wanted


@pytest.mark.parametrize(("utilization", "wanted"), [(0.5625, 8), (0.563, 10), (0.4375, 8), (0.437, 7)])
def test_hpas_tolerance_is_inclusive(utilization: float, wanted: int) -> None:
    assert HpaPolicy(0.5, tolerance=0.125)(Observation(0, 8, 0, utilization)) == wanted


def test_hpa_shrinks_after_its_stabilization_window() -> None:
    policy = HpaPolicy(0.7, stabilization_seconds=120)
    policy(Observation(0, 10, 0, 0.7))
    assert policy(Observation(119, 10, 0, 0.35)) == 10
    assert policy(Observation(120, 10, 0, 0.35)) == 5


@pytest.mark.parametrize(("utilization", "wanted"), [(0.851, 7), (0.85, 6), (0.7, 6), (0.6, 6), (0.599, 5), (None, 6)])
def test_thresholds_count_what_starts(utilization: float | None, wanted: int) -> None:
    assert ThresholdPolicy(0.85, 0.6)(Observation(0, 4, 2, utilization)) == wanted
    assert StaticPolicy(3)(Observation(0, 4, 2, utilization)) == 3


# The advisor


def observations(values: Sequence[float | None], interval: float, ready: int, pending: int) -> list[Observation]:
    return [Observation(interval * (i + 1), ready, pending, value) for i, value in enumerate(values)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([None, 0.2, 0.5, 0.95, 1.0]), min_size=1, max_size=80),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([60, 900, 7200]),
)
def test_the_replayed_decision_is_that_of_the_engine_on_the_same_history(
    values: list[float | None], ready: int, pending: int, interval: int
) -> None:
    policy = advisor_policy(Trace(interval, ()), POOL, GpuLimits(), EVALUATION)
    history: list[DemandPoint] = []
    for seen in observations(values, interval, ready, pending):
        if seen.utilization_ratio is not None:
            history.append(DemandPoint(seen.at, ready, ready, seen.utilization_ratio))
        recent = [point for point in history if point.at > seen.at - LONG_HISTORY_SECONDS]
        wanted = decide_size(
            recent, ready + pending, policy.limits,
            EVALUATION.model_copy(update={"step_seconds": interval}), seen.at, pending,
        ).replicas  # fmt: skip
        assert policy(seen) == wanted
        assert list(policy._history) == recent


def test_the_advisor_is_held_to_the_pools_limits_and_to_the_settings_thresholds() -> None:
    gpu = GpuLimits(min=7, max=8, scale_up_threshold=80, scale_down_threshold=40, target_utilization=85)
    policy = advisor_policy(Trace(300, ()), POOL, gpu, EVALUATION)
    assert isinstance(policy, AdvisorPolicy)
    limits = policy.limits
    assert (limits.min, limits.max, limits.start_delay_seconds) == (2, 30, 120)
    assert (limits.scale_up_ratio, limits.scale_down_ratio) == pytest.approx((0.8, 0.4))
    assert policy.evaluation.step_seconds == 300


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000), st.integers(62, 180))
def test_with_an_slo_the_future_changes_nothing_before_it(seed: int, now: int) -> None:
    random = Random(seed)
    demand = [random.choice((2.0, 3.0, 4.0, 9.0)) for _ in range(190)]
    changed = demand[:now] + [20.0] * (190 - now)
    sizes: list[list[int]] = []
    for values in (demand, changed):
        policy = advisor_policy(Trace(60, ()), POOL, GpuLimits(), EVALUATION, 0.002)
        seen: list[int] = []

        def recorded(observed: Observation, policy: AdvisorPolicy = policy, seen: list[int] = seen) -> int:
            seen.append(policy(observed))
            return seen[-1]

        replay(Trace(60, tuple(values)), recorded, POOL)
        sizes.append(seen)
    assert sizes[0][:now] == sizes[1][:now]
    assert all(POOL.min <= size <= POOL.max for size in sizes[0])


# Comparison


def test_each_policy_is_replayed_from_its_start() -> None:
    demand = (9.0, 9.0, None, 18.0, 0.9, 0.0)
    trace = Trace(60, demand)
    found = compare_policies(trace, POOL, GpuLimits(), EVALUATION)
    pool = SimulatedPool(10, 2, 30, 0)  # the oracle starts with what the first interval needs, and at once
    assert found["oracle"] == replay(trace, OraclePolicy(demand, 60), pool)
    assert found["oracle"].gpu_hours == pytest.approx((10 + 10 + 10 + 20 + 2 + 2) / 60)
    assert found["oracle"].unserved_ratio == 0
    assert found["static"].gpu_hours == pytest.approx(6 * 30 / 60)
    assert found["threshold_85_60"] == replay(trace, ThresholdPolicy(0.85, 0.6), POOL)
    assert found["hpa_50"] == replay(trace, HpaPolicy(0.5), POOL)
    assert found["advisor"] == replay(trace, advisor_policy(trace, POOL, GpuLimits(), EVALUATION), POOL)


@pytest.mark.parametrize(("first", "start"), [(None, 2), (0.0, 2), (4.5, 5), (99.0, 30)])
def test_the_oracles_start_is_within_the_limits(first: float | None, start: int) -> None:
    found = compare_policies(Trace(60, (first,)), POOL, GpuLimits(), EVALUATION)["oracle"]
    assert found.gpu_hours == pytest.approx(start / 60)


@pytest.mark.parametrize("utilization", [0.61, 0.84])
def test_thresholds_of_the_comparison(utilization: float) -> None:
    """Between 60 and 85 % nothing is changed; just outside it is."""
    steady = compare_policies(Trace(60, (4 * utilization,) * 5), POOL, GpuLimits(), EVALUATION)["threshold_85_60"]
    assert steady.actions == 0
    outside = 0.59 if utilization < 0.7 else 0.86
    moved = compare_policies(Trace(60, (4 * outside,)), POOL, GpuLimits(), EVALUATION)["threshold_85_60"]
    assert moved.actions == 1


# The account


class Scripted:
    def __init__(self, wanted: Sequence[int]) -> None:
        self.wanted = list(wanted)

    def __call__(self, observed: Observation, /) -> int:
        return self.wanted.pop(0)


@pytest.mark.parametrize(
    ("wanted", "actions", "reversals"),
    [
        ([4, 4, 4], 0, 0),
        ([5, 6, 7], 3, 0),
        ([3, 2, 2], 2, 0),
        ([5, 4, 5], 3, 2),
        ([5, 5, 4], 2, 1),
        ([3, 3, 4], 2, 1),
        ([5, 4, 4], 2, 1),
        ([3, 2, 3], 3, 1),
    ],
)
def test_a_reversal_is_a_change_against_the_one_before(wanted: list[int], actions: int, reversals: int) -> None:
    found = replay(Trace(60, (1.0,) * 3), Scripted(wanted), SimulatedPool(4, 1, 9, 600))
    assert (found.actions, found.reversals) == (actions, reversals)


@pytest.mark.parametrize(("delay", "ready"), [(0, [1, 3, 3, 3]), (60, [1, 1, 3, 3]), (61, [1, 1, 1, 3])])
def test_a_replica_serves_from_the_first_interval_that_begins_after_its_delay(delay: float, ready: list[int]) -> None:
    seen: list[Observation] = []

    def policy(observed: Observation, /) -> int:
        seen.append(observed)
        return 3

    found = replay(Trace(60, (2.0,) * 4), policy, SimulatedPool(1, 1, 9, delay))
    assert [each.ready for each in seen] == ready
    assert [each.at for each in seen] == [60, 120, 180, 240]
    assert found.unserved_ratio == pytest.approx(sum(max(0, 2 - each) for each in ready) / 8)
    assert found.time_under_ratio == pytest.approx(ready.count(1) / 4)
    assert found.gpu_hours == pytest.approx((1 + 3 + 3 + 3) / 60)


def test_without_a_replica_there_is_no_utilization() -> None:
    seen: list[Observation] = []

    def policy(observed: Observation, /) -> int:
        seen.append(observed)
        return 0

    found = replay(Trace(60, (0.0, 2.0)), policy, SimulatedPool(0, 0, 9, 0))
    assert [each.utilization_ratio for each in seen] == [None, None]
    assert (found.unserved_ratio, found.time_under_ratio, found.gpu_hours) == (1.0, 0.5, 0.0)
    nothing = replay(Trace(60, (0.0, None)), Scripted([1, 1]), SimulatedPool(1, 0, 9, 0))
    assert (nothing.unserved_ratio, nothing.time_under_ratio) == (0.0, 0.0)


# Traces


@pytest.mark.parametrize(
    ("rows", "demand"),
    [
        ([(0, 3)], [3]),
        ([(0, 1), (60, 3), (120, 5)], [1, 3, 5]),
        ([(0, 1), (90, 3)], [1, 2, 3]),  # 60-90 by the first, 90-120 by the second: half each
        ([(0, 1), (60, 3), (120, 3), (210, 5)], [1, 3, 3, 4]),  # one and a half times the distance is no gap
        ([(0, 1), (60, 3), (120, 3), (211, 5)], [1, 3, 3, None, 5]),  # more is
        ([(0, 4), (20, 1), (40, 1), (60, 7), (80, 7), (100, 7)], [2, 7]),
        ([(1000, 1), (1060, 2)], [1, 2]),
        ([(0, 2), (60, 2), (120, 2), (180, 2), (195, 8)], [2, 2, 2, 6.5]),
    ],
)
def test_rows_are_averaged_by_time(rows: list[tuple[float, float]], demand: list[float | None]) -> None:
    found = resample(rows, 60).demand
    assert found == tuple(None if each is None else pytest.approx(each) for each in demand)
