"""Hand-worked cases; the comparison with the real server on random histories is among the integration tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpu_advisor.promql.expressions import Function
from gpu_advisor.sources.reductions import (
    PROMETHEUS_2,
    PROMETHEUS_3,
    STALE_NAN_BITS,
    RangeRules,
    is_stale,
    mean,
    quantile,
    reduce,
)

BOTH = pytest.mark.parametrize("rules", [PROMETHEUS_2, PROMETHEUS_3], ids=["2", "3"])
STALE = np.array([STALE_NAN_BITS], np.int64).view(np.float64)[0]


def at_seconds(
    points: list[tuple[float, float | None]],
    function: Function,
    at: float,
    window: float | None = None,
    q: float | None = None,
    rules: RangeRules = PROMETHEUS_3,
) -> float | None:
    times = np.array([round(second * 1000) for second, _ in points], np.int64)
    values = np.array([0.0 if value is None else value for _, value in points])
    values.view(np.int64)[[value is None for _, value in points]] = STALE_NAN_BITS
    window_ms = None if window is None else round(window * 1000)
    return reduce(function, times, values, round(at * 1000), window_ms, q, rules=rules)


STEADY: list[tuple[float, float | None]] = [(float(second), float(second)) for second in range(0, 61, 15)]


@pytest.mark.parametrize("function", ["mean", "min", "max", "count", "rate", "increase", "quantile"])
def test_nothing_is_not_zero(function: Function):
    q = 0.5 if function == "quantile" else None
    assert at_seconds([], function, 60, 60, q) is None
    assert at_seconds([(10, 1.0)], function, 100, 60, q) is None
    assert at_seconds([(10, None)], function, 60, 60, q) is None


def test_last():
    assert at_seconds([], "last", 60) is None
    assert at_seconds(STEADY, "last", 59.999) == 45
    assert at_seconds(STEADY, "last", 60) == 60
    assert at_seconds(STEADY, "last", 359.999) == 60
    assert at_seconds(STEADY, "last", 360) is None
    assert at_seconds(STEADY, "last", 360, rules=PROMETHEUS_2) == 60
    assert at_seconds(STEADY, "last", 360.001, rules=PROMETHEUS_2) is None
    assert at_seconds([(0, 1.0), (5, None)], "last", 5) is None
    assert at_seconds([(0, 1.0), (5, None)], "last", 4.999) == 1
    assert at_seconds([(0, 1.0), (5, None), (10, 2.0)], "last", 12) == 2
    assert at_seconds([(0, 1.0)], "last", -1) is None


def test_the_left_end_of_a_window():
    assert at_seconds(STEADY, "count", 60, 30) == 2
    assert at_seconds(STEADY, "count", 60, 30, rules=PROMETHEUS_2) == 3
    assert at_seconds(STEADY, "count", 60, 29.999) == 2


def test_rate():
    # Open on the left: 15..60 are known, 15 s to the left are nearer than 1.1 distances and are filled in.
    assert at_seconds(STEADY, "increase", 60, 60) == 60
    assert at_seconds(STEADY, "rate", 60, 60) == pytest.approx(1)
    assert at_seconds(STEADY, "increase", 60, 60, rules=PROMETHEUS_2) == 60
    assert at_seconds([(0, 1.0)], "rate", 60, 60) is None


def test_rate_reaches_half_a_distance_over_a_wide_edge():
    points: list[tuple[float, float | None]] = [(100, 1000.0), (110, 1010.0), (120, 1020.0)]
    assert at_seconds(points, "increase", 121, 100) == pytest.approx(20 * (20 + 5 + 1) / 20)
    assert at_seconds(points, "increase", 131, 31) == pytest.approx(20 * (20 + 0 + 5) / 20)  # 11 s are not nearer
    assert at_seconds(points, "increase", 130.999, 30.999) == pytest.approx(20 * (20 + 0 + 10.999) / 20)


def test_a_wide_gap_before_a_young_counter():
    """The gap of 12 s is wider than 1.1 distances and so counts 5 s; the counter was zero 6 s before its first sample.

    Prometheus 2 shortens the gap to those 6 s first, which is then not too wide.
    """
    points: list[tuple[float, float | None]] = [(12, 6.0), (22, 16.0)]
    assert at_seconds(points, "increase", 22, 22) == pytest.approx(15)
    assert at_seconds(points, "increase", 22, 22, rules=PROMETHEUS_2) == pytest.approx(16)


def test_rate_does_not_reach_below_zero():
    assert at_seconds([(10, 2.0), (20, 12.0)], "increase", 20, 20) == pytest.approx(10 * (10 + 2) / 10)
    assert at_seconds([(10, -2.0), (20, 8.0)], "increase", 20, 20) == pytest.approx(20)


def test_counter_resets():
    assert at_seconds(
        [(0, 10.0), (10, 20.0), (20, 5.0), (30, 6.0)], "increase", 30, 30, rules=PROMETHEUS_2
    ) == pytest.approx(16)
    assert at_seconds([(0, 10.0), (10, None), (20, 5.0)], "increase", 20, 20, rules=PROMETHEUS_2) == pytest.approx(5)


def test_markers_are_no_samples():
    points: list[tuple[float, float | None]] = [(0, 1.0), (10, None), (20, 3.0)]
    assert at_seconds(points, "count", 20, 21) == 2
    assert at_seconds(points, "mean", 20, 21) == 2
    assert at_seconds(points, "min", 20, 21) == 1
    assert at_seconds(points, "quantile", 20, 21, 1.0) == 3


def test_measured_nan():
    points: list[tuple[float, float | None]] = [(0, 1.0), (10, math.nan), (20, 3.0)]
    assert at_seconds(points, "count", 20, 21) == 3
    assert math.isnan(at_seconds(points, "mean", 20, 21) or 0)
    assert at_seconds(points, "min", 20, 21) == 1
    assert at_seconds(points, "max", 20, 21) == 3
    assert at_seconds(points, "quantile", 20, 21, 1.0) == 3
    assert at_seconds(points, "quantile", 20, 21, 0.5) == 1  # NaN sorts below everything


@pytest.mark.parametrize(("q", "value"), [(0, 1), (1, 4), (0.5, 2.5), (0.25, 1.75), (-0.1, -math.inf), (1.1, math.inf)])
def test_quantile(q: float, value: float):
    assert quantile(np.array([4.0, 1.0, 3.0, 2.0]), q) == value


def test_quantile_of_one():
    assert quantile(np.array([7.0]), 0.3) == 7
    assert math.isnan(quantile(np.array([7.0]), math.nan))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0, 2.0, 4.5], 2.5),
        ([1e300, 1e300], 1e300),  # the sum of more of them would overflow
        ([1.7e308] * 10, 1.7e308),
        ([-1.7e308] * 10, -1.7e308),
        ([2.0, -1.0, 5.0], 2.0),
        ([math.inf, 1.0], math.inf),
        ([1.0, math.inf, math.inf, 2.0], math.inf),
    ],
)
@BOTH
def test_mean(values: list[float], wanted: float, rules: RangeRules):
    assert mean(np.array(values), rules) == pytest.approx(wanted, rel=1e-9)


def test_mean_of_both_infinities():
    assert math.isnan(mean(np.array([math.inf, -math.inf])))


def test_only_one_nan_is_a_marker():
    assert is_stale(np.array([STALE, math.nan, 1.0, -math.nan])).tolist() == [True, False, False, False]


def test_missing_arguments():
    with pytest.raises(ValueError, match="window"):
        at_seconds(STEADY, "mean", 60)
    with pytest.raises(ValueError, match="needs q"):
        at_seconds(STEADY, "quantile", 60, 60)


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        ([3, 4e15, 3, -1, -4e15], 1.0),  # steps larger and smaller than the mean
        ([-1e15, -3, -3, 1, 1e15], -1.0),
        ([math.inf, 1.0, -1.0], math.inf),
        ([-1.0, 1.0, -math.inf], -math.inf),
    ],
)
@BOTH
def test_a_mean_of_both_signs_is_compensated(values: list[float], exact: float, rules: RangeRules) -> None:
    assert mean(np.array(values, np.float64), rules) == pytest.approx(exact, rel=1e-9)


@BOTH
def test_a_mean_of_opposite_infinities_is_none(rules: RangeRules) -> None:
    assert math.isnan(mean(np.array([math.inf, -math.inf, 1.0]), rules))
    assert math.isnan(mean(np.array([math.inf, math.nan, -1.0]), rules))


@BOTH
def test_a_mean_whose_sum_overflows(rules: RangeRules) -> None:
    values = np.array([1.7e308, 1.7e308, -1e300, 1.7e308])
    assert mean(values, rules) == pytest.approx(1.2749999975e308, rel=1e-12)
