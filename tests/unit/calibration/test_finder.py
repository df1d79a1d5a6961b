"""The finder, on memory curves that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gpu_advisor.calibration.batch_size_finder import SearchConfig, TrialMemory, TrialRunner, find_batch_size
from gpu_advisor.calibration.caching_allocator import replay
from gpu_advisor.calibration.errors import CalibrationError
from hypothesis import example, given
from hypothesis import strategies as st

MIB = 1 << 20
MAX_BATCH = 4096


def trial(memory: Callable[[int], TrialMemory], limit: float) -> TrialRunner:
    """A trial that fits a limit in MiB reports its memory."""
    return lambda size: usage if (usage := memory(size)).peak_bytes <= limit * MIB else None


def largest_of(run: TrialRunner) -> int:
    low, high = 0, MAX_BATCH
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if run(middle) else (low, middle - 1)
    return low


@given(
    held=st.integers(100, 20_000), workspace=st.integers(0, 4000), a_sample=st.integers(1, 500),
    limit=st.integers(1_000, 80_000), jump=st.floats(0, 0.05), at=st.integers(2, 300), reported=st.booleans(),
)  # fmt: skip
@example(held=1500, workspace=0, a_sample=120, limit=16_000, jump=0.0, at=2, reported=True)
@example(held=1500, workspace=0, a_sample=120, limit=16_000, jump=0.05, at=100, reported=False)
@example(held=15_800, workspace=0, a_sample=1, limit=16_000, jump=0.0, at=2, reported=True)
def test_what_is_found_fits_and_is_near_the_largest(
    held: int, workspace: int, a_sample: int, limit: int, jump: float, at: int, reported: bool
) -> None:
    """Lines, with memory that the first batch takes and no other, and with a workspace that comes at some size."""

    def memory(size: int) -> TrialMemory:
        batch = (workspace + a_sample * size) * (1 + jump * (size >= at))
        return TrialMemory(round((held + batch) * MIB), held * MIB if reported else 0)

    run = trial(memory, limit)
    largest, search = largest_of(run), SearchConfig(limit * MIB, max_batch_size=MAX_BATCH)
    if largest < 1:
        with pytest.raises(CalibrationError, match="use mixed precision"):
            find_batch_size(run, search)
        return
    found = find_batch_size(run, search)
    assert found.batch_size <= largest
    assert len(found.trials) <= search.max_trials
    if jump == 0 and largest >= search.first_batch_size:
        assert found.failures == 0
    if reported and workspace == 0 and found.failures == 0:
        assert found.batch_size >= 0.9 * largest * (1 - jump) - 1


@pytest.mark.parametrize(("reported", "most"), [(True, 3), (False, 5)])
def test_a_straight_line_takes_few_trials_and_no_failure(reported: bool, most: int) -> None:
    run = trial(lambda size: TrialMemory((1500 + 37 * size) * MIB, 1500 * MIB if reported else 0), 16_000)
    found = find_batch_size(run, SearchConfig(16_000 * MIB))
    assert found.failures == 0
    assert len(found.trials) <= most
    assert 0.95 * 391 <= found.batch_size <= 391


@given(
    weights=st.integers(1000, 5000), a_sample=st.integers(1, 100), backward=st.floats(1, 2), free=st.integers(0, 3000)
)
@example(weights=4000, a_sample=10, backward=1.2, free=100)
def test_where_the_optimizer_makes_the_peak_the_forward_pass_shows_what_a_batch_takes(
    weights: int, a_sample: int, backward: float, free: int
) -> None:
    """Adam: three copies held, gradients and temporaries in its step, and the batch of inputs."""
    held, step, inputs = 3 * weights, 5 * weights, 0.05 * a_sample

    def memory(size: int) -> TrialMemory:
        peak = max(held + a_sample * size * backward, step + inputs * size)
        return TrialMemory(round(peak * MIB), held * MIB, round((held + a_sample * size) * MIB))

    limit = step + free + 5 * a_sample
    run = trial(memory, limit)
    found = find_batch_size(run, SearchConfig(limit * MIB, max_batch_size=MAX_BATCH))
    assert found.failures == 0
    assert found.batch_size >= 0.5 * largest_of(trial(memory, 0.99 * limit)) - 1


def test_nearly_full_from_the_first_on() -> None:
    """The optimizer's step takes 99.8 %, and the batch of inputs ends it at 40 samples."""

    def memory(size: int) -> TrialMemory:
        step, forward = 16_000 + 0.5 * size, 9_000 + 20 * size
        return TrialMemory(round(max(step, 1.2 * forward) * MIB), 9_000 * MIB, round(forward * MIB))

    found = find_batch_size(trial(memory, 16_020), SearchConfig(16_020 * MIB))
    assert found.failures == 0
    assert [one.batch_size for one in found.trials][:2] == [4, 2]
    assert 30 <= found.batch_size <= 40


def test_a_failure_is_a_bound() -> None:
    """Memory that jumps by half at 100 samples."""
    run = trial(lambda size: TrialMemory((1000 + 100 * size + 50 * size * (size >= 100)) * MIB), 16_000)
    found = find_batch_size(run, SearchConfig(16_000 * MIB))
    assert found.failures >= 1
    assert 90 <= found.batch_size <= 100


def test_the_data_set_bounds_the_batch() -> None:
    assert (
        find_batch_size(
            lambda size: TrialMemory((100 + size) * MIB), SearchConfig(80_000 * MIB, max_batch_size=48)
        ).batch_size
        == 48
    )


def test_no_step_is_larger_than_one_may_trust() -> None:
    """The memory reported is wrong: then nothing seems to grow."""
    sizes: list[int] = []

    def run(size: int) -> TrialMemory:
        sizes.append(size)
        return TrialMemory((1000 + size) * MIB, (1000 + size) * MIB)

    find_batch_size(run, SearchConfig(80_000 * MIB, first_batch_size=1, max_batch_size=MAX_BATCH))
    assert sizes == [1, 64, 4096]


def test_the_allocator_gives_its_cache_back_before_it_gives_up() -> None:
    """A block of 100 MiB is freed; the next, of 120 MiB, does not fit it, and no more than one fits the device."""
    events = [(1, 100 * MIB), (1, -1), (2, 120 * MIB)]
    assert replay(events).reserved_bytes == 220 * MIB
    assert replay(events).retries == 0
    short = replay(events, 200 * MIB)
    assert (short.reserved_bytes, short.retries) == (120 * MIB, 1)
    with pytest.raises(MemoryError, match="do not fit"):
        replay(events, 110 * MIB)
