"""What goes wrong with memory, and how an out-of-memory error is known."""

from __future__ import annotations

import torch

#: Texts of errors that PyTorch raises as plain RuntimeErrors: of cuBLAS and cuDNN, which take memory themselves, of
#: ROCm, and of the CPU's allocator.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


class MemoryManagerError(Exception):
    """The manager cannot do what is asked. The message tells the mend."""


class DoesNotFitError(MemoryManagerError):
    """Not even the smallest micro-batch fits, and there is nothing left to try."""


class PeerFailedError(MemoryManagerError):
    """Another rank could not go on, so this one must not wait for it. The step has changed no weights."""


def out_of_memory_type() -> type[RuntimeError]:
    """torch.OutOfMemoryError, which before PyTorch 2.5 stands under torch.cuda."""
    found: type[RuntimeError] = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    return found


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, out_of_memory_type()):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
