"""Headroom tuned to a share of windows, over a demand that servers count."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gpu_advisor.evaluation.scaling.candidate_replay import CandidateReplay
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand
from gpu_advisor.evaluation.scaling.headroom import TunedHeadroom
from gpu_advisor.evaluation.scaling.sizing import (
    CountedDemand,
    ScalingLimits,
    Windows,
    decide_size,
    sizing_rules,
    tuned_headroom,
)
from gpu_advisor.settings import EvaluationSettings

EVALUATION = EvaluationSettings()
STEP, WINDOW = EVALUATION.step_seconds, 5
LIMITS = ScalingLimits(1, 60, 0.85, 0.6, 180)
START = 1_800_000_000 // 3600 * 3600
RULES = replace(
    sizing_rules(LIMITS.for_objective(), EVALUATION), counted=True, window_steps=WINDOW, up_steps=1, down_steps=5
)


def recorded(values: list[float]) -> RecordedDemand:
    count = len(values)
    return RecordedDemand(tuple(values), (100.0,) * count, (False,) * count, has_signal=True)


def points(values: list[float]) -> list[DemandPoint]:
    return [DemandPoint(START + STEP * index, 20, 20, 0.5, value) for index, value in enumerate(values)]


def bursts(seed: int, steps: int = 1440) -> list[float]:
    random = np.random.default_rng(seed)
    values = 8 + random.normal(0, 0.3, steps)
    for first in random.integers(0, steps, steps // 60):
        values[first : first + random.integers(1, 9)] += random.uniform(1, 8)
    return [float(value) for value in values]


def tuned(values: list[float], ratio: float, limits: ScalingLimits = LIMITS) -> TunedHeadroom:
    history = points(values)
    return tuned_headroom(history, limits, EVALUATION, history[-1].at, ratio, 0, CountedDemand(0.25), Windows(WINDOW))


@pytest.mark.parametrize(
    ("late", "windows"),
    [([], 0), ([60], 5), ([60, 61], 6), ([60, 64], 9), ([60, 65], 10), ([30], 1), ([149], 1)],
)
def test_a_window_with_a_late_step_is_missed(late: list[int], windows: int) -> None:
    """Windows of five steps begin at each step; a replay with at most 5 replicas is late where more is needed."""
    values = [9.0 if index in late else 4.0 for index in range(150)]
    found = CandidateReplay(recorded(values), replace(RULES, max=5))
    assert found.total == 120 - WINDOW + 1
    assert found.candidate(0.0).unserved == windows


def test_the_first_steps_of_a_lasting_rise_are_late_whatever_the_headroom() -> None:
    """A replica that is requested at the end of a step serves from the fourth step after it."""
    found = CandidateReplay(recorded([4.0] * 100 + [8.0] * 50), RULES)
    assert found.candidate(0.0).unserved == 4 + WINDOW - 1
    assert found.candidate(0.0, min_replicas=8).unserved == 0


def test_a_counted_demand_grows_without_a_cool_down() -> None:
    """A pool that was reduced a minute before the rise."""
    values = [12.0] * 60 + [4.0] * 7 + [12.0] * 60
    rules = replace(RULES, horizon=replace(RULES.horizon, level_half_life_steps=0.25))
    late = [
        CandidateReplay(recorded(values), replace(rules, counted=counted)).candidate(0.0).unserved
        for counted in (True, False)
    ]
    assert late[0] < late[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_stricter_objective_never_has_fewer_replicas(seed: int) -> None:
    values = bursts(seed)
    found = [tuned(values, ratio) for ratio in (0.001, 0.01, 0.05)]
    means = [each.chosen.replicas for each in found if each.chosen]
    assert all(strict >= lax for strict, lax in pairwise(means))
    assert means[0] > means[-1]
    for each, ratio in zip(found, (0.001, 0.01, 0.05), strict=True):
        assert each.of_windows
        assert each.reached_ratio is not None
        assert each.reached_ratio <= 1.5 * ratio
    ratios = [point.unserved_ratio for point in found[1].frontier]
    assert ratios == sorted(ratios)


def test_calm_needs_less_than_the_default() -> None:
    calm = [8 + 0.2 * (index % 3) for index in range(1440)]
    found = tuned(calm, 0.01)
    assert found.deviations < EVALUATION.headroom_deviations
    at = START + STEP * 1439
    sizes = [
        decide_size(points(calm), 12, LIMITS, EVALUATION, at, headroom=each, counted=CountedDemand(0.25)).replicas
        for each in (found, TunedHeadroom(3.5))
    ]
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize("minutes", [20, 59])
def test_without_an_hour_of_history_it_is_the_default(minutes: int) -> None:
    found = tuned(bursts(1, minutes), 0.01)
    assert (found.deviations, found.chosen, found.of_windows) == (EVALUATION.headroom_deviations, None, True)
    assert found.missing_seconds == 3600 - 60 * minutes


def test_an_objective_beyond_the_maximum_is_out_of_reach() -> None:
    assert tuned([8.0, 12.0] * 400, 0.01, replace(LIMITS, max=9)).is_out_of_reach
