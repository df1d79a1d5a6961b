"""What bounds the back-tests: tails of bursts, days of a recorded hour, GPU-hours between two amounts of headroom."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.demand import FLEETS, Demand, generate_demand
from benchmarks.demand_families import LARGEST_TAIL_BURST, SMALLEST_TAIL_BURST, TAIL_SHAPE
from benchmarks.forecast_bound import VARIANTS, KnownDay, gpu_hours, pattern_of, saved
from benchmarks.heavy_tail_bound import SPARE_GPUS, estimated_excess, true_excess, unserved
from benchmarks.recorded_day import MEAN_GPUS, day_of, working_day


def bursts(count: int, largest: float) -> Demand:
    sizes = SMALLEST_TAIL_BURST * (np.random.default_rng(1).pareto(TAIL_SHAPE, count) + 1)
    return np.asarray(np.minimum(largest, sizes))


@pytest.mark.parametrize("spare", [2, 5, 20])
def test_the_true_excess_is_that_of_the_bursts(spare: int) -> None:
    sizes = bursts(500_000, LARGEST_TAIL_BURST)
    assert true_excess(SPARE_GPUS)[spare] == pytest.approx(np.maximum(0, sizes - spare).mean(), rel=0.1)


@pytest.mark.parametrize("spare", [2, 5, 20])
def test_the_estimated_excess_of_many_bursts_is_the_true_one(spare: int) -> None:
    found = estimated_excess(bursts(200_000, np.inf), SPARE_GPUS)[spare]
    unlimited = SMALLEST_TAIL_BURST**TAIL_SHAPE / (TAIL_SHAPE - 1) * spare ** (1 - TAIL_SHAPE)
    assert found == pytest.approx(unlimited, rel=0.2)


def test_a_light_tail_ends() -> None:
    """Uniform sizes have a negative shape: nothing is beyond the largest."""
    found = estimated_excess(np.random.default_rng(1).uniform(1, 10, 10_000), SPARE_GPUS)
    assert found[7] == pytest.approx(np.mean(np.maximum(0, np.linspace(1, 10, 1000) - 7)), rel=0.1)
    assert found[12] == 0
    assert np.isinf(found[5])  # below the threshold nothing was fitted


def test_the_oracle_serves_what_lasts_longer_than_a_start() -> None:
    day = np.zeros((1, 1440))
    day[0, 100:110] = 60.0
    shares, hours = unserved(day, 0)
    assert 0 < shares[0] < 0.3
    assert unserved(day, 60)[0][0] == 0
    assert hours[0] < unserved(day, 60)[1][0]


def test_a_day_of_an_hour_has_its_bursts_and_the_pattern_of_a_working_day() -> None:
    hour = np.random.default_rng(2).gamma(2.0, 1.0, 60)
    days = np.array([day_of(hour, seed) for seed in range(40)])
    assert np.array_equal(day_of(hour, 3), days[3])
    assert not np.array_equal(days[3], days[4])
    assert days.mean() == pytest.approx(MEAN_GPUS, rel=0.05)
    assert np.allclose(days.mean(axis=0).reshape(24, 60).mean(axis=1), MEAN_GPUS * working_day()[30::60], rtol=0.25)
    assert set(np.round(days[0] / (MEAN_GPUS * working_day()), 9)) <= set(np.round(hour / hour.mean(), 9))


def test_a_known_pattern_is_worth_something_where_only_the_pattern_changes() -> None:
    """A day that is its pattern needs the fewest GPU-hours if that is known; `as it is` saves nothing."""
    of = next(iter(FLEETS.values()))
    days = [KnownDay(generate_demand(of, 1), pattern_of(of))]
    base = gpu_hours(days, VARIANTS["as it is"])
    assert set(saved(base, base).values()) == {0.0}
    assert saved(gpu_hours(days, VARIANTS["pattern known"]), base) != saved(base, base)
    pattern = 12 * working_day()
    steady = [KnownDay(np.asarray(np.random.default_rng(1).poisson(pattern / 0.3) * 0.3, dtype=np.float64), pattern)]
    gains = saved(gpu_hours(steady, VARIANTS["pattern known"]), gpu_hours(steady, VARIANTS["as it is"]))
    assert gains
    assert min(gains.values()) > 0


def test_a_mean_pattern_is_that_of_many_days() -> None:
    for of in list(FLEETS.values())[:2]:
        days = np.array([generate_demand(of, seed) for seed in range(30)])
        assert days.mean() == pytest.approx(pattern_of(of).mean(), rel=0.1)
