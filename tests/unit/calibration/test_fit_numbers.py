"""Fits by numbers: the normal distribution, quantiles of mixtures, step times, corrections, candidates and notes."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, largest_safe_size, recommend_batch_size
from gpu_advisor.calibration.errors import CalibrationError, PointsError
from gpu_advisor.calibration.memory_estimate import EstimateCorrection, fit_correction
from gpu_advisor.calibration.memory_fit import MAX_EXTRAPOLATION_RATIO, MemoryFit, fit_memory, log_shape
from gpu_advisor.calibration.points import MAX_BATCH_SIZE, MeasuredPoint, MeasuredPoints, clean_points, parse_points
from gpu_advisor.calibration.prior import PRIOR, Prior
from gpu_advisor.calibration.throughput_fit import KNEE_RATIO, ThroughputFit, fit_throughput
from hypothesis import given, settings
from hypothesis import strategies as st

GIB = 1 << 30


def points(*rows: tuple[int, float] | tuple[int, float, float]) -> MeasuredPoints:
    """(size, GiB, samples per second)"""
    return clean_points(MeasuredPoint(row[0], round(row[1] * GIB), row[2] if len(row) == 3 else None) for row in rows)


# Memory: a fit with one component is a normal distribution in the logarithm


def single(power: float = 1.0, fixed: float = 0.25, floor: float = 0.0, noise: float = 0.1) -> MemoryFit:
    one = np.ones(1)
    measured = points((8, 1.0), (16, 2.0), (32, 4.0))
    return MemoryFit(measured, PRIOR, one, fixed * one, floor * one, power * one, noise * one, math.log(4 * GIB) * one)


@pytest.mark.parametrize("factor", [0.6, 0.8, 0.95, 1.0, 1.05, 1.2, 1.6])
def test_the_risk_is_that_of_the_normal_distribution(factor: float) -> None:
    fit = single()
    center, spread = 4 * (0.25 + 0.75 * 2), 0.1 * math.sqrt(1 + 1 / 3)
    expected = 1 - NormalDist().cdf(math.log(factor) / spread)
    assert fit.exceeds_probability(64, factor * center * GIB) == pytest.approx(expected, abs=2e-7)
    assert (fit.exceeds_probability(16, 2 * GIB), fit.exceeds_probability(16, 2 * GIB - 1)) == (0.0, 1.0)


def test_a_prediction_and_its_interval_are_quantiles() -> None:
    fit = single()
    center, spread = 4 * (0.25 + 0.75 * 2), 0.1 * math.sqrt(1 + 1 / 3)
    found = fit.predict(64)
    z = NormalDist().inv_cdf(1 - PRIOR.tail_more_points)
    assert found.low / GIB == pytest.approx(center * math.exp(-z * spread), rel=1e-4)
    assert found.high / GIB == pytest.approx(center * math.exp(z * spread), rel=1e-4)
    # The expected relative error is least at the median weighted by 1/m.
    assert found.peak_memory_bytes / GIB == pytest.approx(center * math.exp(-(spread**2)), rel=1e-4)


def test_fewer_sizes_have_wider_tails_cut_off() -> None:
    two = single()
    object.__setattr__(two, "points", points((8, 1.0), (32, 4.0)))
    z = NormalDist().inv_cdf(1 - PRIOR.tail_two_points)
    center, spread = 4 * (0.25 + 0.75 * 2), 0.1 * math.sqrt(1 + 1 / 2)
    assert two.predict(64).high / GIB == pytest.approx(center * math.exp(z * spread), rel=1e-4)


@pytest.mark.parametrize(
    ("x", "fixed", "floor", "power", "share"),
    [(2.0, 0.25, 0.0, 1.0, 1.75), (0.5, 0.25, 0.8, 1.0, 0.85), (2.0, 0.0, 0.0, 0.5, math.sqrt(2)), (9.0, 1.0, 0, 1, 1)],
)
def test_the_shape_of_memory(x: float, fixed: float, floor: float, power: float, share: float) -> None:
    found = log_shape(*(np.array([each]) for each in (x, fixed, floor, power)))
    assert found.shape == (1, 1)
    assert math.exp(found[0, 0]) == pytest.approx(share)


def test_a_larger_size_needs_no_less_than_a_smaller_one_did() -> None:
    fit = single(fixed=0.999, noise=1e-3)
    object.__setattr__(fit, "points", points((8, 1.0), (32, 9.0)))
    assert fit.predict(64).low == 9 * GIB
    assert fit.predict(16).low >= GIB
    assert fit.predict(4).low < 9 * GIB


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0.5, 40))
def test_a_posterior_of_accurate_lines_finds_the_line(fixed: float, gib: float) -> None:
    sizes = (8, 12, 16, 20, 24, 28, 32)
    fit = fit_memory(points(*((size, gib * (fixed + (1 - fixed) * size / 32)) for size in sizes)))
    assert fit.weight.sum() == pytest.approx(1.0)
    assert len(fit.weight) == len(fit.fixed_share) == len(fit.floor) == len(fit.power) == len(fit.noise)
    shares = (fit.weight * np.exp(fit.log_scale) * fit.fixed_share).sum() / GIB
    assert shares == pytest.approx(gib * fixed, rel=0.2, abs=0.12 * gib)
    assert fit.predict(48).peak_memory_bytes / GIB == pytest.approx(gib * (fixed + (1 - fixed) * 1.5), rel=0.03)


def test_components_that_do_not_matter_are_left_out_and_no_others() -> None:
    fit = fit_memory(points((8, 1.0), (16, 2.0), (32, 4.0)))
    assert fit.weight.min() > 0.9e-4 * fit.weight.max()
    assert fit.weight.min() < 2e-4 * fit.weight.max()
    assert 100 < len(fit.weight) < PRIOR.weights().size


# Prior


def test_the_refined_prior_is_a_symmetric_grid_with_the_tables_density() -> None:
    shares = tuple((value, 1 / 9) for value in np.linspace(0.1, 0.9, 9).tolist())
    refined = Prior(shares, ((0.0, 1.0),), ((1.0, 1.0),), ((0.1, 1.0),))
    grid, weights = np.array(refined.grid[0]), refined.weights()
    assert len(grid) == 181
    assert grid[0] == pytest.approx(0.001, rel=0.01)
    assert (np.diff(grid) > 0).all()
    assert grid + grid[::-1] == pytest.approx(np.ones(181))
    assert weights.sum() == pytest.approx(1.0)
    assert weights == pytest.approx(weights[::-1])
    falling = tuple(
        (value, weight / 45) for value, weight in zip(np.linspace(0.1, 0.9, 9).tolist(), range(9, 0, -1), strict=True)
    )
    skewed = Prior(falling, ((0.0, 1.0),), ((1.0, 1.0),), ((0.1, 1.0),))
    assert (skewed.weights() * grid).sum() < 0.45 < (weights * grid).sum()
    lopsided = Prior(shares, ((0.0, 0.25), (1.0, 0.75)), ((1.0, 1.0),), ((0.1, 0.5), (0.2, 0.5)))
    assert lopsided.weights().reshape(181, 2, 1, 2).sum(axis=(0, 2)) == pytest.approx(
        np.array([[0.125, 0.125], [0.375, 0.375]])
    )


# Throughput


def rated(*rates: tuple[int, float]) -> ThroughputFit:
    fit = fit_throughput(points(*((size, 1 + size / 100, rate) for size, rate in rates)))
    assert fit is not None
    return fit


def test_step_times_are_a_line_between_and_beyond_the_measured_sizes() -> None:
    fit = rated((10, 100.0), (20, 160.0), (40, 200.0))  # steps of 0.1, 0.125 and 0.2 seconds
    assert (fit.sample_seconds, fit.fixed_seconds) == pytest.approx((0.00375, 0.05))
    for size, seconds in ((10, 0.1), (12, 0.105), (15, 0.1125), (20, 0.125), (30, 0.1625), (40, 0.2), (80, 0.35)):
        assert fit.predict(size) == pytest.approx(size / seconds)
    assert fit.predict(5) == pytest.approx(5 / max(0.1 - 5 * 0.00375, 0.05))
    assert not fit.falls


@pytest.mark.parametrize(
    ("last", "slope"),
    [
        (170.0, 40 / 170 / 40),  # a step that grows faster than the batch: saturated
        (395.0, 0.5 * 40 / 395 / 40),  # one that does not grow: half of a step at least is the samples'
    ],
)
def test_the_cost_of_a_sample_is_bounded(last: float, slope: float) -> None:
    assert rated((20, 200.0), (40, last)).sample_seconds == pytest.approx(slope)


@pytest.mark.parametrize(("last", "falls"), [(99.5, False), (98.9, True)])
def test_throughput_falls_beyond_noise_only(last: float, falls: bool) -> None:
    fit = rated((10, 50.0), (20, 100.0), (40, last))
    assert fit.falls is falls
    assert fit.peak.batch_size == 20
    if falls:
        assert fit.predict(80) == last


@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(1, 1000)), min_size=2, max_size=5, unique_by=lambda row: row[0]),
    st.integers(1, 400),
)
def test_the_knee_reaches_its_share_of_the_best(rates: list[tuple[int, float]], largest: int) -> None:
    fit = rated(*sorted(rates))
    knee = fit.knee(largest)
    assert type(knee) is int
    candidates = [*(size for size, _ in rates if size < largest), largest]
    best = max(fit.predict(size) for size in candidates)
    assert 1 <= knee <= largest
    assert fit.predict(knee) >= KNEE_RATIO * best * (1 - 1e-12)
    if knee > 1:
        assert fit.predict(knee - 1) < KNEE_RATIO * best or any(
            fit.predict(k) < KNEE_RATIO * best for k in range(1, knee)
        )


def test_one_rate_is_no_fit() -> None:
    assert fit_throughput(points((8, 1, 100.0), (16, 2))) is None


# Advice


def test_candidates_are_all_small_sizes_then_multiples_of_eight() -> None:
    fit = fit_memory(points((8, 1.0), (16, 1.001)))
    sizes = (largest_safe_size(fit, limit * GIB) for limit in np.geomspace(1.0, 40, 300).tolist())
    found = {size for size in sizes if size is not None}
    assert max(found) == MAX_EXTRAPOLATION_RATIO * 16
    assert all(size < 16 or size % 8 == 0 for size in found)
    assert len({size for size in found if size < 16}) >= 1
    assert largest_safe_size(fit, 1.0) is None
    tiny = fit_memory(points((1, 1.0), (2, 1.001)))
    assert largest_safe_size(tiny, 100 * GIB) == 16


def test_requested_sizes_are_tried_as_far_as_the_fit_extrapolates() -> None:
    measured = points((8, 1.0), (16, 2.0))
    for asked, best in (((12,), 16), ((128, 40), 128), ((129, 40), 40), ((200,), 16)):
        request = BatchSizeRequest(1000 * GIB, 1.0, asked)
        advice = recommend_batch_size(measured, request)
        assert advice.recommended_batch_size == best
        assert [each.memory.batch_size for each in advice.predictions] == list(asked)
        assert any("interval" in note and str(asked[0]) in note for note in advice.notes) is (asked[0] > 128)


@pytest.mark.parametrize(("current", "gain"), [(8, 200 / 100 - 1), (16, 200 / 160 - 1), (32, 0.0), (None, None)])
def test_the_gain_is_against_the_present_size(current: int | None, gain: float | None) -> None:
    measured = points((8, 1, 100.0), (16, 1.2, 160.0), (32, 1.6, 200.0), (64, 2.4, 150.0))
    advice = recommend_batch_size(measured, BatchSizeRequest(80 * GIB, 0.9, (16, 32, 64), current))
    assert advice.recommended_batch_size == 32
    assert advice.gain_ratio == (None if gain is None else pytest.approx(gain))
    assert (advice.current is None) is (current is None)
    assert any("learning rate" in note for note in advice.notes) is (current not in (None, 32))
    unrated = recommend_batch_size(points((8, 1), (16, 2)), BatchSizeRequest(80 * GIB, 0.9, (), current))
    assert unrated.gain_ratio is None
    assert unrated.ceilings.throughput_knee is None


def test_of_sizes_with_equal_throughput_the_smaller_is_taken() -> None:
    measured = points((8, 1, 100.0), (16, 1.2, 200.0), (32, 1.6, 200.0), (64, 2.4, 150.0))
    advice = recommend_batch_size(measured, BatchSizeRequest(80 * GIB, 0.9, (16, 32, 64)))
    assert advice.recommended_batch_size == 16


def test_room_and_limit_of_a_recommendation() -> None:
    advice = recommend_batch_size(points((8, 1), (16, 2)), BatchSizeRequest(10 * GIB, 0.5))
    assert advice.limit_bytes == 5 * GIB
    assert advice.recommended is not None
    assert advice.margin_bytes == 10 * GIB - advice.recommended.memory.high
    nothing = recommend_batch_size(points((8, 1), (16, 2)), BatchSizeRequest(GIB // 8, 1.0))
    assert (nothing.recommended_batch_size, nothing.recommended, nothing.margin_bytes) == (None, None, None)


def test_a_noise_scale_below_all_sizes_leaves_the_smallest() -> None:
    request = BatchSizeRequest(80 * GIB, 0.9, (12, 16), gradient_noise=4)
    assert recommend_batch_size(points((8, 1), (16, 2)), request).recommended_batch_size == 8
    assert recommend_batch_size(points((8, 1), (16, 2)), request).ceilings.gradient_noise == 4


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"target": 1.0}, True), ({"target": 1.001}, False), ({"target": 0.0}, False), ({"predict": (1,)}, True),
        ({"predict": (0,)}, False), ({"current_batch": 1}, True), ({"current_batch": 0}, False),
        ({"gradient_noise": 1}, True), ({"gradient_noise": 0}, False),
    ],
)  # fmt: skip
def test_requests_within_reason(change: dict[str, Any], valid: bool) -> None:
    request = BatchSizeRequest(**{"memory_bytes": 80 * GIB, "target": 0.9, **change})
    if valid:
        assert recommend_batch_size(points((8, 1), (16, 2)), request)
    else:
        with pytest.raises(CalibrationError):
            recommend_batch_size(points((8, 1), (16, 2)), request)


@pytest.mark.parametrize(
    ("rows", "word", "present"),
    [
        (((8, 1.0, 100.0), (16, 1.5, 190.0), (32, 2.0, 195.0)), "5 %", True),
        (((8, 1.0), (16, 1.5), (32, 2.0)), "5 %", False),
        (((8, 1.0), (16, 1.5)), "two sizes", True),
        (((8, 1.0), (16, 1.5), (32, 2.0)), "two sizes", False),
        (((8, 1.0), (16, 1.5), (32, 2.0)), "measure a larger one", True),
        (((8, 1.0), (16, 20.0), (32, 60.0)), "measure a larger one", False),
    ],
)
def test_notes_that_depend_on_the_points(rows: tuple[tuple[int, float]], word: str, present: bool) -> None:
    advice = recommend_batch_size(points(*rows), BatchSizeRequest(80 * GIB, 1.0, (8, 16, 32)))
    assert any(word in note for note in advice.notes) is present


# Points


@pytest.mark.parametrize(
    ("size", "valid"), [(MAX_BATCH_SIZE, True), (MAX_BATCH_SIZE + 1, False), (1, True), (0, False)]
)
def test_the_range_of_batch_sizes(size: int, valid: bool) -> None:
    text = f"batch_size,peak_memory_bytes\n{size},{GIB}\n"
    assert MAX_BATCH_SIZE == 2_147_483_648
    if valid:
        assert parse_points(text) == [MeasuredPoint(size, GIB)]
    else:
        with pytest.raises(PointsError):
            parse_points(text)


@pytest.mark.parametrize(
    ("first", "second", "memory", "valid"),
    [
        (8, 16, 200, True),  # twice the batch, a hundred times that in memory
        (8, 16, 200.1, False),
        (8, 9, 112, True),
        (8, 9, 113, False),
        (8, 16, 0.985, True),  # a fall within noise
    ],
)
def test_memory_that_grows_too_fast_is_of_two_units(first: int, second: int, memory: float, valid: bool) -> None:
    text = f"batch_size,peak_memory_bytes\n{first},{1000 << 20}\n{second},{round(memory * (1000 << 20))}\n"
    if valid:
        assert len(parse_points(text)) == 2
    else:
        with pytest.raises(PointsError, match="units"):
            parse_points(text)


def test_a_column_that_is_twice_there_is_refused() -> None:
    with pytest.raises(PointsError, match="duplicate"):
        parse_points(f"batch_size,peak_memory_bytes,batch_size\n8,{GIB},8\n")


def test_lines_are_counted_from_the_header_and_blank_ones_are_no_points() -> None:
    text = f"\n,\nbatch_size, peak_memory_bytes ,samples_per_second\n8,{GIB}, 5 \n\n16,{2 * GIB},\n"
    assert parse_points(text) == [MeasuredPoint(8, GIB, 5.0), MeasuredPoint(16, 2 * GIB)]


# Corrections of estimates


@given(st.floats(0, 4), st.floats(0.81, 1.49), st.integers(3, 8))
def test_a_correction_is_the_line_that_was_measured(context_gib: float, ratio: float, count: int) -> None:
    estimated = [round((1 + i) * GIB) for i in range(count)]
    pairs = [(each, round(context_gib * GIB + ratio * each)) for each in estimated]
    found = fit_correction(pairs)
    assert found.ratio == pytest.approx(ratio, rel=1e-5)
    assert found.context_bytes == pytest.approx(context_gib * GIB, abs=1e4)
    assert (found.spread_ratio, found.samples) == (0.02, count)  # never narrower than 2 %


@pytest.mark.parametrize(("slope", "ratio"), [(0.5, 0.8), (2.0, 1.5)])
def test_the_slope_of_a_correction_is_bounded(slope: float, ratio: float) -> None:
    found = fit_correction([(i * GIB, round((10 + slope * i) * GIB)) for i in (1, 2, 3)])
    assert found.ratio == ratio
    assert found.spread_ratio > 0.02


def test_the_spread_is_the_largest_error_of_nine_tenths() -> None:
    """Of ten pairs that is the largest; of thirty all but the two that are furthest off."""
    few = [(i * GIB, i * GIB) for i in range(1, 10)] + [(20 * GIB, 30 * GIB)]
    found = fit_correction(few)
    errors = sorted(abs((found.context_bytes + found.ratio * x) / y - 1) for x, y in few)
    assert found.spread_ratio == pytest.approx(errors[-1])
    many = [(i * GIB, round(i * GIB * (1 + 0.003 * i * (-1) ** i))) for i in range(1, 31)]
    found = fit_correction(many)
    errors = sorted(abs((found.context_bytes + found.ratio * x) / y - 1) for x, y in many)
    assert found.spread_ratio == pytest.approx(errors[27])
    assert errors[27] != pytest.approx(errors[28])


def test_few_pairs_say_what_the_context_takes() -> None:
    default = EstimateCorrection(5.0, 1.2, 0.3, 9)
    assert fit_correction([], default) == default
    assert fit_correction([(GIB, 2 * GIB), (GIB, 4 * GIB)], default) == EstimateCorrection(2.0 * GIB, 1.0, 0.3, 2)
    assert fit_correction([(2 * GIB, GIB)], default).context_bytes == 0
    same = fit_correction([(GIB, 2 * GIB)] * 3)
    assert (same.ratio, same.context_bytes) == (1.0, GIB)


def test_predictions_rise_with_the_size() -> None:
    fit = fit_memory(points((8, 1.0), (16, 1.6)))
    found = [fit.predict(size).peak_memory_bytes for size in range(16, 128, 4)]
    assert all(one <= other for one, other in pairwise(found))
