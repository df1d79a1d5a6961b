"""C-find: the largest batch size that is safe, in few trials and without running out of memory.

Two small sizes are measured, the curve is fitted, and the next trial is the largest size that the fit is sure of; each
trial sharpens the fit, until the next size would be only a little larger. A trial that does run out of memory is a
bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gpu_advisor.calibration.errors import CalibrationError, PointsError
from gpu_advisor.calibration.fit import FARTHEST, MemoryFit, fit_memory
from gpu_advisor.calibration.points import Point, clean
from gpu_advisor.calibration.prior import PRIOR

#: Sizes tried one after the other in one place shake less than the records that the prior's noises were learnt from.
#: How much less is open: every noise up to 4 % is as probable as the others.
PROBED = replace(PRIOR, noises=tuple((noise, 1.0 if noise <= 0.04 else 0.2) for noise, _ in PRIOR.noises))
NEAREST = 4
"""Sizes that the fit uses: the largest, since what makes the peak of a small batch may be something else."""
FARTHEST_SECOND = 32.0
"""How many times the first size the second may be."""
Try = Callable[[int], int | None]
"""Runs a few steps at a size; peak memory in bytes, or None where it ran out of memory."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for. `limit_bytes` is the memory that may be used."""

    limit_bytes: int
    first: int = 4
    largest: int = 1 << 20
    """The size from which on nothing is gained, as the number of samples in the data set."""
    close_ratio: float = 0.03
    """Stop when at most this much is left to win."""
    likely_ratio: float = 0.05
    """With more than this likely to be left, half of it is tried although it is not sure."""
    risk: float = 0.02
    """Largest probability of running out of memory that a trial may have."""
    second_share: float = 0.6
    """Share of the limit that the second size may take if all memory grew with the batch: what one small size shows of
    workspaces is little."""
    shake_ratio: float = 0.1
    """How much memory may jump where a library changes its algorithm."""
    most_trials: int = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """One size tried. None for a peak is out of memory."""

    batch_size: int
    peak_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """The largest size that was run and is within the limit, and the way there."""

    batch_size: int
    trials: tuple[Trial, ...]

    @property
    def out_of_memory_events(self) -> int:
        return sum(trial.peak_memory_bytes is None for trial in self.trials)


def find(run: Try, search: Search) -> Found:
    """Raises CalibrationError where not even a batch of one fits."""
    trials: list[Trial] = []
    size: int | None = min(search.first, search.largest)
    while size is not None and len(trials) < search.most_trials:
        trials.append(Trial(size, run(size)))
        size = next_size(trials, search)
    best = max((trial.batch_size for trial in trials if _fits(trial, search)), default=None)
    if best is None:
        raise CalibrationError(
            "not even the smallest batch fits: use mixed precision, gradient checkpointing or a larger GPU"
        )
    return Found(best, tuple(trials))


def next_size(trials: list[Trial], search: Search) -> int | None:
    """What to try next, or None to stop. Pure: a function of what was tried."""
    fitting = {trial.batch_size: trial.peak_memory_bytes for trial in trials if _fits(trial, search)}
    failed = min((trial.batch_size for trial in trials if not _fits(trial, search)), default=search.largest + 1)
    if not fitting:
        return failed // 2 if failed > 1 else None
    best = max(fitting)
    points = [Point(size, peak) for size, peak in sorted(fitting.items()) if peak]
    enough = best * (1 + search.close_ratio)
    if len(points) == 1:
        size = max(best + 1, min(_proportional(points[0], search.second_share, search), int(FARTHEST_SECOND * best)))
        sure = likely = size
    else:
        sure, likely = _jump(points, search)
        size = max(sure, min(_proportional(points[-1], 1 - search.shake_ratio, search), likely))
    if size <= enough and likely > best * (1 + search.likely_ratio):  # not sure of more, but more is likely
        size = max(math.isqrt(best * likely), int(enough) + 1)
    size = min(size, search.largest)
    if failed <= search.largest:  # between what fits and what does not, the fit was wrong once: stay in the middle
        size = min(size, (best + failed) // 2)
    return size if size > enough and size < failed else None


def _proportional(point: Point, share: float, search: Search) -> int:
    """What takes this share of the limit at most, even if all memory grew with the batch."""
    return int(point.batch_size * share * search.limit_bytes / point.peak_memory_bytes)


def _jump(points: list[Point], search: Search) -> tuple[int, int]:
    """The largest size that surely fits, and the largest that fits as likely as not."""
    try:
        fit = fit_memory(clean(points[-NEAREST:]), PROBED)
    except PointsError:  # memory fell: the sizes are too close to tell
        return 1, 2 * points[-1].batch_size
    return largest_within(fit, search.limit_bytes, search.risk), largest_within(fit, search.limit_bytes, 0.5)


def largest_within(fit: MemoryFit, limit_bytes: float, risk: float) -> int:
    """The largest size whose risk of exceeding the limit is at most `risk`, at least the largest measured."""
    low = fit.points.largest.batch_size
    high = int(FARTHEST * low)
    while low < high:
        middle = (low + high + 1) // 2
        if fit.exceeds_probability(middle, limit_bytes) <= risk:
            low = middle
        else:
            high = middle - 1
    return low


def _fits(trial: Trial, search: Search) -> bool:
    return trial.peak_memory_bytes is not None and trial.peak_memory_bytes <= search.limit_bytes
