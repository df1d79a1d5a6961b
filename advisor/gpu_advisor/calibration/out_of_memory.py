"""Out-of-memory errors by all their names: for the probe, the finder, the memory manager and the lease client.

PyTorch raises its own error type only for its caching allocator. Libraries that allocate for themselves report a
status, which PyTorch wraps in a RuntimeError. Some of these statuses also have other causes: they are evidence of a
full device only if its memory was nearly full, or if a smaller batch succeeds. Does not import torch.

Statuses: https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-graph-library.html (cudnnStatus_t),
https://docs.nvidia.com/cuda/cublas/#cublasstatus-t, https://docs.nvidia.com/cuda/cufft/#return-value-cufftresult,
https://docs.nvidia.com/cuda/cusolver/#cusolver-status-t, https://docs.nvidia.com/cuda/cusparse/#cusparsestatus-t,
https://rocm.docs.amd.com/projects/HIP/en/latest/reference/error_codes.html.
"""

from __future__ import annotations

import errno
import re
from enum import Enum

#: Share of the device's memory above which an ambiguous error counts as out of memory.
NEARLY_FULL_RATIO = 0.9


class MemoryFailure(Enum):
    """What ran out."""

    DEVICE = "device memory"
    AMBIGUOUS = "probably device memory"
    """A status with several causes."""
    HOST = "host memory"


#: Types by name, so that none of their libraries is imported: PyTorch, CuPy, TensorFlow, Numba.
_DEVICE_TYPES = frozenset({"OutOfMemoryError", "ResourceExhaustedError", "CudaOutOfMemoryError"})

#: The first match decides, so host before device: its messages may say "out of memory", too.
_PATTERNS: tuple[tuple[MemoryFailure, tuple[str, ...]], ...] = (
    (
        MemoryFailure.HOST,
        (
            r"DefaultCPUAllocator: (can't allocate|not enough) memory",
            r"Cannot allocate memory",  # ENOMEM, of mmap, fork and shared memory
            r"std::bad_alloc",
            r"HOST_ALLOCATION_FAILED",  # cuDNN 9
            r"hostAlloc|HostAlloc|pin_memory thread|pin memory thread",
            r"DataLoader worker \(pid[^)]*\) (is killed by signal: (Killed|Bus error)|exited unexpectedly.*-9)",
            r"insufficient shared memory|out of shared memory",  # PyTorch, of /dev/shm
        ),
    ),
    (
        MemoryFailure.DEVICE,
        (
            r"out of memory",
            r"OutOfMemory",
            r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY",
            r"CU(DNN|BLAS|SOLVER|SPARSE)_STATUS_ALLOC_FAILED",
            r"DEVICE_ALLOCATION_FAILED",  # cuDNN 9
            r"CURAND_STATUS_ALLOCATION_FAILED",
            r"(CU|HIP|ROC)FFT_ALLOC_FAILED",
            r"(HIPBLAS|HIPSOLVER|HIPSPARSE|MIOPEN|HIPDNN)_STATUS_ALLOC_FAILED",
            r"miopenStatusAllocFailed|rocblas_status_memory_error",
            r"RESOURCE_EXHAUSTED",
        ),
    ),
    (
        MemoryFailure.AMBIGUOUS,
        (
            r"CUDNN_STATUS_(NOT_SUPPORTED|NOT_INITIALIZED|INTERNAL_ERROR|EXECUTION_FAILED)",
            r"CUBLAS_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR|EXECUTION_FAILED)",
            r"CUSOLVER_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)",
            r"CUSPARSE_STATUS_(NOT_INITIALIZED|INSUFFICIENT_RESOURCES|INTERNAL_ERROR)",
            r"(CU|HIP|ROC)FFT_(INTERNAL_ERROR|SETUP_FAILED|EXEC_FAILED)",
            r"(HIPBLAS|HIPSOLVER|HIPSPARSE)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)",
            r"miopenStatus(InternalError|UnknownError|NotInitialized)",
            r"[Uu]nable to find (a valid cuDNN algorithm|an engine)",
        ),
    ),
)
_COMPILED = tuple((failure, re.compile("|".join(patterns))) for failure, patterns in _PATTERNS)


def memory_failure(error: BaseException) -> MemoryFailure | None:
    """Which memory this error says ran out; None if it has another cause."""
    if any(base.__name__ in _DEVICE_TYPES for base in type(error).__mro__):
        return MemoryFailure.DEVICE
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return MemoryFailure.HOST
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    return next((failure for failure, pattern in _COMPILED if pattern.search(text)), None)


def is_nearly_full(used_bytes: int | None, limit_bytes: int | None) -> bool:
    """Whether an ambiguous error is due to memory, from the device's memory at its time; False if unknown."""
    return bool(used_bytes and limit_bytes) and (used_bytes or 0) >= NEARLY_FULL_RATIO * (limit_bytes or 0)
