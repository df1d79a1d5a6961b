"""How many workers a data set needs: found by trying, as disk, CPU, library and data decide it together. Pure."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: Twice as many must bring at least this much more, or the end is in sight.
MIN_GAIN_RATIO = 1.08
#: A few workers less are worth this much of the rate: each costs memory.
RATE_TOLERANCE_RATIO = 0.03
#: The best and its neighbours may be this part of their number apart. Where data is waited for, the rate rises by as
#: much as the number does, up to where the cores are all busy; it may fall from there on, so nothing coarser would do.
NEIGHBOR_DIVISOR = 10
#: Those within this share of the best are measured again: on a machine that others use, a single try may be unlucky.
RETRY_RATIO = 0.7


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """Samples a second that so many workers deliver when nobody makes them wait."""

    num_workers: int
    samples_per_second: float


def search_worker_rates(measure: Callable[[int], float | None], max_workers: int) -> list[WorkerRate]:
    """The rates found, by number of workers.

    Doubles the number until twice in a row that brought nothing, looks between the best and its neighbours until they
    are a tenth apart, then tries the best ones again and takes each one's better try: what disturbs only slows down.
    `measure` tells samples a second, or None when no more is to be tried.
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
    """A number to try between the best and a neighbour; None when they are near enough."""
    numbers = sorted(rates)
    if not numbers:
        return None
    best = numbers.index(max(numbers, key=lambda number: rates[number]))
    for low, high in itertools.pairwise(numbers[max(best - 1, 0) : best + 2]):
        if low > 0 and high - low > max(1, high // NEIGHBOR_DIVISOR):
            return (low + high) // 2
    return None


def choose_num_workers(rates: Sequence[WorkerRate], enough_samples_per_second: float | None = None) -> int:
    """The fewest workers that deliver enough, or next to what the best do. `rates` must not be empty."""
    best = max(rate.samples_per_second for rate in rates)
    wanted = best * (1 - RATE_TOLERANCE_RATIO)
    if enough_samples_per_second is not None:
        wanted = min(wanted, enough_samples_per_second)
    return min(rate.num_workers for rate in rates if rate.samples_per_second >= wanted)


def best_rates(rates: Iterable[WorkerRate]) -> list[WorkerRate]:
    """One for each number of workers, by number."""
    best: dict[int, WorkerRate] = {}
    for rate in rates:
        known = best.get(rate.num_workers)
        if known is None or rate.samples_per_second > known.samples_per_second:
            best[rate.num_workers] = rate
    return [best[number] for number in sorted(best)]


def default_max_workers() -> int:
    """Four a core of this rank: more can only help data that is waited for, and cost memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(4 * cores // max(int(ranks) if ranks.isdigit() else 1, 1), 4)
