"""Measures a dataset's loading rate by number of workers, in a separate process.

The job's random state stays untouched, and the job's workers do not inherit what the dataset opens on first access
(an HDF5 file, a database).
"""

from __future__ import annotations

import gc
import itertools
import logging
import math
import multiprocessing
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from gpu_advisor.training.loaders.worker_search import (
    WorkerRate,
    available_cores,
    best_rates,
    choose_num_workers,
    predicted_rates,
    search_worker_rates,
)

#: Loading time of a batch in the measurement: larger batches would take minutes to measure.
TARGET_BATCH_SECONDS = 0.05
MAX_INDICES = 100_000
#: A first sample that takes longer is not repeated: opening files does not matter then.
SLOW_SAMPLE_SECONDS = 1.0
#: Samples that a worker loads while its number is measured, those prefetched included.
SAMPLES_PER_WORKER = 5
#: Batches prefetched per worker: PyTorch's default.
DEFAULT_PREFETCH_FACTOR = 2

#: Arguments that determine the samples' order or the number of workers.
_OWN_ARGUMENTS = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "num_workers")
_WORKER_ARGUMENTS = ("prefetch_factor", "timeout", "multiprocessing_context")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerMeasurementConfig:
    """arguments: of the DataLoader. seconds: for each number tried. within_seconds: no number is tried after these."""

    dataset: Dataset[Any]
    arguments: Mapping[str, Any]
    max_workers: int
    seconds: float
    within_seconds: float


def measure_worker_rates(plan: WorkerMeasurementConfig) -> list[WorkerRate]:
    """Rates by number of workers; empty if nothing could be measured. Errors are logged, not raised.

    A dataset that cannot be sent to a process that does not fork can only be read without workers.
    """
    context: Any = plan.arguments.get("multiprocessing_context")
    if context is None or isinstance(context, str):
        context = multiprocessing.get_context(context)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_in_subprocess, args=(plan, sender), name="measure-workers")
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        receiver.close()
        sender.close()
        log.warning(
            "the dataset cannot be sent to workers (%s), so it is loaded without them: define its functions at the top "
            "level of a module",
            error,
        )
        return [WorkerRate(0, 1.0, measured=False)]
    sender.close()  # so that recv() raises EOFError when the child exits
    rates: list[WorkerRate] = []
    problem: str | None = None
    # The last number may start just in time; a dataset that hangs must not keep the job from starting.
    deadline = time.monotonic() + 2 * plan.within_seconds + 30
    try:
        while problem is None:
            if not receiver.poll(max(deadline - time.monotonic(), 0)):
                problem = "timed out"
            elif isinstance(message := receiver.recv(), str):
                problem = message
            else:
                rates = message
    except EOFError:
        process.join(5)
        if process.exitcode:
            problem = f"its process exited with {process.exitcode}; check memory and /dev/shm (docker run --shm-size)"
    finally:
        receiver.close()
        if process.is_alive():
            process.kill()
        process.join()
    if problem is not None:
        log.warning("measurement of data-loading workers failed: %s; set num_workers to skip it", problem)
    return best_rates(rates)


def _measure_in_subprocess(plan: WorkerMeasurementConfig, sender: Connection) -> None:
    """Sends all rates after each try, so that they survive if this process is killed."""
    # Unreachable loaders of the parent are not for this process to collect: their workers are not its children.
    gc.freeze()
    # A forked process must not use its parent's OpenMP threads, which do not exist here.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # "more workers than cores" is what is being measured
    until = time.monotonic() + plan.within_seconds
    rates: list[WorkerRate] = []
    try:
        order = _BatchOrder(plan)
        if _is_slow(order.sample.wall_seconds, plan):
            for found in _slow_rates(plan, order, until):
                sender.send(found)
            return

        def measure(number: int) -> float | None:
            if rates and time.monotonic() > until:
                return None
            rate = _measure_rate(plan, order, number)
            rates.append(WorkerRate(number, rate))
            sender.send(rates)
            return rate

        search_worker_rates(measure, plan.max_workers)
    except Exception as error:  # noqa: BLE001  # a dataset may raise anything; the job's own loop raises it again
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        sender.close()


def _is_slow(sample_seconds: float, plan: WorkerMeasurementConfig) -> bool:
    """Whether there is no time to measure all numbers that the search tries."""
    numbers = 2 + plan.max_workers.bit_length()
    return sample_seconds * SAMPLES_PER_WORKER * numbers > plan.within_seconds


def _slow_rates(plan: WorkerMeasurementConfig, order: _BatchOrder, until: float) -> Iterator[list[WorkerRate]]:
    """Rates predicted from one sample, then limited by what as many workers as useful delivered in one round."""
    sample = order.sample
    cores = available_cores()

    def predict(at_most: float = math.inf) -> list[WorkerRate]:
        return predicted_rates(sample.wall_seconds, sample.cpu_seconds, cores, plan.max_workers, at_most)

    rates = predict()
    yield rates
    workers = choose_num_workers(rates)
    predicted = next(rate.samples_per_second for rate in rates if rate.num_workers == workers)
    if workers < 2 or time.monotonic() + 2 * workers / predicted > until:
        return
    batches, sizes = _batches(plan, order, workers)
    started_at = time.perf_counter()
    for _ in range(workers):
        next(batches)
    found = sum(sizes[:workers]) / (time.perf_counter() - started_at)
    if found < predicted / 2:  # they get in each other's way: a shared disk, the memory's bandwidth
        yield predict(found)


class _SampleTime(NamedTuple):
    """Of loading one sample, in seconds; `cpu_seconds` of all threads of the process."""

    wall_seconds: float
    cpu_seconds: float


class _BatchOrder:
    """Endless batches of indices in the job's own order; each iteration continues where the last one stopped.

    Samples that were read before come from the page cache: reusing them would favor the number tried last.
    """

    def __init__(self, plan: WorkerMeasurementConfig) -> None:
        arguments = {name: value for name, value in plan.arguments.items() if name not in _WORKER_ARGUMENTS}
        loader = DataLoader(plan.dataset, **{**arguments, "num_workers": 0, "persistent_workers": False})
        self.batched = loader.batch_sampler is not None
        self._at = 0
        self.sample = _SampleTime(0.0, 0.0)
        self._units: list[Any]
        if arguments.get("batch_sampler") is not None or not self.batched:
            # The user's own batches, or single samples: take them unchanged. Neither needs a length, so not `or`.
            units = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
            self._units = list(itertools.islice(units, MAX_INDICES))
        else:
            indices = list(itertools.islice(loader.sampler, MAX_INDICES))
            self.sample, read = _time_samples(plan.dataset, indices)
            size = max(round(TARGET_BATCH_SECONDS / max(self.sample.wall_seconds, 1e-9)), 1)
            size = min(size, loader.batch_size or 1)
            self._units = [indices[i : i + size] for i in range(0, len(indices), size)]
            self._at = -(-read // size)
        if not self._units:
            raise ValueError("the dataset is empty")

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self._units[self._at % len(self._units)]
            self._at += 1


def _time_samples(dataset: Dataset[Any], indices: list[Any]) -> tuple[_SampleTime, int]:
    """The time of a sample, and how many were read to find it."""
    read, wall, cpu = 0, 0.0, 0.0
    for read, index in enumerate(indices[:64], 1):
        started_at, cpu_at = time.perf_counter(), time.process_time()
        dataset[index]
        taken = _SampleTime(time.perf_counter() - started_at, time.process_time() - cpu_at)
        if read == 1:  # includes opening files
            if taken.wall_seconds > SLOW_SAMPLE_SECONDS:
                return taken, read
            continue
        wall, cpu = wall + taken.wall_seconds, cpu + taken.cpu_seconds
        if wall > TARGET_BATCH_SECONDS:
            break
    count = max(read - 1, 1)
    return _SampleTime(wall / count, cpu / count), read


def _measure_rate(plan: WorkerMeasurementConfig, order: _BatchOrder, num_workers: int) -> float:
    """Samples per second."""
    batches, sizes = _batches(plan, order, num_workers)
    # Workers take turns, so their batches arrive in bursts: measure whole rounds. First consume what the workers that
    # started first may have prefetched.
    batches_per_round = max(num_workers, 1)
    start = batches_per_round * (1 + (plan.arguments.get("prefetch_factor") or DEFAULT_PREFETCH_FACTOR))
    for _ in range(start):
        next(batches)
    started_at, done, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < plan.seconds or done < 2 * batches_per_round:
        for _ in range(batches_per_round):
            next(batches)
        done += batches_per_round
        elapsed = time.perf_counter() - started_at
    # Batches arrive in the order of their requests.
    return sum(sizes[start : start + done]) / elapsed


def _batches(plan: WorkerMeasurementConfig, order: _BatchOrder, num_workers: int) -> tuple[Iterator[Any], list[int]]:
    """Batches of a loader with that many workers, and their sizes, in the order of their requests."""
    sizes: list[int] = []

    def units() -> Iterator[Any]:
        for unit in order:
            sizes.append(len(unit) if order.batched else 1)
            yield unit

    arguments = {name: value for name, value in plan.arguments.items() if name not in _OWN_ARGUMENTS}
    if num_workers == 0:
        arguments = {name: value for name, value in arguments.items() if name not in _WORKER_ARGUMENTS}
    source: dict[str, Any] = (
        {"batch_sampler": _SamplerAdapter(units)}
        if order.batched
        else {"batch_size": None, "sampler": _SamplerAdapter(units)}
    )
    # No pinned memory: it needs CUDA, which does not survive a fork.
    settings = {**arguments, **source, "num_workers": num_workers, "pin_memory": False, "persistent_workers": False}
    return iter(DataLoader(plan.dataset, **settings)), sizes


class _SamplerAdapter:
    """A sampler from an iterator function."""

    def __init__(self, units: Callable[[], Iterator[Any]]) -> None:
        self._units = units

    def __iter__(self) -> Iterator[Any]:
        return self._units()
