"""Finds the largest safe batch size in few trials, and rarely runs out of memory.

A trial measures peak memory, and the persistent part of it (weights, optimizer state, CUDA context). The rest depends
on the batch. As some of that is fixed, too (workspaces, gradients), it grows at most in proportion to the batch: one
trial gives a bound for every larger size. The next trial is the largest size within that bound, and shows how tight the
bound was; after two or three of them a larger size would gain next to nothing.

Memory that jumps can exceed the bound: a library changes its algorithm, or the allocator's segments fragment. A margin
covers that, which is larger while most of the memory is unused.

If weights are most of the memory, the optimizer's step determines the peak of small batches, and the bound is loose. A
trial that also measures memory after the forward pass helps: the backward pass adds at most as much as the forward pass
left, since a gradient is as large as its tensor; and the optimizer's step keeps no more of the batch than the forward
pass did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpu_advisor.calibration.errors import CalibrationError, HostMemoryError
from gpu_advisor.calibration.out_of_memory import MemoryFailure, memory_failure

_STEADY_RATIO = 0.0002
"""Share of the limit kept free for the optimizer's step, whose memory does not jump."""


@dataclass(frozen=True, slots=True)
class TrialMemory:
    """Memory of a trial, in bytes.

    `persistent_bytes`: allocated between steps, without gradients and batch. It saves trials; 0 if unknown. An
    overestimate would make the search exceed the limit. `forward_bytes`: allocated after a forward pass; None if
    unknown.
    """

    peak_bytes: int
    persistent_bytes: int = 0
    forward_bytes: int | None = None


TrialRunner = Callable[[int], TrialMemory | None]
"""Runs a few steps at a size. None if they do not fit: the allocator had to retry (`num_alloc_retries` of
torch.cuda.memory_stats grew), or they ran out of memory, which it may also raise."""


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """`limit_bytes`: memory that may be used.

    The margins were tuned on simulated models that `make bench-finder` does not use.
    """

    limit_bytes: int
    first_batch_size: int = 4
    max_batch_size: int = 1 << 20
    """Upper limit, such as the number of samples in the dataset."""
    stop_ratio: float = 0.03
    """Stop if at most this much can be gained."""
    extrapolation_margin: float = 0.10
    """Share of the batch's memory kept free, times the unused share: the error of the bound for much larger sizes."""
    min_margin: float = 0.01
    """Minimum share kept free."""
    max_growth_factor: float = 64.0
    """Maximum ratio of the next size to the best one."""
    max_trials: int = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """A size that was tried; `usage` is None if it did not fit."""

    batch_size: int
    usage: TrialMemory | None


@dataclass(frozen=True, slots=True)
class FinderResult:
    """The largest size that was run within the limit, and all trials."""

    batch_size: int
    trials: tuple[Trial, ...]

    @property
    def failures(self) -> int:
        """Trials that did not fit."""
        return sum(trial.usage is None for trial in self.trials)


def find_batch_size(run: TrialRunner, search: SearchConfig) -> FinderResult:
    """Raises CalibrationError if not even a batch size of 1 fits, HostMemoryError if the host's memory ran out.

    Out-of-memory errors of `run` are trials that do not fit. Errors that may have other causes count as such if a
    smaller size succeeds; else, like all others, they are raised.
    """
    trials: list[Trial] = []
    doubtful: Exception | None = None
    size: int | None = min(search.first_batch_size, search.max_batch_size)
    while size is not None and len(trials) < search.max_trials:
        usage = None
        try:
            usage = run(size)
        except Exception as error:
            failure = memory_failure(error)
            if failure is None:
                raise
            if failure is MemoryFailure.HOST:
                raise HostMemoryError(
                    f"batch size {size}: the host's memory ran out, not the device's: {error}"
                ) from error
            doubtful = error if failure is MemoryFailure.AMBIGUOUS else doubtful
        trials.append(Trial(size, usage))
        size = next_size(trials, search)
    if doubtful is not None and all(trial.usage is None for trial in trials):
        raise doubtful
    best = max((trial.batch_size for trial in trials if _fits(trial, search)), default=None)
    if best is None:
        raise CalibrationError(
            "not even a batch size of 1 fits: use mixed precision, gradient checkpointing or a larger GPU"
        )
    return FinderResult(best, tuple(trials))


def next_size(trials: list[Trial], search: SearchConfig) -> int | None:
    """The next size to try, or None to stop. Pure."""
    fitting = {trial.batch_size: trial.usage for trial in trials if trial.usage and _fits(trial, search)}
    failed = min((trial.batch_size for trial in trials if not _fits(trial, search)), default=search.max_batch_size + 1)
    if not fitting:
        return failed // 2 if failed > 1 else None
    best, *smaller = sorted(fitting, reverse=True)
    usage = fitting[best]
    free = (search.limit_bytes - usage.peak_bytes) / max(search.limit_bytes - usage.persistent_bytes, 1)
    step_slope = (usage.peak_bytes - fitting[smaller[0]].peak_bytes) / (best - smaller[0]) if smaller else None
    enough = best * (1 + search.stop_ratio)
    bounds = _SizeBounds(best, usage, search.limit_bytes, max(search.extrapolation_margin * free, search.min_margin))
    size = max(bounds.proportional_bound(), bounds.per_phase_bound(step_slope))
    size = min(size, int(best * search.max_growth_factor), search.max_batch_size)
    if failed <= search.max_batch_size:  # memory jumps somewhere between best and failed: bisect
        size = min(size, (best + failed) // 2)
    if enough < size < failed:
        return size
    # The first size nearly filled the memory: a smaller one fits, and shows what a sample adds to the optimizer's step.
    alone = len(trials) == 1 and 1 < best < search.max_batch_size
    return best // 2 if alone and usage.forward_bytes is not None else None


@dataclass(frozen=True, slots=True)
class _SizeBounds:
    """Upper bounds of the batch size, from a trial of `size` that took `usage`."""

    size: int
    usage: TrialMemory
    limit_bytes: int
    margin: float

    def proportional_bound(self) -> int:
        """All memory that is not persistent grows in proportion."""
        return self._scaled_size(self.usage.peak_bytes - self.usage.persistent_bytes)

    def per_phase_bound(self, step_slope: float | None) -> int:
        """The passes grow in proportion, and the optimizer's step by `step_slope` bytes per sample, or, with one trial,
        by what the forward pass left per sample. 0 if the forward pass is unknown.
        """
        usage = self.usage
        if usage.forward_bytes is None:
            return 0
        left = usage.forward_bytes - usage.persistent_bytes
        slope = left / self.size
        if step_slope is not None:
            slope = min(slope, step_slope)
        free_bytes = self.limit_bytes * (1 - _STEADY_RATIO) - usage.peak_bytes
        return min(self._scaled_size(2 * left), self.size + int(max(free_bytes, 0) / max(slope, 1)))

    def _scaled_size(self, batch_bytes: int) -> int:
        available_bytes = (self.limit_bytes - self.usage.persistent_bytes) * (1 - self.margin)
        return int(self.size * available_bytes / max(batch_bytes, 1))


def _fits(trial: Trial, search: SearchConfig) -> bool:
    return trial.usage is not None and trial.usage.peak_bytes <= search.limit_bytes
