"""Tries numbers of workers on a data set, in a process of its own.

So the job's random numbers stay as they are, and what a data set opens when it is first read (an HDF5 file, a database)
is not inherited open by the workers that come later.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gpu_advisor.training.loaders.worker_search import WorkerRate, best_rates, search_worker_rates

#: A batch to measure with takes about this long: a larger one would be measured for minutes.
TARGET_BATCH_SECONDS = 0.05
MAX_INDICES = 100_000
#: Batches each worker may be ahead: PyTorch's own default.
DEFAULT_PREFETCH_FACTOR = 2

#: Arguments that say which samples come in which order, or how many workers there are.
_OWN_ARGUMENTS = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "num_workers")
_WORKER_ARGUMENTS = ("prefetch_factor", "timeout", "multiprocessing_context")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerMeasurementConfig:
    """arguments: those of the DataLoader. seconds: for each number tried. within_seconds: none is begun after these."""

    dataset: Dataset[Any]
    arguments: Mapping[str, Any]
    max_workers: int
    seconds: float
    within_seconds: float


def measure_worker_rates(plan: WorkerMeasurementConfig) -> list[WorkerRate]:
    """Empty if nothing could be measured. What went wrong is logged: the job goes on."""
    context: Any = plan.arguments.get("multiprocessing_context")
    if context is None or isinstance(context, str):
        context = multiprocessing.get_context(context)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_in_subprocess, args=(plan, sender), name="measure-workers")
    process.start()
    sender.close()  # so that its end is seen as the end
    rates: list[WorkerRate] = []
    problem: str | None = None
    # The last number may begin just in time; a data set that hangs must not keep the job from starting.
    deadline = time.monotonic() + 2 * plan.within_seconds + 30
    try:
        while problem is None:
            if not receiver.poll(max(deadline - time.monotonic(), 0)):
                problem = "it did not end in time"
            elif isinstance(message := receiver.recv(), str):
                problem = message
            else:
                rates = message
    except EOFError:
        process.join(5)
        if process.exitcode:
            problem = f"its process ended with {process.exitcode}; memory or /dev/shm (docker run --shm-size) is short"
    finally:
        receiver.close()
        if process.is_alive():
            process.kill()
        process.join()
    if problem is not None:
        log.warning("measuring data-loading workers broke off: %s; give num_workers to do without", problem)
    return best_rates(rates)


def _measure_in_subprocess(plan: WorkerMeasurementConfig, sender: Connection) -> None:
    """Sends the rates anew after each try, so that what is known survives what kills this process."""
    # A forked process must not use the threads of its parent's OpenMP, which are not there.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # "more workers than cores": that is the question
    until = time.monotonic() + plan.within_seconds
    known: list[WorkerRate] = []
    try:
        order = _BatchOrder(plan)

        def measure(number: int) -> float | None:
            if known and time.monotonic() > until:
                return None
            rate = _measure_rate(plan, order, number)
            known.append(WorkerRate(number, rate))
            sender.send(known)
            return rate

        search_worker_rates(measure, plan.max_workers)
    except Exception as error:  # noqa: BLE001  # a data set may raise anything; the job meets it in its own loop
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        sender.close()


class _BatchOrder:
    """Endless batches of indices in the job's own order, each from where the last one was left.

    What was read once comes from memory the second time: the same samples for each would make the last look best.
    """

    def __init__(self, plan: WorkerMeasurementConfig) -> None:
        given = {name: value for name, value in plan.arguments.items() if name not in _WORKER_ARGUMENTS}
        loader = DataLoader(plan.dataset, **{**given, "num_workers": 0, "persistent_workers": False})
        self.batched = loader.batch_sampler is not None
        self._at = 0
        self._units: list[Any]
        if given.get("batch_sampler") is not None or not self.batched:
            # Not ours to divide: the batches, or single samples, as they are.
            self._units = list(itertools.islice(loader.batch_sampler or loader.sampler, MAX_INDICES))
        else:
            indices = list(itertools.islice(loader.sampler, MAX_INDICES))
            size, read = _batch_size(plan.dataset, indices, loader.batch_size or 1)
            self._units = [indices[i : i + size] for i in range(0, len(indices), size)]
            self._at = -(-read // size)
        if not self._units:
            raise ValueError("there are no samples")

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self._units[self._at % len(self._units)]
            self._at += 1


def _batch_size(dataset: Dataset[Any], indices: list[Any], most: int) -> tuple[int, int]:
    """Samples of a batch that takes about TARGET_BATCH_SECONDS, and how many samples were read to know."""
    read, seconds = 0, 0.0
    for read, index in enumerate(indices[:64], 1):
        started_at = time.perf_counter()
        dataset[index]
        if read > 1:  # the first pays for what is opened once
            seconds += time.perf_counter() - started_at
        if seconds > TARGET_BATCH_SECONDS:
            break
    each = max(seconds / max(read - 1, 1), 1e-9)
    return min(max(round(TARGET_BATCH_SECONDS / each), 1), most), read


def _measure_rate(plan: WorkerMeasurementConfig, order: _BatchOrder, num_workers: int) -> float:
    """Samples a second."""
    sizes: list[int] = []

    def units() -> Iterator[Any]:
        for unit in order:
            sizes.append(len(unit) if order.batched else 1)
            yield unit

    given = {name: value for name, value in plan.arguments.items() if name not in _OWN_ARGUMENTS}
    if num_workers == 0:
        given = {name: value for name, value in given.items() if name not in _WORKER_ARGUMENTS}
    source: dict[str, Any] = (
        {"batch_sampler": _SamplerAdapter(units)}
        if order.batched
        else {"batch_size": None, "sampler": _SamplerAdapter(units)}
    )
    # Nothing is pinned: that needs CUDA, which does not live through a fork.
    settings = {**given, **source, "num_workers": num_workers, "pin_memory": False, "persistent_workers": False}
    batches = iter(DataLoader(plan.dataset, **settings))
    # Workers take turns, and their batches come in bunches: only whole rounds tell the rate. Those who started first
    # have worked ahead meanwhile: what they may have put by must be out of the way.
    batches_per_round = max(num_workers, 1)
    start = batches_per_round * (1 + (given.get("prefetch_factor") or DEFAULT_PREFETCH_FACTOR))
    for _ in range(start):
        next(batches)
    started_at, done, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < plan.seconds or done < 2 * batches_per_round:
        for _ in range(batches_per_round):
            next(batches)
        done += batches_per_round
        elapsed = time.perf_counter() - started_at
    # They arrive in the order in which they were asked for.
    return sum(sizes[start : start + done]) / elapsed


class _SamplerAdapter:
    """As a sampler: something to iterate over."""

    def __init__(self, units: Callable[[], Iterator[Any]]) -> None:
        self._units = units

    def __iter__(self) -> Iterator[Any]:
        return self._units()
