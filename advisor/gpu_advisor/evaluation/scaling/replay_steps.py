"""The steps of a replay: what was known at each, and the work that came. The same for every amount of headroom.

The forecasts of the past do not depend on the headroom, so they are computed once, each from what was known at its
step.

Where utilization was saturated, the demand beyond the capacity was not recorded. Without a correction, a replay would
find no shortage with the headroom that the pool had, and tuning would reduce it further and further. If more replicas
showed more work at the end of a shortage, that was the demand in all of it. Otherwise the demand beyond the capacity is
taken as exponentially distributed with a mean of MEAN_EXCESS_DEVIATIONS: what is measured on generated days whose
demand is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand
from gpu_advisor.evaluation.scaling.forecast import (
    Horizon,
    excess_scale,
    expect,
    exponential_moving_average,
    running_deviations,
)
from gpu_advisor.evaluation.scaling.persistence import DemandBounds, running_persistence

#: Mean demand beyond the capacity that hid it, in deviations (benchmarks/hidden_demand.py).
MEAN_EXCESS_DEVIATIONS = 0.6

#: Steps at the start of a replay that are not counted: its first size is arbitrary.
WARM_UP_STEPS = 30

ROUNDING = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SizingRules:
    """The rules of a replay: limits in replicas, times in steps, utilizations as ratios (0..1).

    `counted`: servers count the demand (`sizing.CountedDemand`). With `window_steps`, what may be unserved are windows
    of so many steps; with 0, work. `window_slope` is that of a window's log odds to be missed, over the logarithm of
    its highest demand by replica; infinite: one above 1 is missed.
    """

    horizon: Horizon
    history_steps: int
    up_steps: int
    down_steps: int
    lasting_steps: int
    cooldown_steps: int
    min: int
    max: int
    scale_up_ratio: float
    scale_down_ratio: float
    counted: bool = False
    window_steps: int = 0
    window_slope: float = inf


@dataclass(frozen=True, slots=True)
class Need:
    """By step: the expectation, its deviation, and the least size, in replicas."""

    expected: Floats
    deviation: Floats
    least: Floats

    def sizes(self, deviations: float, fewest: int, most: int) -> list[int]:
        """Whole replicas with this much headroom, within limits."""
        needed = np.ceil(np.maximum(self.expected + deviations * self.deviation, self.least) - ROUNDING)
        found: list[int] = np.clip(needed, fewest, most).astype(int).tolist()
        return found


@dataclass(frozen=True, slots=True)
class ReplaySteps:
    """Arrays by step, in replicas. `counted`: recorded, and after the warm-up.

    `work` came, and `mean_excess` beyond the `capacity` that hid it, the step's own or that of the steps after it; 0 if
    nothing was hidden. Needs are those for scaling up, from the lowest of their window, and for scaling down, from the
    highest, as is `peak_level`; `lasting` is what was needed in a longer window, for small reductions. Of a
    counted demand, `up` is from the highest, too.
    """

    counted: NDArray[np.bool_]
    work: Floats
    mean_excess: Floats
    capacity: Floats
    up: Need
    down: Need
    lasting: Need
    peak_level: Floats


def prepare_steps(record: RecordedDemand, rules: SizingRules) -> ReplaySteps:
    """What every amount of headroom knows at the steps of a past."""
    horizon, work = rules.horizon, list[float]()
    for value in record.work:  # a missing step repeats the one before it
        work.append(value if value is not None else work[-1] if work else 0.0)
    levels = exponential_moving_average(work, horizon.level_half_life_steps)
    bounds = DemandBounds(work, work, levels, levels)
    persistence = running_persistence(bounds, horizon.ahead_steps, horizon.fade, rules.history_steps)
    expected = np.array(expect(bounds, persistence, horizon))
    deviations = np.array(running_deviations(bounds, persistence, horizon, rules.history_steps))
    low = _lowest(expected, rules.up_steps)
    peak_work = _highest(np.array(work), rules.down_steps)

    def down(window: int) -> Need:
        high = _highest(expected, window)
        return Need(high, deviations * _scales(high), np.maximum(peak_work, high / rules.scale_up_ratio))

    demanded, hidden = _reveal_shortages(work, record)
    recorded = np.array([value is not None for value in record.work], dtype=bool)
    shown = _lowest(np.array(work), rules.up_steps) if record.has_signal else np.zeros(len(work))
    up = Need(low, deviations * _scales(low), np.maximum(shown, low / rules.scale_up_ratio))
    return ReplaySteps(
        counted=recorded & (np.arange(len(work)) >= WARM_UP_STEPS),
        work=demanded,
        mean_excess=np.where(hidden, MEAN_EXCESS_DEVIATIONS * deviations * _scales(np.array(levels)), 0.0),
        capacity=np.maximum(demanded, record.capacity),
        up=down(rules.down_steps) if rules.counted else up,
        down=down(rules.down_steps),
        lasting=down(rules.lasting_steps),
        peak_level=_highest(np.array(levels), rules.down_steps),
    )


def _scales(levels: Floats) -> Floats:
    return np.array([excess_scale(level) for level in levels])


def _lowest(values: Floats, window: int) -> Floats:
    """At each step, the lowest of the last `window` values up to it."""
    padded = np.concatenate([np.full(window, np.inf), values])
    lowest: Floats = np.lib.stride_tricks.sliding_window_view(padded, window).min(axis=1)
    return lowest[1:]


def _highest(values: Floats, window: int) -> Floats:
    return -_lowest(-values, window)


def _reveal_shortages(work: Sequence[float], record: RecordedDemand) -> tuple[Floats, NDArray[np.bool_]]:
    """The work of each step, and whether more may have come.

    In a shortage that more replicas ended, it is at least what they showed then; nothing more is known if these were
    saturated, too.
    """
    demanded, hidden = list(work), list(record.saturated)
    for index in range(len(work) - 2, -1, -1):
        grew = record.capacity[index + 1] > record.capacity[index]
        if record.saturated[index] and (grew or record.saturated[index + 1]) and demanded[index + 1] >= work[index]:
            demanded[index], hidden[index] = demanded[index + 1], hidden[index + 1]
    return np.array(demanded), np.array(hidden, dtype=bool)
