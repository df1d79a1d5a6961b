"""Search for the number of data-loading workers, by measurement: it depends on disk, CPU, library and data. Pure."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: Minimum gain of twice as many workers; below it the search is near its end.
MIN_GAIN_RATIO = 1.08
#: Share of the best rate given up for fewer workers: each costs memory.
RATE_TOLERANCE_RATIO = 0.03
#: Rate that workers should have above the loop's, since batches do not arrive evenly.
HEADROOM_FACTOR = 1.25
#: What loading without workers counts if the loop's rate is unknown: it may be fastest if the loop does nothing, and
#: is half as fast for one that takes as long as loading. With this ratio (x * x + x = 1) neither choice loses more.
OWN_PROCESS_RATIO = (5**0.5 - 1) / 2
#: The search ends when the best number and its neighbors are a tenth apart. With I/O-bound data the rate is
#: proportional to the number until all cores are busy, and may fall from there on: a coarser step would miss the peak.
NEIGHBOR_DIVISOR = 10
#: Numbers within this share of the best are measured again: on a shared machine a single measurement may be off.
RETRY_RATIO = 0.7
#: Where two measurements of a number differ by more than this share, others use the machine: more numbers are measured
#: again, once more.
STABLE_RATIO = 0.85
NOISY_RETRY_RATIO = 0.4


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """Samples per second that `num_workers` workers deliver to a consumer that never makes them wait.

    `measured`: False if predicted from the time of a sample, which is too long to measure all numbers.
    """

    num_workers: int
    samples_per_second: float
    measured: bool = True


def search_worker_rates(measure: Callable[[int], float | None], max_workers: int) -> list[WorkerRate]:
    """The measured rates, by number of workers.

    Doubles the number until there was no gain twice in a row, the second time confirmed; bisects between the best and
    its neighbors until they are a tenth apart; then measures the best ones again, and more of them where the rates
    changed. The higher rate of a number counts: interference only slows down.
    `measure` returns samples per second, or None to stop the search.
    """
    rates: dict[int, float] = {}
    changes: list[float] = []

    def try_count(number: int) -> bool:
        rate = measure(number)
        if rate is None:
            return False
        if number in rates:
            changes.append(min(rate, rates[number]) / max(rate, rates[number], 1e-9))
        rates[number] = max(rate, rates.get(number, 0.0))
        return True

    def retry(ratio: float) -> bool:
        least = ratio * max(rates.values(), default=0.0)
        return all(try_count(number) for number in sorted(rates) if rates[number] >= least)

    best, idle = 0.0, 0
    for number in _doubling_counts(max_workers):
        if not try_count(number):
            break
        if rates[number] <= best * MIN_GAIN_RATIO and idle and not try_count(number):
            break
        idle = 0 if rates[number] > best * MIN_GAIN_RATIO else idle + 1
        best = max(best, rates[number])
        if idle == 2 and number > 1:
            break
    while (between := _count_between_neighbors(rates)) is not None and try_count(between):
        pass
    if retry(RETRY_RATIO) and min(changes, default=1.0) < STABLE_RATIO:
        retry(NOISY_RETRY_RATIO)
    return [WorkerRate(number, rates[number]) for number in sorted(rates)]


def _doubling_counts(max_workers: int) -> Iterator[int]:
    yield 0
    number = 1
    while number < max_workers:
        yield number
        number *= 2
    if max_workers > 0:
        yield max_workers


def _count_between_neighbors(rates: Mapping[int, float]) -> int | None:
    """A number between the best and a neighbor; None if they are close enough."""
    numbers = sorted(rates)
    if not numbers:
        return None
    best = numbers.index(max(numbers, key=lambda number: rates[number]))
    for low, high in itertools.pairwise(numbers[max(best - 1, 0) : best + 2]):
        if low > 0 and high - low > max(1, high // NEIGHBOR_DIVISOR):
            return (low + high) // 2
    return None


def choose_num_workers(rates: Sequence[WorkerRate], enough_samples_per_second: float | None = None) -> int:
    """The fewest workers with which the loop is nearly as fast as it can be. `rates` must not be empty.

    enough_samples_per_second: of the loop without waiting for data; None if unknown.
    """
    best = max(loop_samples_per_second(rate, enough_samples_per_second) for rate in rates)
    fastest = max(rate.samples_per_second for rate in rates if rate.num_workers or len(rates) == 1)
    needed = fastest * (1 - RATE_TOLERANCE_RATIO)
    if enough_samples_per_second is not None:
        needed = min(needed, enough_samples_per_second * HEADROOM_FACTOR)
    return min(
        rate.num_workers
        for rate in rates
        if loop_samples_per_second(rate, enough_samples_per_second) >= best * (1 - RATE_TOLERANCE_RATIO)
        and (rate.num_workers == 0 or rate.samples_per_second >= needed or rate.samples_per_second >= fastest)
    )


def loop_samples_per_second(rate: WorkerRate, enough_samples_per_second: float | None) -> float:
    """What a training loop gets, which itself can do `enough_samples_per_second`.

    Workers load while the loop computes, so the slower of the two decides. Without workers they take turns.
    """
    loading = rate.samples_per_second
    if rate.num_workers:
        return loading if enough_samples_per_second is None else min(loading, enough_samples_per_second)
    if enough_samples_per_second is None:
        return loading * OWN_PROCESS_RATIO
    return 1 / (1 / loading + 1 / enough_samples_per_second)


def predicted_rates(
    wall_seconds: float, cpu_seconds: float, cores: int, max_workers: int, at_most: float = math.inf
) -> list[WorkerRate]:
    """Samples per second of samples too slow to be measured with many numbers of workers.

    wall_seconds, cpu_seconds: of one sample. Workers wait in parallel, and compute on `cores`. at_most: a rate that was
    measured with as many workers as possible.
    """
    computing = cores / cpu_seconds if cpu_seconds > 0 else math.inf
    rates = []
    for number in _doubling_counts(max_workers):
        rate = 1 / wall_seconds if number == 0 else min(number / wall_seconds, computing, at_most)
        rates.append(WorkerRate(number, rate, measured=False))
    return rates


def best_rates(rates: Iterable[WorkerRate]) -> list[WorkerRate]:
    """The highest rate of each number of workers, sorted by number."""
    best: dict[int, WorkerRate] = {}
    for rate in rates:
        known = best.get(rate.num_workers)
        if known is None or rate.samples_per_second > known.samples_per_second:
            best[rate.num_workers] = rate
    return [best[number] for number in sorted(best)]


def available_cores(per_core: int = 1) -> int:
    """Of this rank, times `per_core`: ranks on one machine share its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(per_core * cores // max(int(ranks) if ranks.isdigit() else 1, 1), per_core)


def default_max_workers() -> int:
    """Four per core of this rank: more would help I/O-bound data only, and cost memory."""
    return available_cores(per_core=4)
