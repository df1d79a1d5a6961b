"""OptimizedDataLoader: a DataLoader with the settings that keep a GPU fed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gpu_advisor.training.loaders.worker_measurement import WorkerMeasurementConfig, measure_worker_rates
from gpu_advisor.training.loaders.worker_search import WorkerRate, choose_num_workers, default_max_workers

T_co = TypeVar("T_co", covariant=True)

#: Batches prefetched per worker. With PyTorch's 2, one slow file stalls the loop; each costs a batch of host memory.
PREFETCH_FACTOR = 4


class OptimizedDataLoader(DataLoader[T_co]):
    """A DataLoader with pinned memory, persistent workers, more prefetching, and a measured number of workers.

    The measurement takes a few seconds at construction, in a separate process; `worker_rates` has its results.
    Arguments are those of DataLoader, also by position, and override these defaults.
    """

    worker_rates: tuple[WorkerRate, ...]

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: torch.Generator | None = None,
        *,
        max_workers: int | None = None,
        enough_samples_per_second: float | None = None,
        measure_seconds: float = 0.5,
        measure_within_seconds: float = 15.0,
        **keywords: Any,
    ) -> None:
        """
        num_workers: measured if None. max_workers: upper limit of the search; four per core if None.
        enough_samples_per_second: what training can consume, without waiting for data. It decides whether loading
        without workers, between steps, is enough, and no more workers are started than this rate needs.
        measure_seconds: for each number tried. measure_within_seconds: no number is tried after this time.
        """
        given = {
            "shuffle": shuffle, "sampler": sampler, "batch_sampler": batch_sampler, "collate_fn": collate_fn,
            "drop_last": drop_last or None, "timeout": timeout or None, "worker_init_fn": worker_init_fn,
            "multiprocessing_context": multiprocessing_context, "generator": generator, "pin_memory": pin_memory,
        }  # fmt: skip
        arguments = {**keywords, **{name: value for name, value in given.items() if value is not None}}
        if batch_sampler is None:
            arguments["batch_size"] = batch_size
        rates: list[WorkerRate] = []
        if num_workers is None:
            if isinstance(dataset, IterableDataset):
                raise ValueError(
                    "set num_workers for an IterableDataset: each worker yields all of it, unless the dataset shards "
                    "itself with torch.utils.data.get_worker_info()"
                )
            max_tried = default_max_workers() if max_workers is None else max_workers
            rates = measure_worker_rates(
                WorkerMeasurementConfig(dataset, arguments, max_tried, measure_seconds, measure_within_seconds)
            )
            num_workers = choose_num_workers(rates, enough_samples_per_second) if rates else min(2, max_tried)
        arguments.setdefault("pin_memory", torch.cuda.is_available())
        if num_workers > 0:
            arguments.setdefault("persistent_workers", True)
            arguments.setdefault("prefetch_factor", PREFETCH_FACTOR)
        else:
            for name in ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout"):
                arguments.pop(name, None)
        with self._suppress_core_warning():
            super().__init__(dataset, num_workers=num_workers, **arguments)
        self.worker_rates = tuple(rates)

    def __iter__(self) -> Any:
        with self._suppress_core_warning():
            return super().__iter__()

    @contextmanager
    def _suppress_core_warning(self) -> Iterator[None]:
        """PyTorch warns of more workers than cores; here they were measured to be faster."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            yield
