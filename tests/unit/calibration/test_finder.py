"""The finder, on memory curves that are known."""

from __future__ import annotations

import pytest
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.finder import Search, find
from hypothesis import example, given, settings
from hypothesis import strategies as st

MIB = 1 << 20


@settings(max_examples=5)
@given(
    fixed=st.integers(100, 20_000), a_sample=st.integers(1, 500), limit=st.integers(1_000, 80_000),
    jump=st.floats(0, 0.08), at=st.integers(2, 300),
)  # fmt: skip
@example(fixed=1500, a_sample=120, limit=16_000, jump=0.0, at=2)
@example(fixed=1500, a_sample=120, limit=16_000, jump=0.08, at=100)
def test_what_is_found_fits_and_is_near_the_largest(
    fixed: int, a_sample: int, limit: int, jump: float, at: int
) -> None:
    """Lines, with a workspace that comes at some size."""

    def memory(size: int) -> int:
        return round((fixed + a_sample * size) * (1 + jump * (size >= at))) * MIB

    largest, most = 0, 4096
    while largest < most and memory(largest + 1) <= limit * MIB:
        largest += 1

    def run(size: int) -> int | None:
        return memory(size) if memory(size) <= limit * MIB else None

    search = Search(limit * MIB, largest=most)
    if largest < 1:
        with pytest.raises(CalibrationError, match="use mixed precision"):
            find(run, search)
        return
    found = find(run, search)
    assert found.batch_size <= largest
    assert len(found.trials) <= search.most_trials
    if fixed <= 0.9 * limit:  # where next to nothing is left for samples, it stays safe and ends early
        assert found.batch_size >= 0.9 * largest - 2
    if jump == 0 and largest >= search.first:
        assert found.out_of_memory_events <= 1


def test_a_straight_line_takes_few_trials_and_no_failure() -> None:
    def run(size: int) -> int | None:
        return (1500 + 37 * size) * MIB if 1500 + 37 * size <= 16_000 else None

    found = find(run, Search(16_000 * MIB))
    assert found.out_of_memory_events == 0
    assert len(found.trials) <= 6
    assert 0.95 * 391 <= found.batch_size <= 391


def test_the_data_set_bounds_the_batch() -> None:
    assert find(lambda size: (100 + size) * MIB, Search(80_000 * MIB, largest=48)).batch_size == 48
