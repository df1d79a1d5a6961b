"""Families of two days for SLO back-tests: the first is history, the second is measured. Pure functions of a seed.

Beside the fleets of benchmarks/demand.py: a working day and a weekend, a flat load, ramps, steps, on and off, bursts on
a flat load, and bursts with a heavy tail (Pareto sizes of shape 1.8, whose variance is infinite).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.demand import FLEETS, MINUTES_OF_DAY, Demand, FleetDemand, generate_demand

MINUTES = 2 * MINUTES_OF_DAY

#: Work of a request in GPU-minutes.
REQUEST_WORK = 0.1

#: Heavy-tailed bursts: Pareto sizes in GPUs, at most the largest.
TAIL_BURSTS_PER_HOUR, TAIL_SHAPE, SMALLEST_TAIL_BURST, LARGEST_TAIL_BURST = 6, 1.8, 1.2, 40.0


def fleet_days(of: FleetDemand, seed: int) -> Demand:
    return generate_demand(replace(of, days=2), seed)


def weekend_days(seed: int) -> Demand:
    """A Friday and a Saturday."""
    week = FleetDemand(4, 12, 1, REQUEST_WORK, 1, 0.1, 30, 0, 1, 0.1, 1, 0, 14, days=7, weekend=0.3)
    return generate_demand(week, seed)[4 * MINUTES_OF_DAY : 6 * MINUTES_OF_DAY]


def flat_days(seed: int) -> Demand:
    return _requests(np.full(MINUTES, 10.0), np.random.default_rng(seed))


def ramp_days(seed: int) -> Demand:
    """From level to level within one to five hours."""
    random = np.random.default_rng(seed)
    times, levels = [0.0], [3.0]
    while times[-1] < MINUTES:
        times.append(times[-1] + random.uniform(60, 300))
        levels.append(random.choice([2, 5, 10, 25, 40]))
    return _requests(np.interp(np.arange(MINUTES), times, levels), random)


def step_days(seed: int) -> Demand:
    """From level to level at once, every one and a half to six hours."""
    random = np.random.default_rng(seed)
    levels: list[float] = []
    while len(levels) < MINUTES:
        levels += [float(random.choice([3, 4, 6, 10, 12, 20, 30]))] * int(random.uniform(90, 360))
    return _requests(np.array(levels[:MINUTES]), random)


def on_off_days(seed: int) -> Demand:
    """All or nothing: about an hour each."""
    random = np.random.default_rng(seed)
    found = np.zeros(MINUTES)
    at = 0
    while at < MINUTES:
        busy, idle = random.exponential(60), random.exponential(60)
        found[at : at + int(busy)] = 8 * random.uniform(0.95, 1.0)
        at += int(busy + idle) + 1
    return found


def burst_days(seed: int) -> Demand:
    """Four bursts an hour, of two to six GPUs for some minutes, on a flat load."""
    random = np.random.default_rng(seed)
    found = _requests(np.full(MINUTES, 6.0), random)
    for start in np.nonzero(random.random(MINUTES) < 4 / 60)[0]:
        found[start : start + max(1, int(random.exponential(5)))] += random.uniform(2, 6)
    return found


def heavy_tailed_levels() -> Demand:
    """The daily pattern below the bursts of `heavy_tailed_days`."""
    levels: Demand = 8 * (1 + 0.6 * np.sin(2 * np.pi * np.arange(MINUTES) / MINUTES_OF_DAY))
    return levels


def heavy_tailed_days(seed: int) -> Demand:
    """Bursts with Pareto sizes on a daily pattern."""
    random = np.random.default_rng(seed)
    found = _requests(heavy_tailed_levels(), random)
    for start in np.nonzero(random.random(MINUTES) < TAIL_BURSTS_PER_HOUR / 60)[0]:
        size = min(LARGEST_TAIL_BURST, SMALLEST_TAIL_BURST * (random.pareto(TAIL_SHAPE) + 1))
        found[start : start + max(1, int(random.exponential(4)))] += size
    return found


def _requests(levels: Demand, random: np.random.Generator) -> Demand:
    return np.asarray(random.poisson(levels / REQUEST_WORK) * REQUEST_WORK, dtype=np.float64)


#: Name -> demand of two days by seed, one value a minute.
FAMILIES: dict[str, Callable[[int], Demand]] = {
    **{name: partial(fleet_days, of) for name, of in FLEETS.items()},
    "weekend": weekend_days,
    "flat": flat_days,
    "ramps": ramp_days,
    "steps": step_days,
    "on and off": on_off_days,
    "bursts on a flat load": burst_days,
    "heavy-tailed bursts": heavy_tailed_days,
}
