"""Telemetry faults over days of demand: no pool gets smaller by what is missing.

A day is replayed with a sensor that fails. Whenever the pool would shrink, the same decision is asked again of the
whole of the trail, with nothing missing: it must shrink at least as far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, demand_points
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision, decide_size
from gpu_advisor.settings import EvaluationSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.demand import FLEETS, generate_demand

EVALUATION = EvaluationSettings()
STEP = EVALUATION.step_seconds
LIMITS = ScalingLimits(1, 114, scale_up_ratio=0.85, scale_down_ratio=0.60)

#: What the data source adds up in a step: (Unix time, GPUs reporting, their work), or nothing.
Answer = tuple[float, int, float] | None
Fault = Callable[[np.random.Generator, Answer], Answer]


def drop_points(random: np.random.Generator, answer: Answer) -> Answer:
    return None


def drop_half(random: np.random.Generator, answer: Answer) -> Answer:
    if answer is None:
        return None
    at, gpus, busy = answer
    silent = gpus // 2
    idlest, busiest = max(0.0, busy - silent), min(busy, gpus - silent)  # those that report may be the idle ones
    return at, gpus - silent, random.uniform(idlest, busiest)


#: A NaN is like a dropped scrape: the sum over the pool is NaN then, which no source hands on.
FAULTS: dict[str, Fault] = {"dropped scrapes, NaN": drop_points, "half of the nodes silent": drop_half}


@dataclass
class FaultyPool:
    """A pool whose advice is followed at once, seen through a sensor that fails in some spans."""

    demand: Sequence[float]
    fault: Fault
    failing: Callable[[int], bool]
    seed: int

    def decisions(self) -> list[tuple[int, SizingDecision, SizingDecision]]:
        """(replicas, decision from what was seen, decision from all there was) of each step."""
        random = np.random.default_rng(self.seed)
        replicas = 12
        whole: list[tuple[float, int, float]] = []
        seen: list[tuple[float, int, float]] = []
        found = []
        for index, demand in enumerate(self.demand):
            at = float(index * STEP)
            truth = (at, replicas, min(float(replicas), demand))
            whole.append(truth)
            answer = self.fault(random, truth) if self.failing(index) else truth
            if answer is not None:
                seen.append(answer)
            if seen:
                reported = self._decided(seen, replicas, at)
                found.append((replicas, reported, self._decided(whole, replicas, at)))
                # Live, a pool with a GPU not reporting is not sized; and a replica that starts without reporting is
                # indistinguishable from one that existed and reported late.
                if not (self.failing(index) or self.failing(index + 1)):
                    replicas = reported.replicas
        return found

    def _decided(self, samples: list[tuple[float, int, float]], replicas: int, at: float) -> SizingDecision:
        return decide_size(demand_points(samples, replicas, 1), replicas, LIMITS, EVALUATION, at)


days = st.builds(
    lambda name, seed, begin: generate_demand(FLEETS[name], seed)[begin : begin + 100].tolist(),
    st.sampled_from(sorted(FLEETS)),
    st.integers(0, 1000),
    st.integers(0, 1200),
)
spans = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 30)), min_size=1, max_size=6)


@pytest.mark.parametrize("name", sorted(FAULTS))
@given(demand=days, failing=spans, seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_no_scale_down_comes_from_missing_data(
    name: str, demand: list[float], failing: list[tuple[int, int]], seed: int
) -> None:
    def fails(index: int) -> bool:
        return any(begin <= index < begin + length for begin, length in failing)

    for index, (replicas, reported, whole) in enumerate(FaultyPool(demand, FAULTS[name], fails, seed).decisions()):
        if reported.replicas < replicas:
            assert not fails(index)
            assert whole.replicas <= reported.replicas


@pytest.mark.parametrize("silent", [1, 3, 10, 60])
def test_missing_data_is_reported_by_type(silent: int) -> None:
    points = [DemandPoint(float(STEP * i), 8, 8, 0.1) for i in range(120)]
    at = float(STEP * (119 + silent))
    assert decide_size(points, 8, LIMITS, EVALUATION, at).reason is Reason.INSUFFICIENT_HISTORY
    after = [*points, *(DemandPoint(at + STEP * i, 8, 8, 0.1) for i in range(1, 4))]
    found = decide_size(after, 8, LIMITS, EVALUATION, at + 3 * STEP)
    assert (found.replicas, found.reason) == (8, Reason.INSUFFICIENT_HISTORY)


@given(st.integers(1, 7200), st.integers(1, 60))
@settings(deadline=None)
def test_samples_from_the_future_decide_nothing(jump: int, since: int) -> None:
    """The clock of the source's machine steps forward, and back: what it wrote meanwhile lies ahead."""
    points = [DemandPoint(float(STEP * i), 8, 8, 0.5) for i in range(120)]
    ahead = [DemandPoint(float(STEP * (120 + i + jump // STEP)), 8, 8, 0.05) for i in range(since)]
    at = float(STEP * 119)
    assert decide_size([*points, *ahead], 8, LIMITS, EVALUATION, at) == decide_size(points, 8, LIMITS, EVALUATION, at)


@pytest.mark.parametrize("jump", [120, 600, 3600])
def test_a_clock_that_steps_forward_leaves_a_gap_and_not_a_reason_to_shrink(jump: int) -> None:
    points = [DemandPoint(float(STEP * i), 8, 8, 0.1) for i in range(120)]
    at = float(STEP * 119 + jump)
    found = decide_size([*points, DemandPoint(at, 8, 8, 0.1)], 8, LIMITS, EVALUATION, at)
    assert (found.replicas, found.reason) == (8, Reason.INSUFFICIENT_HISTORY)


@given(st.lists(st.floats(0, 1), min_size=30, max_size=60), st.data())
@settings(deadline=None)
def test_counter_resets_and_readings_that_cannot_be_leave_no_point(values: list[float], data: st.DataObject) -> None:
    """A rate over a reset may overshoot, and some exporters say 1e18 for 'no value': neither is a demand."""
    samples = [(float(STEP * i), 4, 4 * value) for i, value in enumerate(values)]
    wrong = data.draw(st.sampled_from([-4.0, 1e18, 9.0]))
    odd = data.draw(st.integers(0, len(samples) - 1))
    broken = [*samples]
    broken[odd] = (samples[odd][0], 4, wrong)
    at = samples[-1][0]
    without = [each for index, each in enumerate(samples) if index != odd]
    assert [point.at for point in demand_points(broken, 4, 1)] == [each[0] for each in without]
    reported = decide_size(demand_points(broken, 4, 1), 4, LIMITS, EVALUATION, at)
    assert reported == decide_size(demand_points(without, 4, 1), 4, LIMITS, EVALUATION, at)


def test_the_check_itself_can_fail() -> None:
    """Points that say less than there was make a pool smaller: that is what must not reach the trail."""
    points = [DemandPoint(float(STEP * i), 12, 12, 0.5) for i in range(60)]
    lying = [replace(point, utilization_ratio=0.1) for point in points]
    at = float(STEP * 59)
    assert (
        decide_size(lying, 12, LIMITS, EVALUATION, at).replicas
        < decide_size(points, 12, LIMITS, EVALUATION, at).replicas
    )
