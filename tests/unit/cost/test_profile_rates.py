"""Rates from profiles: the best size of each, the GPU that it was measured on, and what cannot be used."""

from __future__ import annotations

import pytest
from gpu_advisor.calibration.profile import Measurement, Profile
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import GpuVariant
from gpu_advisor.cost.profile_rates import rates_from_profiles

GIB = 1 << 30


def profile(
    gpu: str = "Tesla T4", rates: tuple[float | None, ...] = (10.0, 40.0, 30.0), memory: int | None = None,
    workload: str = "llm",
) -> Profile:  # fmt: skip
    measured = tuple(
        Measurement(batch_size=8 * (i + 1), peak_memory_bytes=(i + 1) * GIB, samples_per_second=rate)
        for i, rate in enumerate(rates)
    )
    return Profile(
        gpu_type=gpu, workload=workload, precision="bfloat16", memory_kind="reserved", measurements=measured,
        created_timestamp_seconds=1.8e9, device_memory_bytes=memory,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rates", "best"), [((10.0, 40.0, 30.0), 40), ((None, 5.0, None), 5), ((0.5, 0.25, None), 0.5), ((2.0, 3.0), 3)]
)
def test_the_best_measured_size_counts(rates: tuple[float | None, ...], best: float) -> None:
    (rate,) = rates_from_profiles([profile(rates=rates)])
    assert (rate.per_second, rate.gpu_count, rate.linear) == (best, 1, False)
    (tokens,) = rates_from_profiles([profile(rates=rates)], 512)
    assert tokens.per_second == 512 * best
    assert f"batch {8 * (rates.index(best) + 1)}" in rate.basis


def test_the_fastest_is_first() -> None:
    found = rates_from_profiles([profile(rates=(each, each / 2)) for each in (5.0, 20.0, 10.0)])
    assert [rate.per_second for rate in found] == [20, 10, 5]
    assert rates_from_profiles([]) == ()


@pytest.mark.parametrize(
    ("gpu", "memory", "variant"),
    [
        ("NVIDIA A100-SXM4-40GB", 80 * GIB, GpuVariant("A100", 40)),  # by its name
        ("Tesla T4", None, GpuVariant("T4", 16)),  # comes in one size
        ("Tesla T4", 15 * GIB, GpuVariant("T4", 16)),
        ("A100", 79 * GIB, GpuVariant("A100", 80)),  # as the device reported
        ("A100", 39 * GIB, GpuVariant("A100", 40)),
    ],
)
def test_the_gpu_has_the_size_that_it_was_measured_on(gpu: str, memory: int | None, variant: GpuVariant) -> None:
    (rate,) = rates_from_profiles([profile(gpu, memory=memory)])
    assert rate.gpu == variant


def test_profiles_that_say_nothing_are_refused() -> None:
    with pytest.raises(CostError, match="throughput"):
        rates_from_profiles([profile(rates=(None, None))])
    with pytest.raises(CostError, match="a, b"):
        rates_from_profiles([profile(workload="b"), profile(workload="a"), profile(workload="b")])
    with pytest.raises(CostError, match="memory"):
        rates_from_profiles([profile("A100")])
    with pytest.raises(CostError):
        rates_from_profiles([profile("MYSTERY")])
    assert len(rates_from_profiles([profile(), profile("A100", memory=79 * GIB)])) == 2
