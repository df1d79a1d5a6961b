"""Does OptimizedDataLoader choose the right number of workers? `make bench-loaders`

The loader first chooses a number for each data set and training loop. Then all numbers up to the limit are measured in
turn, in this loop; the one with the highest median is the best. Finally the chosen and the best number alternate, so
that other work on the machine affects both; the result is the median of their ratios, because the best of a sweep is
partly luck. A loop waits in each step, as for a GPU: not at all, as long as loading a batch takes, or four times as
long. Five to six minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from gpu_advisor.training.loaders.optimized import PREFETCH_FACTOR, OptimizedDataLoader
from gpu_advisor.training.loaders.worker_search import default_max_workers
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import Goal, missed_goals, table, write

BATCH_SIZE = 8
GOAL_RATIO = 0.90
#: Not measured, and at least measured.
STEPS_BEFORE, LEAST_STEPS = 2, 4


class IoBoundDataset(Dataset[torch.Tensor]):
    """I/O-bound: each sample waits, as for a file on a network."""

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.004)
        return torch.zeros(256)


class CpuBoundDataset(Dataset[torch.Tensor]):
    """CPU-bound: each sample is decompressed."""

    def __init__(self) -> None:
        self._packed = zlib.compress(bytes(range(256)) * 3000, 1)

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.frombuffer(bytearray(zlib.decompress(self._packed)), dtype=torch.uint8)[:256]


class MemoryDataset(Dataset[torch.Tensor]):
    """In memory: workers only cost time."""

    def __len__(self) -> int:
        return 10_000_000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(16)


DATA: Mapping[str, Dataset[torch.Tensor]] = {
    "I/O-bound": IoBoundDataset(),
    "CPU-bound": CpuBoundDataset(),
    "in memory": MemoryDataset(),
}
#: Seconds of a step, in those of loading a batch without workers.
STEP_FACTORS = (0.0, 1.0, 4.0)


@dataclass(frozen=True)
class LoaderResult:
    """rates: median samples per second by number of workers. ratio: of the chosen rate to the best, interleaved."""

    chosen: int
    best: int
    rates: Mapping[int, float]
    ratio: float
    choosing_seconds: float


def compare(
    dataset: Dataset[torch.Tensor], factor: float, max_workers: int, seconds: float, rounds: int, pairs: int
) -> LoaderResult:
    step_seconds = factor * BATCH_SIZE / _rate(dataset, 0, 0.0, seconds)
    enough = BATCH_SIZE / step_seconds if step_seconds else None
    began = time.perf_counter()
    chosen = OptimizedDataLoader(
        dataset, BATCH_SIZE, max_workers=max_workers, enough_samples_per_second=enough
    ).num_workers
    choosing_seconds = time.perf_counter() - began
    tries: dict[int, list[float]] = {number: [] for number in range(max_workers + 1)}
    for _ in range(rounds):
        for number, found in tries.items():
            found.append(_rate(dataset, number, step_seconds, seconds))
    rates = {number: median(found) for number, found in tries.items()}
    best = max(rates, key=lambda number: rates[number])
    return LoaderResult(
        chosen,
        best,
        rates,
        _interleaved_ratio(dataset, chosen, best, step_seconds, seconds, pairs),
        choosing_seconds,
    )


def _interleaved_ratio(
    dataset: Dataset[torch.Tensor], one: int, other: int, step_seconds: float, seconds: float, pairs: int
) -> float:
    """Return the median ratio of the rates of two numbers of workers, in alternating order."""
    ratios = []
    for turn in range(pairs if one != other else 0):
        order = (one, other) if turn % 2 else (other, one)
        found = {number: _rate(dataset, number, step_seconds, seconds) for number in order}
        ratios.append(found[one] / found[other])
    return median(ratios) if ratios else 1.0


def _rate(dataset: Dataset[torch.Tensor], num_workers: int, step_seconds: float, seconds: float) -> float:
    """Return samples per second of a loop with steps of that length, in whole rounds of the workers.

    Before, the prefetched batches are used up, and a few steps let workers run ahead of the loop again, as they do in a
    long one.
    """
    settings: dict[str, Any] = {"prefetch_factor": PREFETCH_FACTOR} if num_workers else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores
        batches = iter(DataLoader(dataset, BATCH_SIZE, num_workers=num_workers, **settings))
    a_round = max(num_workers, 1)
    for _ in range(a_round * (1 + PREFETCH_FACTOR)):
        next(batches)

    def step() -> None:
        next(batches)
        if step_seconds:
            time.sleep(step_seconds)

    for _ in range(STEPS_BEFORE):
        step()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or done < LEAST_STEPS:
        for _ in range(a_round):
            step()
        done += a_round
    return done * BATCH_SIZE / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-workers", type=int, default=default_max_workers())
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of the sweep")
    parser.add_argument("--pairs", type=int, default=7, help="of measurements, of the chosen and the best number")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = {
        f"{name}, steps of {factor:g}": compare(
            dataset, factor, arguments.max_workers, arguments.seconds, arguments.rounds, arguments.pairs
        )
        for name, dataset in DATA.items()
        for factor in STEP_FACTORS
    }
    numbers = range(arguments.max_workers + 1)
    rows = [("samples/s by workers", *map(str, numbers), "chosen", "best", "chosen/best", "chosen in")]
    goals = []
    for name, outcome in outcomes.items():
        found = (f"{outcome.rates[number]:.0f}" for number in numbers)
        choice = (str(outcome.chosen), str(outcome.best), f"{outcome.ratio:.1%}", f"{outcome.choosing_seconds:.1f} s")
        rows.append((name, *found, *choice))
        text = f"chosen num_workers within 10 % of the best of a full sweep in the loop, {name}"
        goals.append(Goal(text, outcome.ratio >= GOAL_RATIO, f"{outcome.ratio:.1%}"))
    print(table(rows))
    print(*goals, sep="\n")
    results = {
        name: {
            "chosen": outcome.chosen,
            "best": outcome.best,
            "ratio": outcome.ratio,
            "choosing_seconds": outcome.choosing_seconds,
            "samples_per_second": {str(number): rate for number, rate in outcome.rates.items()},
        }
        for name, outcome in outcomes.items()
    }
    print(f"written to {write('loaders', {'torch': torch.__version__, 'batch_size': BATCH_SIZE, 'data': results})}")
    return 1 if missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
