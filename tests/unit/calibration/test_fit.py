from __future__ import annotations

import itertools
import math

import pytest
from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, largest_safe_size, recommend_batch_size
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.memory_fit import fit_memory
from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints, clean_points
from gpu_advisor.calibration.prior import PRIOR
from gpu_advisor.calibration.throughput_fit import fit_throughput
from hypothesis import given, settings
from hypothesis import strategies as st

GIB = 1 << 30


def line(fixed: float, per_sample: float, sizes: tuple[int, ...]) -> MeasuredPoints:
    return clean_points(MeasuredPoint(size, round(fixed + per_sample * size)) for size in sizes)


def rated(*rows: tuple[int, float]) -> MeasuredPoints:
    return clean_points(MeasuredPoint(size, GIB + size * (100 << 20), rate) for size, rate in rows)


def test_the_prior_is_a_distribution() -> None:
    assert PRIOR.weights().sum() == pytest.approx(1.0, abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 8), st.floats(0.02, 0.5), st.sampled_from([2, 4, 8]))
def test_a_straight_line_is_found_within_its_interval(fixed: float, per_sample: float, factor: int) -> None:
    fit = fit_memory(line(fixed * GIB, per_sample * GIB, (8, 16, 32)))
    size = 32 * factor
    truth = (fixed + per_sample * size) * GIB
    found = fit.predict(size)
    assert found.low <= truth <= found.high
    assert found.peak_memory_bytes == pytest.approx(truth, rel=0.25)


@settings(max_examples=40, deadline=None)
@given(st.integers(1 << 28, 1 << 36), st.floats(0.99, 2.2), st.integers(1, 512), st.floats(1.01, 8))
def test_predictions_are_ordered_and_no_less_than_what_was_measured(
    first: int, growth: float, size: int, factor: float
) -> None:
    points = clean_points([MeasuredPoint(size, first), MeasuredPoint(2 * size, round(first * growth))])
    found = fit_memory(points).predict(math.ceil(2 * size * factor))
    assert points.points[0].peak_memory_bytes <= found.low <= found.peak_memory_bytes <= found.high


def test_intervals_widen_with_distance_and_narrow_with_points() -> None:
    two, four = line(2 * GIB, GIB / 8, (8, 16)), line(2 * GIB, GIB / 8, (8, 12, 14, 16))

    def width(points: MeasuredPoints, size: int) -> float:
        found = fit_memory(points).predict(size)
        return (found.high - found.low) / found.peak_memory_bytes

    assert width(two, 32) < width(two, 64) < width(two, 128)
    assert width(four, 128) < width(two, 128)


def test_memory_that_does_not_grow_yet_is_not_believed() -> None:
    flat = fit_memory(line(4 * GIB, 0, (8, 16))).predict(128)
    assert flat.peak_memory_bytes > 4.2 * GIB


@given(st.integers(1, 64), st.floats(0.05, 0.9), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_a_size_that_ran_out_of_memory_is_never_recommended(
    first: int, growth: float, factor: int, rated: bool
) -> None:
    """Nor a larger one, unless on a larger GPU than that on which it did."""
    sizes, failed = (first, 2 * first), factor * first + first
    points = clean_points(
        (
            MeasuredPoint(size, round(GIB * (1 + growth * size / first)), 10.0 * size if rated else None)
            for size in sizes
        ),
        (failed,),
    )
    for measured_on in (None, 80 * GIB):
        found = recommend_batch_size(points, BatchSizeRequest(80 * GIB, 0.9, measured_on_bytes=measured_on))
        assert found.recommended_batch_size is None or found.recommended_batch_size < failed
        assert found.ceilings.memory is None or found.ceilings.memory < failed
        assert any(f"{failed} ran out of memory" in note for note in found.notes)
    larger = recommend_batch_size(points, BatchSizeRequest(80 * GIB, 0.9, measured_on_bytes=8 * GIB))
    assert not any("ran out of memory" in note for note in larger.notes)


def test_a_point_left_out_as_out_of_memory_is_not_recommended() -> None:
    points = clean_points([MeasuredPoint(8, 5 * GIB), MeasuredPoint(16, 9 * GIB), MeasuredPoint(32, 3 * GIB)])
    assert points.out_of_memory == (32,)
    found = recommend_batch_size(points, BatchSizeRequest(80 * GIB, 0.9, predict=(32, 64)))
    assert found.recommended_batch_size == 16


@pytest.mark.parametrize("rate", [None, 100.0])
def test_where_the_size_does_not_matter_the_largest_measured_one_is_recommended(rate: float | None) -> None:
    points = clean_points(MeasuredPoint(size, 5 * GIB, rate) for size in (8, 16, 32))
    found = recommend_batch_size(points, BatchSizeRequest(40 * GIB, 0.85))
    assert found.recommended_batch_size == 32
    assert any("does not matter" in note for note in found.notes)
    noisy = recommend_batch_size(points, BatchSizeRequest(40 * GIB, 0.85, gradient_noise=20))
    assert noisy.recommended_batch_size == 16


def test_memory_that_does_not_grow_is_reported_with_the_size_to_measure() -> None:
    flat, grown = line(4 * GIB, 0, (8, 16)), line(4 * GIB, GIB / 8, (8, 16))
    assert "does not grow from 8 to 16" in recommend_batch_size(flat, BatchSizeRequest(40 * GIB, 0.9)).notes[0]
    assert not any(
        "does not grow" in note for note in recommend_batch_size(grown, BatchSizeRequest(40 * GIB, 0.9)).notes
    )


def test_a_measured_size_is_what_was_measured() -> None:
    found = fit_memory(line(2 * GIB, GIB / 8, (8, 16))).predict(16)
    assert found.low == found.peak_memory_bytes == found.high == 4 * GIB


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 10), st.floats(0.01, 0.3), st.floats(1, 200))
def test_the_recommended_size_stays_within_the_target(fixed: float, per_sample: float, memory: float) -> None:
    points = line(fixed * GIB, per_sample * GIB, (8, 16, 32))
    found = largest_safe_size(fit_memory(points), memory * GIB)
    if found is not None:
        assert fixed + per_sample * found <= memory
        assert found <= 8 * 32


def test_more_memory_never_gives_a_smaller_size() -> None:
    fit = fit_memory(line(2 * GIB, GIB / 8, (8, 16)))
    sizes = [largest_safe_size(fit, memory * GIB) or 0 for memory in range(1, 30)]
    assert sizes == sorted(sizes)


def test_measured_sizes_are_safe_as_measured() -> None:
    points = line(2 * GIB, GIB / 8, (8, 16))
    assert recommend_batch_size(points, BatchSizeRequest(4 * GIB, 1.0, (32,))).recommended_batch_size == 16
    assert recommend_batch_size(points, BatchSizeRequest(4 * GIB - 1, 1.0, (32,))).recommended_batch_size == 8
    assert recommend_batch_size(points, BatchSizeRequest(GIB, 1.0, (32,))).recommended_batch_size is None


def test_throughput_past_its_peak_is_not_recommended() -> None:
    points = rated((8, 100.0), (16, 180.0), (32, 240.0), (64, 230.0))
    advice = recommend_batch_size(points, BatchSizeRequest(80 * GIB, 0.9, current_batch=8))
    assert advice.recommended_batch_size == 32
    assert advice.ceilings.throughput_knee is not None
    assert 16 < advice.ceilings.throughput_knee <= 32
    assert advice.gain_ratio == pytest.approx(1.4)
    assert any("learning rate" in note for note in advice.notes)


def test_throughput_saturates() -> None:
    points = rated((8, 100.0), (16, 180.0), (32, 280.0))
    fit = fit_throughput(points)
    assert fit is not None
    rates = [fit.predict(size) for size in range(1, 1024)]
    assert all(later >= before - 1e-9 for before, later in itertools.pairwise(rates))
    assert fit.predict(16) == pytest.approx(180)
    assert rates[-1] < 2 * 280


def test_gradient_noise_is_a_ceiling() -> None:
    points = line(2 * GIB, GIB / 8, (8, 16, 32))
    advice = recommend_batch_size(points, BatchSizeRequest(80 * GIB, 0.9, gradient_noise=24))
    assert advice.recommended_batch_size == 24


@pytest.mark.parametrize("request_", [BatchSizeRequest(GIB, 0.0), BatchSizeRequest(GIB, 1.5),
                                      BatchSizeRequest(GIB, 0.9, (0,)),
                                      BatchSizeRequest(GIB, 0.9, current_batch=0)])  # fmt: skip
def test_contradictory_requests_are_refused(request_: BatchSizeRequest) -> None:
    with pytest.raises(CalibrationError):
        recommend_batch_size(line(GIB, GIB, (1, 2)), request_)
