"""Throughput on an offer by numbers: which of several rates counts, scaling, and estimates from peaks."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offer_throughput import PEAK_TFLOPS, WorkRate, offer_throughput
from gpu_advisor.cost.offers import GpuVariant, InstanceOffer, parse_exact_gpu, parse_gpu

A100, A100_40, T4, L4 = GpuVariant("A100", 80), GpuVariant("A100", 40), GpuVariant("T4", 16), GpuVariant("L4", 24)


def offer(gpu: GpuVariant = A100, count: int = 4, instance_type: str = "Standard_ND96") -> InstanceOffer:
    return InstanceOffer(
        "azure", "east", instance_type, gpu.name, count, gpu.memory_gb or 1, None, None, 10.0, None,
        date(2026, 1, 1), "here",
    )  # fmt: skip


def rate(per_second: float, gpu: GpuVariant | None = A100, count: int = 1, **more: Any) -> WorkRate:
    return WorkRate(per_second, f"rate {per_second:g}", gpu=gpu, gpu_count=count, **more)


@pytest.mark.parametrize(
    ("rates", "scaling", "instances", "per_second"),
    [
        ([WorkRate(7, "x", instance_type="nd96"), rate(5, count=4)], None, 1, 7),  # of the instance type itself
        ([WorkRate(7, "x", instance_type="nd96"), rate(5, count=8)], None, 2, 5),  # which is for one instance
        ([WorkRate(7, "x", instance_type="other")], None, 1, None),
        ([rate(5, count=4)], None, 1, 5),
        ([rate(5, count=4)], None, 2, None),
        ([rate(5, count=2)], 0.5, 1, None),  # scaling is from one GPU
        ([rate(5)], None, 1, None),
        ([rate(5)], 0.9, 1, 18),
        ([rate(5)], 1.0, 2, 40),
        ([rate(5), rate(6, count=4)], 0.9, 1, 6),  # measured on as many is better than scaled
        ([rate(5, count=2, linear=True)], None, 1, 10),
        ([rate(5, count=2, linear=True), rate(6, count=4)], None, 1, 10),
        ([rate(5, A100_40, 4)], None, 1, None),  # of another size
        ([rate(5, GpuVariant("A100"), 4)], None, 1, 5),  # of any size
        ([rate(5, T4, 4)], 0.9, 1, None),
        ([], 0.9, 1, None),
    ],
)
def test_the_best_matching_rate_counts(
    rates: list[WorkRate], scaling: float | None, instances: int, per_second: float | None
) -> None:
    found = offer_throughput(offer(), rates, scaling, False, instances)
    assert found.per_second == (None if per_second is None else pytest.approx(per_second))
    assert not found.estimated
    assert found.basis


def test_one_gpu_needs_no_scaling() -> None:
    assert offer_throughput(offer(count=1), [rate(5)], None, False).per_second == 5


PEAKS = PEAK_TFLOPS


@pytest.mark.parametrize(
    ("gpu", "rates", "per_second"),
    [
        (A100, [rate(5, T4)], 5 * 4 * PEAKS["A100"] / PEAKS["T4"]),
        (A100, [rate(5, T4, 2)], 5 / 2 * 4 * PEAKS["A100"] / PEAKS["T4"]),
        # The nearest peak in ratio, whatever the order: V100 is 2.5 times slower, H100 3.2 times faster.
        (A100, [rate(5, GpuVariant("H100", 80)), rate(7, GpuVariant("V100", 16))], 7 * 4 * 312 / 125),
        (A100, [rate(7, GpuVariant("V100", 16)), rate(5, GpuVariant("H100", 80))], 7 * 4 * 312 / 125),
        # Of equal peaks the nearest number of GPUs.
        (A100, [rate(5, T4, 1), rate(9, T4, 3), rate(30, T4, 8)], 9 / 3 * 4 * 312 / 65),
        (A100, [rate(5, T4, 1), rate(9, T4, 6), rate(2, T4, 8)], 9 / 6 * 4 * 312 / 65),
        (A100, [WorkRate(5, "x", instance_type="other")], None),  # no GPU is named
        (A100, [rate(5, GpuVariant("MYSTERY", 1))], None),
        (GpuVariant("MYSTERY", 1), [rate(5, T4)], None),
        (A100, [], None),
    ],
)
def test_estimates_scale_by_peaks_and_gpus(gpu: GpuVariant, rates: list[WorkRate], per_second: float | None) -> None:
    found = offer_throughput(offer(gpu), rates, None, True)
    assert found.per_second == (None if per_second is None else pytest.approx(per_second))
    assert found.estimated is (per_second is not None)
    assert offer_throughput(offer(gpu), rates, None, False).per_second is None


def test_a_measured_rate_is_better_than_an_estimate() -> None:
    found = offer_throughput(offer(), [rate(3, T4), rate(5, count=4)], None, True)
    assert (found.per_second, found.estimated) == (5, False)


@pytest.mark.parametrize(
    ("gpu", "text"),
    [
        (A100, "A100-80GB"),
        (GpuVariant("A100"), "A100"),
        (T4, "T4"),  # comes in one size
        (GpuVariant("MYSTERY", 96), "MYSTERY-96GB"),
        (GpuVariant("MYSTERY"), "MYSTERY"),
    ],
)
def test_a_size_is_named_where_there_are_several(gpu: GpuVariant, text: str) -> None:
    assert str(gpu) == text


@pytest.mark.parametrize(
    ("gpu", "other", "covers"),
    [(GpuVariant("A100"), A100, True), (A100, A100, True), (A100, A100_40, False), (A100, GpuVariant("A100"), False),
     (T4, L4, False), (GpuVariant("T4"), L4, False)],
)  # fmt: skip
def test_which_gpu_covers_which(gpu: GpuVariant, other: GpuVariant, covers: bool) -> None:
    assert gpu.covers(other) is covers


def test_a_measurement_is_on_a_definite_size() -> None:
    assert parse_exact_gpu("A100-80GB") == A100
    assert parse_exact_gpu("T4") == T4
    assert parse_gpu("A100") == GpuVariant("A100")
    with pytest.raises(CostError, match="A100-40GB or A100-80GB"):
        parse_exact_gpu("A100")
    with pytest.raises(CostError):
        parse_gpu("")
