"""Errors of the memory manager."""

from __future__ import annotations

import torch

from gpu_advisor.calibration.out_of_memory import MemoryFailure, memory_failure


class MemoryManagerError(Exception):
    """The manager cannot do what it was asked to. The message says how to fix it."""


class DoesNotFitError(MemoryManagerError):
    """The step does not fit in memory, and no remedy is left."""


class InexactError(MemoryManagerError):
    """In micro-batches, the step would not have the gradients of the whole batch."""


class UnusedGradientsError(MemoryManagerError):
    """The gradients of the last `backward` would be lost: no step was made with them."""


class PeerFailedError(MemoryManagerError):
    """Another rank failed in this step. The step changed no weights."""


def out_of_memory_type() -> type[RuntimeError]:
    """torch.OutOfMemoryError; before PyTorch 2.5 it is in torch.cuda."""
    found: type[RuntimeError] = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory for tensors ran out: the device's, or the host's for tensors on the CPU.

    False for errors that may have other causes: see `memory_failure`.
    """
    failure = memory_failure(error)
    on_cpu = failure is MemoryFailure.HOST and isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return failure is MemoryFailure.DEVICE or on_cpu
