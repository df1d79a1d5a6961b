"""The load at which windows miss their objectives, learned from a past whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from gpu_advisor.evaluation.serving.facts import DemandSample
from gpu_advisor.evaluation.serving.groups import Objectives
from gpu_advisor.evaluation.serving.missed_load import LEAST_RATIO, MOST_RATIO, MissedLoad, learn_missed_load

WORK, REPLICAS, STEP, WINDOW = 1000.0, 10, 60, 5
OBJECTIVES = Objectives(1.0, 0.05)


def day(loads: np.ndarray, misses: Callable[[float], bool | None], ttft: bool = True) -> list[DemandSample]:
    """Windows whose worst step decides; the other latency keeps its objective."""
    found = []
    for index, load in enumerate(loads):
        worst = float(loads[max(0, index - WINDOW + 1) : index + 1].max())
        late = misses(worst)
        latency = None if late is None else 2.0 if late else 0.5
        latencies = {"ttft_p95": latency, "itl_p95": 0.04} if ttft else {"itl_p95": latency and latency / 20}
        tokens = float(load) * REPLICAS * WORK
        known = latencies if late is not None else {}
        found.append(DemandSample(STEP * index, REPLICAS, tokens, 0.0, **known))
    return found


def learn(samples: list[DemandSample], objectives: Objectives = OBJECTIVES) -> MissedLoad:
    return learn_missed_load(samples, WORK, objectives, WINDOW, STEP)


def loads(seed: int, low: float = 0.3, high: float = 1.3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, 1440)


@pytest.mark.parametrize("threshold", [0.7, 0.85, 1.0, 1.15])
@pytest.mark.parametrize("ttft", [True, False])
def test_a_sharp_limit_is_found(threshold: float, ttft: bool) -> None:
    slow = np.repeat(loads(1)[:288], 5)  # loads that last for a window
    found = learn(day(slow, lambda load: load > threshold, ttft))
    assert found.ratio == pytest.approx(threshold, rel=0.05)
    assert found.slope > 15
    assert 0 < found.missed < found.windows


@pytest.mark.parametrize("slope", [5.0, 15.0])
def test_a_blurred_limit_is_found_with_its_slope(slope: float) -> None:
    draw = np.random.default_rng(2)
    slow = np.repeat(loads(3)[:288], 5)
    found = learn(day(slow, lambda load: bool(draw.random() < 1 / (1 + (0.9 / load) ** slope))))
    assert found.ratio == pytest.approx(0.9, rel=0.07)
    assert found.slope == pytest.approx(slope, rel=0.35)


@pytest.mark.parametrize("most", [0.3, 0.8, 1.05])
def test_without_a_miss_the_model_holds_and_more_load_raises_what_is_believed(most: float) -> None:
    found = learn(day(loads(4, 0.2, most), lambda load: False))
    assert 0.97 <= found.ratio <= MOST_RATIO
    assert found.missed == 0


def test_what_misses_whatever_the_load_says_little_about_replicas() -> None:
    """Long prompts, one window in five: the slope is flat, and no size looks much better than another."""
    draw = np.random.default_rng(5)
    found = learn(day(np.repeat(loads(6, 0.3, 0.9)[:288], 5), lambda load: bool(draw.random() < 0.2)))
    assert found.slope < 5
    assert found.ratio >= LEAST_RATIO


@pytest.mark.parametrize("objectives", [Objectives(1.0, None), Objectives(None, 0.05), OBJECTIVES])
def test_only_latencies_with_an_objective_count(objectives: Objectives) -> None:
    samples = day(np.repeat(loads(7)[:288], 5), lambda load: load > 0.8)
    assert (learn(samples, objectives).missed > 0) == (objectives.ttft is not None)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        day(loads(8), lambda load: None),  # no histograms
        day(loads(8, 0.0, 0.1), lambda load: True),  # nothing to do with the load
        day(loads(8), lambda load: load > 0.8)[::3],  # no window is whole
    ],
)
def test_without_evidence_the_step_time_model_counts(samples: list[DemandSample]) -> None:
    found = learn(samples)
    assert (found.ratio, math.isinf(found.slope), found.windows) == (1.0, True, 0)
