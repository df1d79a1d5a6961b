"""What demand to be ready for: the expected level, and how far demand was lately above what had been expected.

A size has to serve the demand that comes while a further replica starts. What comes then is read off the pool's own
past and not off a model of its traffic: each past step had an expectation of the demand one start-up later, and that
demand came; by how much it was higher is one observation of what the expectation leaves out. The head-room is a number
of deviations of these: the root of the mean square of the excesses, the recent ones with more weight. The mean square
is asked and not a quantile, since a high quantile of an hour hangs on its two or three highest points.

Fluctuations grow more slowly than the load: those of requests in service with the square root of their number (Poisson,
as in an M/G/infinity queue), those of bursts from single users not at all. Excesses are therefore compared in units of
the fourth root of the level, between the two, so that the night's tell of the day and the day's of the night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from gpu_advisor.evaluation.scaling.demand_history import DemandEstimate


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far to look, in steps of the trail."""

    ahead_steps: int  # until a replica that is asked for now serves
    level_half_life_steps: float
    excess_half_life_steps: float
    trend_steps: int  # over which the trend of the level is taken


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand, its levels and expectations, one a step, in replicas' worth of work; `deviation` in `unit(level)`s."""

    demand: tuple[float, ...]
    levels: tuple[float, ...]
    expectations: tuple[float, ...]
    deviation: float

    def needed(self, expectation: float, deviations: float) -> float:
        """Replicas' worth of work to be ready for, where this much is expected."""
        return expectation + deviations * self.deviation * excess_scale(expectation)


def excess_scale(level: float) -> float:
    """What excesses over a level are measured in. One request more can come at any level: hence the 1."""
    return sqrt(sqrt(level + 1))


def exponential_moving_average(values: Sequence[float], half_life_steps: float) -> list[float]:
    """Exponentially weighted means up to each value; plain means until the half-life's weight is reached."""
    weight = 1 - 0.5 ** (1 / half_life_steps)
    found: list[float] = []
    level = 0.0
    for index, value in enumerate(values):
        level += max(weight, 1 / (index + 1)) * (value - level)
        found.append(level)
    return found


def forecast_estimate(demand: DemandEstimate, horizon: Horizon) -> Forecast:
    """The forecast from the estimated demand: what growth is judged by."""
    levels = exponential_moving_average(demand.estimate, horizon.level_half_life_steps)
    return _forecast(demand.estimate, levels, levels, horizon)


def forecast_upper_bound(demand: DemandEstimate, horizon: Horizon) -> Forecast:
    """The forecast that nothing which is missing could have made higher: what shrinking is judged by.

    Levels are those of the upper bounds, rises and excesses are taken from the lower bounds' levels to the upper
    bounds. Had everything been seen, the forecast would not be above this one.
    """
    most = exponential_moving_average(demand.upper_bound, horizon.level_half_life_steps)
    least = exponential_moving_average(demand.lower_bound, horizon.level_half_life_steps)
    return _forecast(demand.upper_bound, most, least, horizon)


def _forecast(values: Sequence[float], high: Sequence[float], low: Sequence[float], horizon: Horizon) -> Forecast:
    ahead, over = horizon.ahead_steps, horizon.trend_steps
    rises = [max(0.0, high[i] - low[max(0, i - over)]) * ahead / over for i in range(len(high))]
    expectations = tuple(level + rise for level, rise in zip(high, rises, strict=True))
    fade = 0.5 ** (1 / horizon.excess_half_life_steps)
    squares = weights = 0.0
    for value, level in zip(values[ahead:], low, strict=False):
        excess = max(0.0, value - level) / excess_scale(level)
        squares = squares * fade + excess * excess
        weights = weights * fade + 1
    return Forecast(tuple(values), tuple(high), expectations, sqrt(squares / weights) if weights else 0.0)
