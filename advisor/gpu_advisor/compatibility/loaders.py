"""OptimizedDataLoader(...).create_loader() and .get_prefetch_loader()."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, Dataset

from gpu_advisor.training.loaders import optimized
from gpu_advisor.training.loaders.prefetch import PrefetchLoader


class OptimizedDataLoader:
    """Makes loaders of a dataset. `gpu_advisor.training.OptimizedDataLoader` is a DataLoader itself."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, num_workers: int | None = 4, **arguments: Any) -> None:
        """num_workers: None to measure how many are best. arguments: others of DataLoader."""
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._arguments = arguments

    def create_loader(self) -> DataLoader[Any]:
        """With pinned memory where there is a GPU, and persistent workers that prefetch."""
        return optimized.OptimizedDataLoader(
            self.dataset, self.batch_size, num_workers=self.num_workers, **self._arguments
        )

    def get_prefetch_loader(self) -> PrefetchLoader[Any]:
        """The same, whose batches are copied to the GPU ahead."""
        return PrefetchLoader(self.create_loader())
