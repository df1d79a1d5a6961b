"""The search for a number of workers, on known curves; then the loader with real workers."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_advisor.training.loaders import optimized
from gpu_advisor.training.loaders.optimized import PREFETCH_FACTOR, OptimizedDataLoader
from gpu_advisor.training.loaders.worker_search import (
    WorkerRate,
    choose_num_workers,
    loop_samples_per_second,
    predicted_rates,
    search_worker_rates,
)
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.training.test_prefetch import same


def curve(waiting: float, computing: float, transfer: float, cores: int, crowding: float) -> Callable[[int], float]:
    """Samples per second by number of workers, from a sample's seconds of waiting, computing and transfer.

    Workers wait in parallel and compute on `cores`; more workers than cores slow each other down.
    """

    def rate(workers: int) -> float:
        if workers == 0:
            return 1.0 / (waiting + computing)
        crowded = 1 + crowding * max(workers - cores, 0)
        found: float = min(workers / (waiting + computing), cores / (computing * crowded), 1 / transfer)
        return found

    return rate


@given(
    waiting=st.floats(0, 0.1), computing=st.floats(1e-5, 0.1), transfer=st.floats(1e-6, 1e-3),
    cores=st.integers(1, 32), crowding=st.floats(0, 0.2), most=st.integers(0, 128), noise=st.integers(0, 10**6),
    load_share=st.floats(0.1, 50),
)  # fmt: skip
@example(  # doubling skips a peak near the last number
    waiting=0.0546875, computing=0.046875, transfer=0.001, cores=24, crowding=0.15625, most=32, noise=0, load_share=1.0
)
def test_the_choice_is_near_the_best(waiting, computing, transfer, cores, crowding, most, noise, load_share):
    rate = curve(waiting, computing, transfer, cores, crowding)
    jitter = random.Random(noise)
    tries: list[int] = []

    def measure(number: int) -> float:
        tries.append(number)
        return rate(number) * jitter.uniform(0.97, 1)

    rates = search_worker_rates(measure, most)
    chosen = choose_num_workers(rates)
    workers = [number for number in range(most + 1) if number > 0]
    if chosen > 0:
        assert rate(chosen) >= 0.85 * max(map(rate, workers))
        assert rate(chosen) >= 0.55 * rate(0)
    else:
        assert rate(0) >= 1.5 * max(map(rate, workers), default=0.0)
    loop = rate(0) * load_share
    in_loop = {number: loop_samples_per_second(WorkerRate(number, rate(number)), loop) for number in range(most + 1)}
    assert in_loop[choose_num_workers(rates, loop)] >= 0.85 * max(in_loop.values())
    assert max(tries) <= most
    assert len(set(tries)) <= 17
    assert max(map(tries.count, tries)) <= 3


def choice_with_others(seed: int) -> float:
    """The chosen number's rate relative to the best, where a measurement gets a fifth to all of the time."""
    jitter = random.Random(seed)
    waiting = jitter.choice((0.0, 0.5, 0.9))
    rate = curve(waiting, 1 - waiting, 1e-3, 2, 0.02)

    def measure(number: int) -> float:
        return rate(number) * jitter.uniform(0.2, 1)

    in_loop = [loop_samples_per_second(WorkerRate(number, rate(number)), None) for number in range(9)]
    return in_loop[choose_num_workers(search_worker_rates(measure, 8))] / max(in_loop)


def test_the_choice_on_a_machine_that_others_use():
    assert sum(choice_with_others(seed) >= 0.9 for seed in range(300)) >= 0.76 * 300


def test_a_search_that_is_cut_short_returns_its_rates():
    allowed = iter([100.0, 90.0, 180.0])
    rates = search_worker_rates(lambda _: next(allowed, None), 64)
    assert rates == [WorkerRate(0, 100.0), WorkerRate(1, 90.0), WorkerRate(2, 180.0)]
    assert search_worker_rates(lambda _: None, 64) == []


def test_fewest_workers_that_do():
    rates = [WorkerRate(0, 10), WorkerRate(2, 50), WorkerRate(4, 98), WorkerRate(8, 100)]
    assert choose_num_workers(rates) == 4
    assert choose_num_workers(rates, enough_samples_per_second=40) == 2
    assert choose_num_workers(rates, enough_samples_per_second=4000) == 4


@pytest.mark.parametrize(
    ("loading", "loop", "expected"),
    [
        ([900, 890, 1700], None, 2),
        ([900, 890, 900], None, 1),  # without workers, loading and computing take turns
        ([900, 890, 1700], 850, 2),  # 890 leaves no headroom
        ([900, 1100, 1700], 850, 1),
        ([1e6, 3e4, 3e4], None, 0),  # samples that are in memory
        ([1e6, 3e4, 3e4], 850, 0),
        ([900], None, 0),
    ],
)
def test_what_the_loop_gets_decides(loading, loop, expected):
    rates = [WorkerRate(number, rate) for number, rate in enumerate(loading)]
    assert choose_num_workers(rates, loop) == expected


def test_rates_of_slow_samples_are_predicted():
    waiting = predicted_rates(2.0, 0.0, 2, 8)
    assert [rate.samples_per_second for rate in waiting] == [0.5, 0.5, 1.0, 2.0, 4.0]
    assert choose_num_workers(waiting) == 8
    computing = predicted_rates(2.0, 1.0, 2, 8)  # two cores do two samples a second
    assert choose_num_workers(computing) == 4
    assert choose_num_workers(predicted_rates(2.0, 0.0, 2, 8, at_most=1.1)) == 4
    assert not any(rate.measured for rate in waiting)


class NumbersDataset(torch.utils.data.Dataset[Any]):
    def __init__(self, count: int = 50, wait_seconds: float = 0.0) -> None:
        self.count, self.wait_seconds = count, wait_seconds
        self.opened_by: int | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.opened_by = os.getpid()
        time.sleep(self.wait_seconds)
        return {"index": torch.tensor(index)}


NEEDS_WORKERS = ("multiprocessing_context", "timeout")
QUICK: dict[str, Any] = {"measure_seconds": 0.02, "measure_within_seconds": 60.0, "max_workers": 2}


def indices(loader: Any) -> list[int]:
    return [int(index) for batch in loader for index in batch["index"]]


@pytest.mark.parametrize("arguments", [{"shuffle": False}, {"shuffle": True}, {"drop_last": True}, {"batch_size": 50}])
def test_every_sample_once_with_measured_workers(arguments):
    loader = OptimizedDataLoader(NumbersDataset(wait_seconds=0.002), **{"batch_size": 8, **QUICK, **arguments})
    kept = 48 if "drop_last" in arguments else 50
    for _ in range(2):
        found = indices(loader)
        assert len(set(found)) == len(found) == kept
        if not arguments.get("shuffle"):
            assert found == list(range(kept))
    assert loader.num_workers == choose_num_workers(loader.worker_rates)


def test_the_chosen_workers_persist_and_prefetch(monkeypatch):
    rates = (WorkerRate(0, 10.0), WorkerRate(2, 50.0), WorkerRate(4, 98.0))
    monkeypatch.setattr(optimized, "measure_worker_rates", lambda config: rates)
    loader = OptimizedDataLoader(NumbersDataset(), 8, max_workers=4)
    assert (loader.num_workers, loader.worker_rates) == (4, rates)
    assert loader.persistent_workers
    assert loader.prefetch_factor == PREFETCH_FACTOR
    assert sorted(indices(loader)) == list(range(50))


def test_measuring_leaves_the_job_as_it_was():
    dataset = NumbersDataset()
    torch.manual_seed(7)
    OptimizedDataLoader(dataset, 8, shuffle=True, **QUICK)
    after = torch.rand(3)
    torch.manual_seed(7)
    OptimizedDataLoader(dataset, 8, shuffle=True, num_workers=0)
    assert torch.equal(after, torch.rand(3))
    assert dataset.opened_by is None, "read in the job's process, so that workers inherit what it opens"


class UnknownLength:
    """Batches that stop when they stop: samplers need no length, and one over a stream has none to give."""

    def __iter__(self) -> Any:
        yield from ([0, 1, 2], [3], [4, 5])

    def __len__(self) -> int:
        raise TypeError("its length is unknown")


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_sampler": [[0, 1, 2], [3], [4, 5]]},
        {"batch_sampler": UnknownLength()},
        {"sampler": [5, 4, 3]},
        {"batch_size": None},
        {"batch_size": 3, "collate_fn": lambda samples: {"index": [sample["index"] for sample in samples]}},
        {"batch_size": 3, "multiprocessing_context": "fork", "timeout": 20},
    ],
    ids=lambda arguments: "+".join(arguments),
)
def test_the_order_is_the_users(arguments):
    ours = OptimizedDataLoader(NumbersDataset(7), **QUICK, **arguments)
    theirs = torch.utils.data.DataLoader(
        NumbersDataset(7),
        **{name: value for name, value in arguments.items() if name not in NEEDS_WORKERS},
    )
    assert same(list(ours), list(theirs))
    assert ours.worker_rates


class FailingDataset(NumbersDataset):
    def __getitem__(self, index: int) -> Any:
        raise OSError("the disk is gone")


class DyingWorkerDataset(NumbersDataset):
    def __getitem__(self, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("dataset", "why"),
    [(FailingDataset(), "the disk is gone"), (DyingWorkerDataset(), "exited with -9"), (NumbersDataset(0), "")],
)
def test_what_cannot_be_measured_is_reported_and_goes_on(dataset, why, caplog):
    with caplog.at_level(logging.WARNING):
        loader = OptimizedDataLoader(dataset, 8, **QUICK)
    assert loader.num_workers == 2
    assert loader.worker_rates == ()
    assert why in caplog.text
    assert "set num_workers" in caplog.text


def test_iterable_datasets_need_num_workers():
    class Stream(torch.utils.data.IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(5))

    with pytest.raises(ValueError, match="get_worker_info"):
        OptimizedDataLoader(Stream())
    assert len(list(OptimizedDataLoader(Stream(), None, num_workers=0))) == 5


def test_slow_samples_get_many_workers():
    loader = OptimizedDataLoader(NumbersDataset(wait_seconds=0.3), 8, max_workers=4, measure_within_seconds=1.0)
    assert loader.num_workers == 4
    assert not any(rate.measured for rate in loader.worker_rates)


def test_arguments_by_position_are_those_of_the_loader():
    sampler = torch.utils.data.SequentialSampler(range(50))
    loader = OptimizedDataLoader(NumbersDataset(), 8, None, sampler, None, 0, None, False, True)
    assert (loader.sampler, loader.num_workers, loader.drop_last, loader.batch_size) == (sampler, 0, True, 8)
    shuffled = OptimizedDataLoader(NumbersDataset(), 8, True, num_workers=0)
    assert isinstance(shuffled.sampler, torch.utils.data.RandomSampler)


class Collecting(torch.utils.data.Dataset[float]):
    """Collects garbage, as the collector may at any time."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> float:
        gc.collect()
        return float(index)


class Finalized:
    """Names the process that finalizes it, as a loader joins workers that only the job's process can join."""

    def __init__(self, path: Path) -> None:
        self.path, self.itself = path, self

    def __del__(self) -> None:
        self.path.write_text(str(os.getpid()))


def test_what_the_job_no_longer_reaches_is_left_to_it(tmp_path):
    gc.disable()
    try:
        Finalized(tmp_path / "finalized-by")
        OptimizedDataLoader(Collecting(), 8, max_workers=0, measure_seconds=0.01, measure_within_seconds=1)
        assert not (tmp_path / "finalized-by").exists()
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "finalized-by").read_text() == str(os.getpid())


class UnpicklableDataset(NumbersDataset):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda sample: sample


def test_a_dataset_that_cannot_be_sent_is_loaded_without_workers(caplog):
    loader: Any = OptimizedDataLoader(UnpicklableDataset(), 4, multiprocessing_context="spawn")
    assert loader.num_workers == 0
    assert len(list(loader)) == len(loader)
    assert "top level of a module" in caplog.text
