"""C-find: the largest batch size that is safe, in few trials and without running out of memory.

A trial tells the most memory that it took, and what of it stays between steps (weights, the optimizer's state, the
driver's context). The rest belongs to the batch. A batch's memory is in part fixed, too (workspaces, gradients), so it
grows with the batch at most in proportion: one trial gives a bound for every larger size. The next trial is the
largest size within that bound, and shows how far the bound was off; two or three of them end where a larger size would
gain next to nothing.

What may break the bound is memory that jumps, as where a library changes its algorithm or the allocator's segments
fall out badly. Against that a margin is kept, a large one as long as most of the memory is yet to be filled.

Where weights are most of the memory, the optimizer's step makes the peak of small batches, and the bound is far off. A
trial that also tells what is there when the forward pass has ended helps: the backward pass adds no more than the
forward pass left, since a gradient is as large as what it belongs to; and the optimizer's step holds of the batch no
more than the forward pass did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpu_advisor.calibration.errors import CalibrationError

_STEADY_RATIO = 0.0002
"""Share of the limit left free of what the optimizer's step takes: nothing jumps there."""


@dataclass(frozen=True, slots=True)
class TrialMemory:
    """Memory that a trial took, in bytes.

    `persistent_bytes` is what stays between steps when the gradients and the batch are let go of. It saves trials; 0 where it
    is not known, and never more than what really stays: then the search would be too bold. `forward_bytes` is what is
    there when a forward pass has ended; None where it is not known.
    """

    peak_bytes: int
    persistent_bytes: int = 0
    forward_bytes: int | None = None


TrialRunner = Callable[[int], TrialMemory | None]
"""Runs a few steps at a size. None where they do not fit: they ran out of memory, or the allocator barely helped itself
(`num_alloc_retries` of torch.cuda.memory_stats grew)."""


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """What is searched for. `limit_bytes` is the memory that may be used.

    The margins were chosen on simulated models that `make bench-finder` does not use.
    """

    limit_bytes: int
    first: int = 4
    largest: int = 1 << 20
    """The size from which on nothing is gained, as the number of samples in the data set."""
    stop_ratio: float = 0.03
    """Stop when at most this much is left to win."""
    extrapolation_margin: float = 0.10
    """Share left free of what the batch may have, times how much of that is unused: so far off the bound was for sizes
    many times larger."""
    min_margin: float = 0.01
    """Share left free at least."""
    max_growth_factor: float = 64.0
    """How many times the last size the next may be."""
    max_trials: int = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """One size tried. None did not fit."""

    batch_size: int
    usage: TrialMemory | None


@dataclass(frozen=True, slots=True)
class FinderResult:
    """The largest size that was run and is within the limit, and the way there."""

    batch_size: int
    trials: tuple[Trial, ...]

    @property
    def failures(self) -> int:
        """Trials that did not fit."""
        return sum(trial.usage is None for trial in self.trials)


def find_batch_size(run: TrialRunner, search: SearchConfig) -> FinderResult:
    """Raises CalibrationError where not even a batch of one fits."""
    trials: list[Trial] = []
    size: int | None = min(search.first, search.largest)
    while size is not None and len(trials) < search.max_trials:
        trials.append(Trial(size, run(size)))
        size = next_size(trials, search)
    best = max((trial.batch_size for trial in trials if _fits(trial, search)), default=None)
    if best is None:
        raise CalibrationError(
            "not even the smallest batch fits: use mixed precision, gradient checkpointing or a larger GPU"
        )
    return FinderResult(best, tuple(trials))


def next_size(trials: list[Trial], search: SearchConfig) -> int | None:
    """What to try next, or None to stop. Pure: a function of what was tried."""
    fitting = {trial.batch_size: trial.usage for trial in trials if trial.usage and _fits(trial, search)}
    failed = min((trial.batch_size for trial in trials if not _fits(trial, search)), default=search.largest + 1)
    if not fitting:
        return failed // 2 if failed > 1 else None
    best, *smaller = sorted(fitting, reverse=True)
    usage = fitting[best]
    free = (search.limit_bytes - usage.peak_bytes) / max(search.limit_bytes - usage.persistent_bytes, 1)
    step_slope = (usage.peak_bytes - fitting[smaller[0]].peak_bytes) / (best - smaller[0]) if smaller else None
    enough = best * (1 + search.stop_ratio)
    room = _SizeBounds(best, usage, search.limit_bytes, max(search.extrapolation_margin * free, search.min_margin))
    size = max(room.proportional_bound(), room.per_phase_bound(step_slope))
    size = min(size, int(best * search.max_growth_factor), search.largest)
    if failed <= search.largest:  # memory jumped once between what fits and what does not: stay in the middle
        size = min(size, (best + failed) // 2)
    if enough < size < failed:
        return size
    # Nearly full from the first on: a smaller one is sure to fit, and tells what a sample adds to the optimizer's step.
    alone = len(trials) == 1 and 1 < best < search.largest
    return best // 2 if alone and usage.forward_bytes is not None else None


@dataclass(frozen=True, slots=True)
class _SizeBounds:
    """How large a batch may become by each bound, given one that took `usage`."""

    size: int
    usage: TrialMemory
    limit_bytes: int
    margin: float

    def proportional_bound(self) -> int:
        """All that is not held grows in proportion."""
        return self._scaled_size(self.usage.peak_bytes - self.usage.persistent_bytes)

    def per_phase_bound(self, step_slope: float | None) -> int:
        """The passes grow in proportion, and what the optimizer's step takes by `step_slope` bytes a sample, or by all
        that the forward pass left where only one size was tried. 0 where the forward pass is not known.
        """
        usage = self.usage
        if usage.forward_bytes is None:
            return 0
        left = usage.forward_bytes - usage.persistent_bytes
        slope = left / self.size
        if step_slope is not None:
            slope = min(slope, step_slope)
        room = self.limit_bytes * (1 - _STEADY_RATIO) - usage.peak_bytes
        return min(self._scaled_size(2 * left), self.size + int(max(room, 0) / max(slope, 1)))

    def _scaled_size(self, batch_bytes: int) -> int:
        room = (self.limit_bytes - self.usage.persistent_bytes) * (1 - self.margin)
        return int(self.size * room / max(batch_bytes, 1))


def _fits(trial: Trial, search: SearchConfig) -> bool:
    return trial.usage is not None and trial.usage.peak_bytes <= search.limit_bytes
