"""MemoryManager(threshold_mb): checks and reduces the memory of this process' GPU.

`gpu_advisor.training.MemoryManager` recovers a step that runs out of memory, and fits batch sizes to measured peaks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gpu_advisor.training.memory.checkpointing import enable_checkpointing
from gpu_advisor.training.memory.device_memory import CudaMemory, DeviceMemory

MIB = 1 << 20

log = logging.getLogger(__name__)


class MemoryManager:
    """Memory in MiB. Without a GPU it is unknown: NaN, and nothing is changed."""

    def __init__(self, threshold_mb: float = 1000, memory: DeviceMemory | None = None) -> None:
        """threshold_mb: allocated memory above which `optimize_memory` acts. memory: by default of the current GPU."""
        self.threshold_mb = threshold_mb
        self.current_usage = 0.0
        self._memory = memory

    def check_memory(self) -> tuple[float, float]:
        """Allocated and reserved (cached) memory. Waits until the GPU has finished."""
        memory = self._device_memory()
        if memory is None:
            log.warning("no GPU: its memory is unknown")
            return math.nan, math.nan
        if isinstance(memory, CudaMemory):
            torch.cuda.synchronize()
        reading = memory.read()
        self.current_usage = reading.allocated_bytes / MIB
        return self.current_usage, reading.reserved_bytes / MIB

    def optimize_memory(self, model: nn.Module, input_size: Any) -> int | None:
        """Above the threshold: empty the cache, enable gradient checkpointing where the model has it, and propose a
        batch size; None below it.

        input_size: the batch size, or a shape that begins with it.
        """
        allocated, _ = self.check_memory()
        if not allocated > self.threshold_mb:
            return None
        memory = self._device_memory()
        if memory is not None:
            memory.empty_cache()
        enable_checkpointing(model)
        return self.calculate_optimal_batch_size(allocated, self.threshold_mb, _batch_size(input_size))

    @staticmethod
    def calculate_optimal_batch_size(current_memory: float, target_memory: float, current_batch_size: int = 1) -> int:
        """In proportion to memory, at least 1.

        A lower bound: weights and optimizer state do not depend on the batch. `propose_batch_size` of
        gpu_advisor.training.MemoryManager takes them into account.
        """
        return max(1, int(current_batch_size * target_memory / current_memory))

    def _device_memory(self) -> DeviceMemory | None:
        if self._memory is None and torch.cuda.is_available():
            self._memory = CudaMemory(torch.cuda.current_device())
        return self._memory


def _batch_size(input_size: Any) -> int:
    if isinstance(input_size, Sequence) and not isinstance(input_size, str):
        return int(input_size[0])
    return int(input_size)
