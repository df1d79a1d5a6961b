"""Weeks of other shapes than benchmarks/serving/week.py: what is tuned to one shape of days shows in the others."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.serving import week
from benchmarks.serving.week import DAY_SECONDS, DAYS, PEAK_RATE, STEP_SECONDS

Rates = list[float]

STEPS = DAYS * DAY_SECONDS // STEP_SECONDS


def flat_with_bursts(seed: int) -> Rates:
    """The same load day and night, and 20 times a day a burst of one to ten minutes that adds up to as much again."""
    draw = random.Random(seed)
    rates = [0.35 * PEAK_RATE * math.exp(draw.gauss(0, 0.03)) for _ in range(STEPS)]
    for _ in range(20 * DAYS):
        first, length = draw.randrange(STEPS), draw.randint(60, 600) // STEP_SECONDS
        size = draw.uniform(0.1, 1.0)
        for step in range(first, min(STEPS, first + length)):
            rates[step] += size * 0.35 * PEAK_RATE
    return rates


def office_hours(seed: int) -> Rates:
    """Almost nothing at night and at weekends, a steep rise at nine, a dip at noon."""
    draw = random.Random(seed)
    rates, drift = [], 0.0
    for step in range(STEPS):
        at = step * STEP_SECONDS
        hour, weekday = at % DAY_SECONDS / 3600, at // DAY_SECONDS % 7 < 5
        rise = 1 / (1 + math.exp(-(hour - 9) * 6)) - 1 / (1 + math.exp(-(hour - 17.5) * 4))
        lunch = 1 - 0.35 * math.exp(-(((hour - 12.5) / 0.5) ** 2))
        drift = 0.99 * drift + draw.gauss(0, 0.01)
        rates.append(PEAK_RATE * (0.05 + 0.9 * max(0.0, rise) * lunch * weekday) * math.exp(drift))
    return rates


def recorded_hours(seed: int, demand: Sequence[float]) -> Rates:
    """A recorded demand by steps of 15 s, repeated with noise, as a share of the peak."""
    draw = random.Random(seed)
    most = max(demand)
    rates, scale = [], 1.0
    for step in range(STEPS):
        if step % len(demand) == 0:
            scale = draw.uniform(0.6, 1.0)
        rates.append(PEAK_RATE * scale * demand[step % len(demand)] / most * math.exp(draw.gauss(0, 0.1)))
    return rates


def read_demand(path: Path) -> list[float]:
    """The column `demand_gpus` of a trace of the back-test; raises OSError, KeyError."""
    with path.open(encoding="utf-8") as file:
        return [float(row["demand_gpus"]) for row in csv.DictReader(file)]


SHAPES: dict[str, Callable[[int], Rates]] = {
    "week": week.request_rates,
    "flat with bursts": flat_with_bursts,
    "office hours": office_hours,
}
