"""OptimizedDataLoader: a DataLoader with the settings that keep a GPU fed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gpu_advisor.training.loaders.worker_measurement import WorkerMeasurementConfig, measure_worker_rates
from gpu_advisor.training.loaders.worker_search import WorkerRate, choose_num_workers, default_max_workers

T_co = TypeVar("T_co", covariant=True)

#: Batches each worker may be ahead. PyTorch's 2 lets a single slow file be felt; each costs a batch of host memory.
PREFETCH_FACTOR = 4


class OptimizedDataLoader(DataLoader[T_co]):
    """A DataLoader whose batches lie in pinned memory, whose workers live on between epochs and work ahead, and whose
    number of workers is measured when it is made (a few seconds, in a process of its own).

    What is given is taken as it is, everything that a DataLoader takes. `worker_rates` holds what was measured.
    """

    worker_rates: tuple[WorkerRate, ...]

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        *,
        num_workers: int | None = None,
        max_workers: int | None = None,
        enough_samples_per_second: float | None = None,
        measure_seconds: float = 0.5,
        measure_within_seconds: float = 15.0,
        **arguments: Any,
    ) -> None:
        """
        num_workers: measured if None. max_workers: the most to try, four a core if None.
        enough_samples_per_second: what the training can take; more workers than that needs are not started.
        measure_seconds: for each number tried. measure_within_seconds: no further number is tried after these.
        """
        if arguments.get("batch_sampler") is None:
            arguments["batch_size"] = batch_size
        rates: list[WorkerRate] = []
        if num_workers is None:
            if isinstance(dataset, IterableDataset):
                raise ValueError(
                    "num_workers must be given for an IterableDataset: each worker would yield all of it, unless it "
                    "divides itself by torch.utils.data.get_worker_info()"
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
        """PyTorch warns of more workers than cores. Where they were measured to be faster, that is no warning."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            yield
