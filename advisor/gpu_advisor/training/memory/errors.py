"""Errors of the memory manager, and detection of out-of-memory errors."""

from __future__ import annotations

import torch

#: Messages of out-of-memory errors that PyTorch raises as plain RuntimeError: cuBLAS, cuDNN, ROCm, the CPU allocator.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


class MemoryManagerError(Exception):
    """The manager cannot do what it was asked to. The message says how to fix it."""


class DoesNotFitError(MemoryManagerError):
    """Not even the smallest micro-batch fits, and no remedy is left."""


class PeerFailedError(MemoryManagerError):
    """Another rank failed in this step. The step changed no weights."""


def out_of_memory_type() -> type[RuntimeError]:
    """torch.OutOfMemoryError; before PyTorch 2.5 it is in torch.cuda."""
    found: type[RuntimeError] = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    return found


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, out_of_memory_type()):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
