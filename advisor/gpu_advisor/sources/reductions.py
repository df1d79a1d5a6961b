"""Prometheus' range functions over the samples of one series, in numpy, to the last digit or nearly.

Times are Unix milliseconds (int64, increasing), values float64. The rules are those of Prometheus 2.42, 2.53 and 3.5,
from their source (promql/functions.go, quantile.go, engine.go), and tests compare them with the real servers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.promql.expressions import Function

Times = NDArray[np.int64]
Values = NDArray[np.float64]

LOOKBACK_DELTA_MS: Final = 300_000

#: The bits of Prometheus' staleness marker. Any other NaN is a measured value.
STALE_NAN_BITS: Final = 0x7FF0000000000002


@dataclass(frozen=True, slots=True)
class RangeRules:
    """What releases of Prometheus do differently with the samples of a window."""

    left_closed: bool  # a sample at the very start of the window, or of the lookback delta, is in it
    clips_at_zero_first: bool  # `increase` first shortens a gap to the counter's zero, and then limits its length
    incremental_mean: bool  # otherwise sum / count; they differ in the last digits where values cancel out


PROMETHEUS_2: Final = RangeRules(left_closed=True, clips_at_zero_first=True, incremental_mean=True)
PROMETHEUS_2_51: Final = RangeRules(left_closed=True, clips_at_zero_first=False, incremental_mean=True)
PROMETHEUS_3: Final = RangeRules(left_closed=False, clips_at_zero_first=False, incremental_mean=False)

_EXTRAPOLATION_FACTOR = 1.1  # a gap to the window's edge below this many sample intervals counts as covered


def is_stale(values: Values) -> NDArray[np.bool_]:
    """Which values are staleness markers."""
    found: NDArray[np.bool_] = values.view(np.int64) == STALE_NAN_BITS
    return found


def reduce(
    function: Function,
    times: Times,
    values: Values,
    at_ms: int,
    window_ms: int | None = None,
    q: float | None = None,
    *,
    rules: RangeRules = PROMETHEUS_3,
) -> float | None:
    """The function at one time, from samples that may reach beyond the window. None where Prometheus has no result.

    `last` takes no window, all others need one; `quantile` needs `q`. The result may be NaN or infinite.
    """
    if function == "last":
        return last(times, values, at_ms, rules)
    if window_ms is None:
        raise ValueError(f"{function} needs a window")
    times, values = window(times, values, at_ms, window_ms, rules)
    if function == "rate":
        return increase(times, values, at_ms, window_ms, rules, per_seconds=window_ms / 1000)
    if function == "increase":
        return increase(times, values, at_ms, window_ms, rules)
    if values.size == 0:
        return None
    if function == "mean":
        return mean(values, rules)
    if function == "min":
        return float(np.fmin.reduce(values))  # NaN only if all are
    if function == "max":
        return float(np.fmax.reduce(values))
    if function == "sum":
        return total(values)
    if function == "count":
        return float(values.size)
    if q is None:
        raise ValueError("quantile needs q")
    return quantile(values, q)


def window(
    times: Times, values: Values, at_ms: int, window_ms: int, rules: RangeRules = PROMETHEUS_3
) -> tuple[Times, Values]:
    """The samples of the window that ends at `at_ms`, without staleness markers."""
    first = np.searchsorted(times, at_ms - window_ms, side="left" if rules.left_closed else "right")
    end = np.searchsorted(times, at_ms, side="right")
    times, values = times[first:end], values[first:end]
    stale = is_stale(values)
    return (times[~stale], values[~stale]) if stale.any() else (times, values)


def last(times: Times, values: Values, at_ms: int, rules: RangeRules = PROMETHEUS_3) -> float | None:
    """The newest value within the lookback delta of 5 minutes; None without one, or if the series ended after it."""
    newest = int(np.searchsorted(times, at_ms, side="right")) - 1
    if newest < 0:
        return None
    age = at_ms - int(times[newest])
    if age > LOOKBACK_DELTA_MS or (age == LOOKBACK_DELTA_MS and not rules.left_closed):
        return None
    return None if is_stale(values[newest : newest + 1])[0] else float(values[newest])


def increase(
    times: Times,
    values: Values,
    at_ms: int,
    window_ms: int,
    rules: RangeRules = PROMETHEUS_3,
    *,
    per_seconds: float | None = None,
) -> float | None:
    """The increase of a counter in the window, corrected for resets and extrapolated to the window's edges.

    None for fewer than two samples. With `per_seconds` the result is divided by it, in Prometheus' order of operations.
    """
    if values.size < 2:
        return None
    first = float(values[0])
    grown = float(values[-1]) - first
    for before in values[:-1][values[1:] < values[:-1]]:
        grown += float(before)

    sampled = (int(times[-1]) - int(times[0])) / 1000
    distance = sampled / (values.size - 1)
    to_start = (int(times[0]) - (at_ms - window_ms)) / 1000
    to_end = (at_ms - int(times[-1])) / 1000
    # A counter is never below zero: do not extrapolate to before it existed.
    to_zero = sampled * (first / grown) if grown > 0 and first >= 0 else math.inf
    if rules.clips_at_zero_first:
        to_start = _limit_extrapolation(min(to_start, to_zero), distance)
    else:
        to_start = min(_limit_extrapolation(to_start, distance), to_zero)
    covered = sampled + to_start + _limit_extrapolation(to_end, distance)
    factor = covered / sampled
    if per_seconds is not None:
        factor /= per_seconds
    return grown * factor


def _limit_extrapolation(gap: float, distance: float) -> float:
    """How much of the gap between the window's edge and the nearest sample counts, in seconds."""
    return gap if gap < distance * _EXTRAPOLATION_FACTOR else distance / 2


def mean(values: Values, rules: RangeRules = PROMETHEUS_3) -> float:
    """The arithmetic mean.

    Prometheus adds up with Neumaier's compensation. For values of one sign that cannot differ from the plain mean by
    more than a few units in the last place; for others it is repeated step by step.
    """
    smallest, largest = float(values.min()), float(values.max())
    if (smallest >= 0 and largest < 1e290) or (smallest > -1e290 and largest <= 0):
        return float(values.mean())
    return _incremental_mean(values) if rules.incremental_mean else _direct_mean(values)


def total(values: Values) -> float:
    """The sum, as Prometheus adds up: with Neumaier's compensation."""
    result = compensation = 0.0
    for value in values.tolist():
        result, compensation = _add(value, result, compensation)
    return result if math.isinf(result) else result + compensation


def _add(value: float, to: float, compensation: float) -> tuple[float, float]:
    """One step of Neumaier's compensated sum: the sum and its compensation."""
    after = to + value
    if math.isinf(after):
        return after, 0.0  # inf - inf would give NaN
    if abs(to) >= abs(value):
        return after, compensation + ((to - after) + value)
    return after, compensation + ((value - after) + to)


def quantile(values: Values, q: float) -> float:
    """The q-quantile, interpolated between the two nearest values; NaN sorts below everything."""
    if math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return math.copysign(math.inf, q)
    ordered = np.sort(values)  # numpy puts NaN at the end
    missing = int(np.isnan(ordered).sum())
    if missing:
        ordered = np.roll(ordered, missing)
    rank = q * (values.size - 1)
    lower = math.floor(rank)
    upper = min(values.size - 1, lower + 1)
    weight = rank - lower
    return float(ordered[lower]) * (1 - weight) + float(ordered[upper]) * weight


def _incremental_mean(values: Values) -> float:
    """Prometheus 2: the sum of `value / n - mean / n`."""
    average = compensation = 0.0
    for count, value in enumerate(values.tolist(), start=1):
        if math.isinf(average) and not math.isnan(value) and (not math.isinf(value) or (average > 0) == (value > 0)):
            continue  # infinity stays; only its opposite or NaN change it
        average, compensation = _add(value / count - average / count, average, compensation)
    return average if math.isinf(average) else average + compensation


def _direct_mean(values: Values) -> float:
    """Prometheus 3: the sum divided by the count; from the value on that makes the sum overflow, the mean so far."""
    numbers: list[float] = values.tolist()
    result, compensation = numbers[0], 0.0
    for count, value in enumerate(numbers[1:], start=2):
        after, correction = _add(value, result, compensation)
        if math.isinf(after):
            return _mean_from(numbers, count, result / (count - 1), compensation / (count - 1))
        result, compensation = after, correction
    return result / len(numbers) + compensation / len(numbers)


def _mean_from(numbers: list[float], start: int, average: float, compensation: float) -> float:
    """The mean of all numbers, given that of those before the `start`-th."""
    for count in range(start, len(numbers) + 1):
        weight = (count - 1) / count
        average, compensation = _add(numbers[count - 1] / count, weight * average, weight * compensation)
    return average + compensation
