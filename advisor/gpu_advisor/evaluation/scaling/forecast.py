"""The demand to be ready for: the expected level, plus headroom from how far demand exceeded past forecasts.

A size must serve the demand that arrives while another replica starts. The pool's own past, not a traffic model,
provides that: each past step had a forecast for one start-up later, and the demand that followed. The forecast is the
level, its rise, and as much of a present burst as outlasted a start-up in the past (`persistence`). The excess of the
demand over the forecast is one observation of the forecast's error. Headroom is a number of deviations of these
excesses: the root of their mean square, recent ones weighted more. The mean square is used rather than a quantile,
because a high quantile of an hour depends on its two or three highest points.

A pool whose headroom is tuned to an SLO starts from an assumption about that deviation (PRIOR_DEVIATION), which its own
past replaces within hours: without it, a new pool would have no headroom at all.

Fluctuations grow more slowly than the load: those of requests in service with the square root of their number (Poisson,
as in an M/G/infinity queue), those of bursts from single users not at all. Excesses are therefore compared in units of
the fourth root of the level, between the two, so that nights and days are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from gpu_advisor.evaluation.scaling.demand_history import DemandEstimate
from gpu_advisor.evaluation.scaling.persistence import DemandBounds, faded_sums, running_persistence

#: Deviation of a pool without a past, and its weight in steps: from the generated days of benchmarks/demand.py.
PRIOR_DEVIATION, PRIOR_STEPS = 0.8, 60.0


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far to look, in steps of the demand history."""

    ahead_steps: int  # until a replica requested now is ready
    level_half_life_steps: float
    excess_half_life_steps: float
    trend_steps: int  # over which the trend of the level is taken
    prior_steps: float = 0.0  # weight of PRIOR_DEVIATION at the first step

    @property
    def fade(self) -> float:
        """What is left of an excess's weight after one step."""
        return float(0.5 ** (1 / self.excess_half_life_steps))


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand, levels and expectations by step, in replicas' worth of work; `deviation` in units of `excess_scale`."""

    demand: tuple[float, ...]
    levels: tuple[float, ...]
    expectations: tuple[float, ...]
    deviation: float

    def needed(self, expectation: float, deviations: float) -> float:
        """Replicas' worth of work to be ready for, if `expectation` is expected."""
        return expectation + deviations * self.deviation * excess_scale(expectation)


def excess_scale(level: float) -> float:
    """The unit of excesses over a level. One more request can arrive at any level: hence the 1."""
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
    """The forecast from the estimated demand: the basis for scaling up."""
    levels = exponential_moving_average(demand.estimate, horizon.level_half_life_steps)
    return _forecast(DemandBounds(demand.estimate, demand.estimate, levels, levels), horizon)


def forecast_upper_bound(demand: DemandEstimate, horizon: Horizon) -> Forecast:
    """An upper bound of the forecast with complete data: the basis for scaling down.

    Levels are those of the upper bounds; rises, bursts and excesses are measured from the lower bounds' levels to the
    upper bounds. With complete data, the forecast would not exceed this one.
    """
    upper = exponential_moving_average(demand.upper_bound, horizon.level_half_life_steps)
    lower = exponential_moving_average(demand.lower_bound, horizon.level_half_life_steps)
    return _forecast(DemandBounds(demand.upper_bound, demand.lower_bound, upper, lower), horizon)


def _forecast(bounds: DemandBounds, horizon: Horizon) -> Forecast:
    steps = len(bounds.upper)
    persistence = running_persistence(bounds, horizon.ahead_steps, horizon.fade, steps)
    deviations = running_deviations(bounds, persistence, horizon, steps)
    return Forecast(
        tuple(bounds.upper),
        tuple(bounds.high),
        expect(bounds, persistence, horizon),
        deviations[-1] if deviations else 0.0,
    )


def expect(bounds: DemandBounds, persistence: Sequence[float], horizon: Horizon) -> tuple[float, ...]:
    """At each step, the demand expected when a replica requested then is ready: a rise goes on, a fall does not."""
    over, high = horizon.trend_steps, bounds.high
    before = [*list(bounds.low[:1]) * over, *bounds.low]
    share = horizon.ahead_steps / over
    return tuple(
        level + (level - low) * share + part * burst if level > low else level + part * burst
        for level, low, part, burst in zip(high, before, persistence, bounds.most_bursts, strict=False)
    )


def running_deviations(
    bounds: DemandBounds, persistence: Sequence[float], horizon: Horizon, window_steps: int
) -> list[float]:
    """The deviation known at each step: of the excesses up to it, at most `window_steps` back.

    With incomplete data the persistence is an upper bound; the lower one, which the least forecast needs, is 0.
    """
    ahead, fade = horizon.ahead_steps, horizon.fade
    forecasts = bounds.low
    if bounds.exact:
        forecasts = [
            level + share * burst
            for level, share, burst in zip(bounds.low, persistence, bounds.most_bursts, strict=True)
        ]
    squares = [
        (value - forecast) ** 2 / sqrt(level + 1) if value > forecast else 0.0
        for value, forecast, level in zip(bounds.upper[ahead:], forecasts, bounds.low, strict=False)
    ]
    unknown = [0.0] * min(ahead, len(bounds.upper))
    prior, weight = horizon.prior_steps * PRIOR_DEVIATION**2, horizon.prior_steps
    sums = faded_sums(unknown + squares, fade, window_steps, prior)
    weights = faded_sums(unknown + [1.0] * len(squares), fade, window_steps, weight)
    return [sqrt(max(0.0, total) / count) if count else 0.0 for total, count in zip(sums, weights, strict=True)]
