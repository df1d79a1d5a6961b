"""Search for the number of data-loading workers, by measurement: it depends on disk, CPU, library and data. Pure."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: Minimum gain of twice as many workers; below it the search is near its end.
MIN_GAIN_RATIO = 1.08
#: Share of the best rate given up for fewer workers: each costs memory.
RATE_TOLERANCE_RATIO = 0.03
#: The search ends when the best number and its neighbors are a tenth apart. With I/O-bound data the rate is
#: proportional to the number until all cores are busy, and may fall from there on: a coarser step would miss the peak.
NEIGHBOR_DIVISOR = 10
#: Numbers within this share of the best are measured again: on a shared machine a single measurement may be off.
RETRY_RATIO = 0.7


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """Samples per second that `num_workers` workers deliver to a consumer that never makes them wait."""

    num_workers: int
    samples_per_second: float


def search_worker_rates(measure: Callable[[int], float | None], max_workers: int) -> list[WorkerRate]:
    """The measured rates, by number of workers.

    Doubles the number until there was no gain twice in a row, bisects between the best and its neighbors until they are
    a tenth apart, then measures the best ones again and keeps the higher rate: interference only slows down.
    `measure` returns samples per second, or None to stop the search.
    """
    rates: dict[int, float] = {}

    def try_count(number: int) -> bool:
        rate = measure(number)
        if rate is None:
            return False
        rates[number] = max(rate, rates.get(number, 0.0))
        return True

    best, idle = 0.0, 0
    for number in _doubling_counts(max_workers):
        if not try_count(number):
            break
        idle = 0 if rates[number] > best * MIN_GAIN_RATIO else idle + 1
        best = max(best, rates[number])
        if idle == 2 and number > 1:
            break
    while (between := _count_between_neighbors(rates)) is not None and try_count(between):
        pass
    for number in [number for number in rates if rates[number] >= RETRY_RATIO * max(rates.values())]:
        if not try_count(number):
            break
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
    """The fewest workers that deliver enough, or nearly the best rate. `rates` must not be empty."""
    best = max(rate.samples_per_second for rate in rates)
    required = best * (1 - RATE_TOLERANCE_RATIO)
    if enough_samples_per_second is not None:
        required = min(required, enough_samples_per_second)
    return min(rate.num_workers for rate in rates if rate.samples_per_second >= required)


def best_rates(rates: Iterable[WorkerRate]) -> list[WorkerRate]:
    """The highest rate of each number of workers, sorted by number."""
    best: dict[int, WorkerRate] = {}
    for rate in rates:
        known = best.get(rate.num_workers)
        if known is None or rate.samples_per_second > known.samples_per_second:
            best[rate.num_workers] = rate
    return [best[number] for number in sorted(best)]


def default_max_workers() -> int:
    """Four per core of this rank: more would help I/O-bound data only, and cost memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(4 * cores // max(int(ranks) if ranks.isdigit() else 1, 1), 4)
