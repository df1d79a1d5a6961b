"""Shares of memory by strategy: bounds, margins, rounding, and what a model is assumed to need."""

from __future__ import annotations

import math

import pytest
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.memory_strategy import MemoryStrategy, ModelMemory, memory_share
from gpu_advisor.allocation.model import Allocation, NodeAllocation
from hypothesis import given
from hypothesis import strategies as st

DYNAMIC = MemoryStrategy.DYNAMIC


@pytest.mark.parametrize(
    ("need", "mixed", "total"),
    [
        (ModelMemory(parameters=10), True, 360),  # 18 bytes each, and as much of activations
        (ModelMemory(parameters=10), False, 320),
        (ModelMemory(parameters=10, activation_bytes=50), True, 230),
        (ModelMemory(parameters=10, activation_bytes=50), False, 210),
        (ModelMemory(parameters=10, activation_bytes=50, peak_bytes=77), True, 77),
        (ModelMemory(peak_bytes=77), False, 77),
    ],
)
def test_what_a_model_needs(need: ModelMemory, mixed: bool, total: float) -> None:
    assert need.total_bytes(mixed) == total


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("field", ["parameters", "activation_bytes", "peak_bytes"])
def test_numbers_that_cannot_be_are_refused_by_name(field: str, value: float) -> None:
    need = ModelMemory(**{"parameters": 10.0, field: value})
    with pytest.raises(InvalidRequestError, match=f"model_{field}"):
        need.total_bytes(False)
    with pytest.raises(InvalidRequestError, match="model_parameters"):
        ModelMemory(activation_bytes=1.0).total_bytes(False)


@pytest.mark.parametrize(
    ("peak", "ratio"),
    [
        (1, 0.3),  # the least
        (300 / 1.1, 0.3),
        (500 / 1.1, 0.5),  # with the margin, exactly
        (501 / 1.1, 0.51),  # rounded up
        (503 / 1.1, 0.51),
        (949 / 1.1, 0.95),
        (950 / 1.1, 0.95),
        (5000, 0.95),  # the most
    ],
)
def test_the_dynamic_share_is_the_need_with_its_margin_in_percent_rounded_up(peak: float, ratio: float) -> None:
    found = memory_share(DYNAMIC, 1000, ModelMemory(peak_bytes=peak))
    assert found.ratio == pytest.approx(ratio, abs=1e-12)
    assert ("unlikely" in found.why) is (peak * 1.1 > 950 * (1 + 1e-12))
    assert ("at least" in found.why) is (peak * 1.1 < 300 * (1 - 1e-12))


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_the_share_is_enough_where_it_can_be(peak: float, memory: float) -> None:
    ratio = memory_share(DYNAMIC, memory, ModelMemory(peak_bytes=peak)).ratio
    assert 0.3 <= ratio <= 0.95
    assert ratio >= min(0.95, 1.1 * peak / memory) - 1e-9
    assert ratio == 0.3 or ratio - 0.01 <= 1.1 * peak / memory + 1e-9


@pytest.mark.parametrize(("strategy", "ratio"), [(MemoryStrategy.CONSERVATIVE, 0.8), (MemoryStrategy.AGGRESSIVE, 0.95)])
def test_fixed_shares_need_no_size(strategy: MemoryStrategy, ratio: float) -> None:
    assert memory_share(strategy, None).ratio == ratio
    assert memory_share(strategy, 1.0, ModelMemory(parameters=1e12)).ratio == ratio


def test_the_dynamic_share_needs_the_models_size_and_the_gpus() -> None:
    with pytest.raises(InvalidRequestError, match="model_parameters"):
        memory_share(DYNAMIC, 1000)
    with pytest.raises(InvalidRequestError, match="memory_gb"):
        memory_share(DYNAMIC, None, ModelMemory(peak_bytes=1))
    mixed, full = (memory_share(DYNAMIC, 1000, ModelMemory(parameters=12), mixed) for mixed in (True, False))
    assert (mixed.ratio, full.ratio) == (0.48, 0.43)


def test_an_allocation_adds_up_its_nodes() -> None:
    shares = (NodeAllocation("a", (0, 1), ("x", "y"), ""), NodeAllocation("b", (3,), ("z",), ""))
    found = Allocation("i", "t", GpuRequest(3), shares, "T4", "nvidia", 16.0, 0.0, 1.0)
    assert (found.node_names, found.gpu_count, found.uuids, found.on_cpu) == (("a", "b"), 3, ("x", "y", "z"), False)
    empty = Allocation("i", "t", GpuRequest(3), (), "", "", None, 0.0, 1.0)
    assert (empty.node_names, empty.gpu_count, empty.uuids, empty.on_cpu) == ((), 0, (), True)
