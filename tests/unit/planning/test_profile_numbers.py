"""Corrections by profiles and traced plans by numbers: the line, its spread, margins and batches."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_advisor.calibration.memory_estimate import EstimateCorrection, MemoryEstimate
from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.layout import ParallelLayout
from gpu_advisor.planning.memory_model import activations, memory
from gpu_advisor.planning.profile_correction import MAX_SPREAD_RATIO, correct_from_profile
from gpu_advisor.planning.traced_plan import TracedPlan, correction_from_profiles, traced_plans
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.test_calibrated_plans import MIXED, SMALL, peaks, profile, traced

SIZES = (1, 2, 3, 4)


@given(st.lists(st.floats(0.99, 1.01), min_size=4, max_size=4))
def test_the_line_is_that_of_least_relative_squares(noise: list[float]) -> None:
    def peak(size: int) -> float:
        return peaks(2, 1.2)(size) * noise[size - 1]

    found = correct_from_profile(profile(peak, sizes=SIZES), SMALL, MIXED, True, GIB)
    planned = [activations(SMALL, ParallelLayout(micro_batch=size), 2) for size in SIZES]
    measured = [float(round(peak(size))) for size in SIZES]
    slope, intercept = np.polyfit(planned, measured, 1, w=[1 / each for each in measured])
    assert found.activations_ratio == pytest.approx(slope, rel=1e-6)
    spread = max(abs((intercept + slope * x) / y - 1) for x, y in zip(planned, measured, strict=True))
    assert found.spread_ratio == pytest.approx(spread, abs=1e-9)
    states = memory(SMALL, ParallelLayout(), MIXED, 0.0).states
    assert found.overhead_bytes == pytest.approx(max(0.0, intercept - states), abs=1e3)
    ratios = [y / (states + x + GIB) for x, y in zip(planned, measured, strict=True)]
    assert found.planned_ratio == pytest.approx(sum(ratios) / 4)
    assert found.sizes == 4


@pytest.mark.parametrize(("factor", "refused"), [(1.1, False), (1.2, False), (1.6, True)])
def test_peaks_may_be_off_the_line_by_its_spread(factor: float, refused: bool) -> None:
    measured = profile(lambda size: peaks(1, 1)(size) * (factor if size == 2 else 1), sizes=(1, 2, 3))
    if refused:
        with pytest.raises(PlanError):
            correct_from_profile(measured, SMALL, MIXED, True, GIB)
        return
    spread = correct_from_profile(measured, SMALL, MIXED, True, GIB).spread_ratio
    assert spread <= MAX_SPREAD_RATIO == 0.15
    assert (spread > MAX_SPREAD_RATIO / 2) is (factor == 1.2)


# Traced plans


@pytest.mark.parametrize(
    ("corrected", "high", "margin", "fits"),
    [
        (80, 100, 0.2, True),
        (81, 100, 0.2, False),
        (80, 101, 0.2, False),  # its upper end does not fit at all
        (100, 100, 0.0, True),
        (101, 101, 0.0, False),
    ],
)
def test_a_plan_fits_with_its_margin_and_its_upper_end_without(
    corrected: int, high: int, margin: float, fits: bool
) -> None:
    estimate = MemoryEstimate(1, 1, 1, corrected, 1, high)
    assert TracedPlan(ParallelLayout(), estimate, 100).fits(margin) is fits


@pytest.mark.parametrize(
    ("batch", "gpus", "micro_batches"),
    [(1, 1, [1]), (12, 1, [12, 6, 4, 3, 2, 1]), (12, 4, [3, 1]), (128, 1, [64, 32, 16, 8, 4, 2, 1])],
)
def test_micro_batches_divide_what_a_gpu_gets(batch: int, gpus: int, micro_batches: list[int]) -> None:
    hardware = ClusterSpec("X", 1, gpus, 1000 * GIB)
    found = traced_plans("m:f", hardware, batch, 0.1, "bfloat16", EstimateCorrection(), traced(0.1))
    assert [each.layout.micro_batch for each in found.fitting] == micro_batches
    assert all(each.layout.global_batch == batch for each in found.fitting)
    assert found.smallest is None


@pytest.mark.parametrize(("batch", "gpus"), [(0, 1), (-4, 4), (3, 2)])
def test_batches_that_cannot_be_split(batch: int, gpus: int) -> None:
    with pytest.raises(PlanError):
        traced_plans("m:f", ClusterSpec("X", 1, gpus, GIB), batch, 0.1, "bfloat16", EstimateCorrection(), traced(0.1))


def test_profiles_are_of_one_gpu_type() -> None:
    hardware = ClusterSpec("NVIDIA H100", 1, 1, 80 * GIB)
    one = profile(lambda size: (2 + 1.1 * (4 + size)) * GIB)
    found = correction_from_profiles([one, one.model_copy(update={"workload": "m:g"})], hardware, GIB, traced(1.0))
    assert found.samples == 8
    with pytest.raises(PlanError):
        correction_from_profiles([one, one.model_copy(update={"gpu_type": "T4"})], hardware, GIB, traced(1.0))
