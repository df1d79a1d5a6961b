"""Demand to replay: days of inference fleets, and patterns that any policy must handle. Pure functions of a seed.

A fleet's demand is a daily pattern of Poisson requests with gamma-distributed durations, on a level that drifts (the
exponential of a first-order autoregression), plus bursts of whole batches: some GPUs' worth for some minutes. The
parameters of FLEETS were fitted, by random search, to a published day of which only the outcomes of simple policies are
known: a production inference fleet of 112 GPUs at 7 % mean utilization, on which HPA 90/70/50, one-at-a-time thresholds
and an oracle result in 245/339/477/274/222 GPU-hours, 5.0/1.65/0.71/2.7/0 % of the demand unserved and
269/312/340/771/1018 changes. Very different fleets have these outcomes: with many short bursts, few long ones, in
proportion to the load or independent of it. A policy has to be good on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUTES_OF_DAY = 1440

Demand = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FleetDemand:
    """Parameters of a fleet's day: levels in GPUs' worth of work, times in minutes."""

    night: float
    day: float  # the wave's peak is the night's level beside this one's
    sharpness: float  # exponent of the wave: from 1 on, shorter days
    work: float  # GPU-minutes of a request
    spread: float  # variance of a request's work, in units of its square
    drift: float
    drift_minutes: float
    bursts_per_hour: float
    burst_gpus: float
    burst_spread: float  # of the logarithm
    burst_minutes: float
    with_load: float  # 1: bursts come in proportion to the load; 0: at any hour alike
    peak_hour: float
    days: int = 1
    weekend: float = 1.0  # share of the level that is left on each sixth and seventh day


def generate_demand(of: FleetDemand, seed: int) -> Demand:
    """One demand a minute, in GPUs' worth of work."""
    random = np.random.default_rng(seed)
    minutes = of.days * MINUTES_OF_DAY
    time = np.arange(minutes)
    wave = ((1 + np.cos(2 * np.pi * (time / 60 - of.peak_hour) / 24)) / 2) ** of.sharpness
    level = of.night + (of.day - of.night) * wave
    level *= np.where(time // MINUTES_OF_DAY % 7 >= 5, of.weekend, 1.0)
    level *= np.exp(of.drift * _drift(random, minutes, of.drift_minutes) - of.drift**2 / 2)
    requests = random.poisson(level / of.work)
    shape = np.maximum(requests / of.spread, 1e-9)
    served = np.where(requests > 0, random.gamma(shape, of.work * of.spread), 0.0)
    return served + _bursts(random, of, level)


def _drift(random: np.random.Generator, count: int, minutes: float) -> Demand:
    keep = np.exp(-1 / minutes)
    pushes = random.normal(size=count) * np.sqrt(1 - keep**2)
    found = np.empty(count)
    found[0] = random.normal()
    for index in range(1, count):
        found[index] = keep * found[index - 1] + pushes[index]
    return found


def _bursts(random: np.random.Generator, of: FleetDemand, level: Demand) -> Demand:
    found = np.zeros(len(level))
    rate = of.bursts_per_hour / 60 * (1 - of.with_load + of.with_load * level / level.mean())
    for start in np.nonzero(random.random(len(level)) < rate)[0]:
        gpus = of.burst_gpus * np.exp(of.burst_spread * random.normal())
        begin = start + random.random()
        end = begin + random.exponential(of.burst_minutes)
        for index in range(start, min(int(end) + 1, len(level))):
            found[index] += gpus * max(0.0, min(end, index + 1) - max(begin, index))
    return found


def _fit_length(*values: Any) -> FleetDemand:
    return FleetDemand(*values)


#: Fitted to the same published day: night, day, sharpness, work, spread, drift, its minutes, bursts an hour, their
#: GPUs, spread and minutes, with load, peak hour.
FLEETS: dict[str, FleetDemand] = {
    "day, many bursts with load": _fit_length(0.33, 17.8, 3.4, 0.16, 1.4, 0.20, 28, 15.8, 3.1, 0.15, 3.0, 0.87, 17.4),
    "day, short bursts": _fit_length(1.5, 17.8, 2.9, 0.03, 0.3, 0.08, 4, 13.3, 3.8, 0.22, 1.8, 0.40, 8.3),
    "day, one-minute bursts": _fit_length(0.4, 18.1, 1.9, 0.05, 3.4, 0.18, 3, 9.5, 4.2, 0.15, 0.9, 0.44, 19.3),
    "day, bursts at any hour": _fit_length(0.8, 17.1, 1.8, 0.03, 0.3, 0.14, 13, 12.1, 4.8, 0.10, 1.1, 0.12, 12.9),
    "day, quiet drift": _fit_length(0.2, 12.6, 1.1, 0.07, 1.3, 0.04, 6, 20.1, 2.3, 0.49, 2.1, 0.50, 11.2),
    "day, few bursts": _fit_length(0.7, 18.5, 2.1, 0.34, 0.3, 0.11, 72, 2.8, 3.6, 0.35, 4.1, 0.29, 12.1),
    "day, long bursts": _fit_length(0.8, 10.3, 1.5, 0.21, 1.2, 0.03, 2, 5.2, 2.6, 0.35, 11.2, 0.04, 9.4),
    "day, long bursts with load": _fit_length(0.47, 10.4, 3.6, 0.27, 1.0, 0.17, 29, 6.0, 3.6, 0.09, 12.8, 0.72, 10.7),
}


def _steady(level: float, days: int = 1, weekend: float = 1.0) -> FleetDemand:
    return FleetDemand(level / 2, 1.5 * level, 1, 0.1, 1, 0.1, 30, 0, 1, 0.1, 1, 0, 14, days, weekend)


def step_demand(seed: int) -> Demand:
    """Levels that hold for some hours, from a list that has all directions."""
    random = np.random.default_rng(seed)
    levels = np.repeat([4, 12, 6, 30, 10, 3], MINUTES_OF_DAY // 6)
    return np.asarray(random.poisson(levels / 0.1) * 0.1, dtype=np.float64)


def ramp_demand(seed: int) -> Demand:
    """Up within two hours, down within three, and again."""
    random = np.random.default_rng(seed)
    levels = np.interp(
        np.arange(MINUTES_OF_DAY), [0, 240, 360, 600, 780, 900, 1080, 1440], [3, 3, 40, 40, 5, 25, 25, 2]
    )
    return np.asarray(random.poisson(levels / 0.1) * 0.1, dtype=np.float64)


def saturation_demand(seed: int) -> Demand:
    """Three times as much from one minute to the next, several times."""
    random = np.random.default_rng(seed)
    levels = np.concatenate([np.full(180, 3.0 * factor) for factor in (1, 3, 1, 9, 3, 9, 1, 3)])
    return np.asarray(random.poisson(levels / 0.1) * 0.1, dtype=np.float64)


def on_off_demand(seed: int) -> Demand:
    """All or nothing, as training is: runs of about an hour at 8 GPUs, pauses of about an hour."""
    random = np.random.default_rng(seed)
    found = np.zeros(MINUTES_OF_DAY)
    at = 0
    while at < MINUTES_OF_DAY:
        busy, idle = random.exponential(60), random.exponential(60)
        found[at : at + int(busy)] = 8 * random.uniform(0.95, 1.0)
        at += int(busy + idle) + 1
    return found


#: Name -> demand by seed, one value a minute.
SHAPES: dict[str, Callable[[int], Demand]] = {
    **{name: partial(generate_demand, of) for name, of in FLEETS.items()},
    "wave, mean 2 GPUs": lambda seed: generate_demand(_steady(2), seed),
    "wave, mean 20 GPUs": lambda seed: generate_demand(_steady(20), seed),
    "wave, mean 60 GPUs": lambda seed: generate_demand(_steady(60), seed),
    "five days and a weekend": lambda seed: generate_demand(_steady(8, days=7, weekend=0.3), seed),
    "steps": step_demand,
    "ramps": ramp_demand,
    "saturation": saturation_demand,
    "on and off": on_off_demand,
}
