"""A short run of benchmarks/accuracy.py, and its fake driver. The full run: `python -m benchmarks.accuracy`."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from benchmarks.accuracy import (
    BUSY_SIGNALS,
    GOAL_ERROR_RATIO,
    READ_METHODS,
    BusySignal,
    Errors,
    ReadMethod,
    SimulatedDriver,
    figures,
    goals,
    measure,
)

SEEDS = 8


@pytest.fixture(scope="module")
def measured_errors() -> dict[ReadMethod, dict[str, list[Errors]]]:
    return measure(list(READ_METHODS), SEEDS)


def test_counter_error_is_within_one_percentage_point(
    measured_errors: dict[ReadMethod, dict[str, list[Errors]]],
) -> None:
    for way, loads in measured_errors.items():
        if READ_METHODS[way]:
            for name, errors in loads.items():
                assert max(error.counter for error in errors) <= GOAL_ERROR_RATIO, f"{way}, {name}"


def test_gauge_error_is_larger(measured_errors: dict[ReadMethod, dict[str, list[Errors]]]) -> None:
    """Otherwise the benchmark could not distinguish the two."""
    for way, loads in measured_errors.items():
        assert max(error.gauge for error in loads["period 15 s"]) > 10 * GOAL_ERROR_RATIO, way


def test_gauge_polled_less_often_than_it_averages_misses_the_target(
    measured_errors: dict[ReadMethod, dict[str, list[Errors]]],
) -> None:
    verdicts = {goal.text: goal for goal in goals(measured_errors)}
    rare = ReadMethod(1 / 6, buffer=False, interval=1.0)
    goal = verdicts[f"{rare}: within a point"]
    assert goal.stretch
    assert not goal.met


def test_worst_window_decides() -> None:
    way = next(iter(READ_METHODS))
    [goal] = goals({way: {"some": [Errors(0, 0, 0)] * 99 + [Errors(0.0101, 0, 0)]}})
    assert not goal.met
    assert not goal.stretch
    assert figures([Errors(0.01, 0.2, 0.03)])["gauge"] == {"p50": 0.2, "p95": 0.2, "max": 0.2}


@pytest.mark.parametrize("name", BUSY_SIGNALS)
def test_busy_seconds_are_the_integral_of_the_load(name: str) -> None:
    load = BUSY_SIGNALS[name](random.Random(3), 60.0)
    steps = [k / 1000 for k in range(60_001)]
    busy = [load.busy_seconds(at) for at in steps]
    rises = [after - before for before, after in pairwise(busy)]
    assert all(-1e-9 <= rise <= 0.001 + 1e-9 for rise in rises)
    # Constant between two edges.
    assert sum(1e-9 < rise < 0.001 - 1e-9 for rise in rises) <= 60 / 0.3 * 2 + 4
    assert 0 < busy[-1] < 60


def test_driver_returns_each_completed_period_once() -> None:
    load = BusySignal([0.0, 1.0, 2.0, 3.0])
    driver = SimulatedDriver(load, 0.5, random.Random(1))
    seen: list[tuple[int, float]] = []
    for now in (1.2, 1.3, 2.9, 3.6):
        fresh = driver.newer_than(seen[-1][0] if seen else 0, now)
        assert all(stamp / 1e6 <= now for stamp, _ in fresh)
        seen += fresh
        assert seen[-1][1] == driver.gauge(now)
    stamps = [stamp for stamp, _ in seen]
    assert stamps == sorted(set(stamps))
    assert all(0.49e6 < after - before < 0.51e6 for before, after in pairwise(stamps))
    assert {0.0, 100.0} <= {percent for _, percent in seen}
