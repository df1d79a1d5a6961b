"""Out-of-memory errors by all their names, and errors of other causes, in probe and finder."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.calibration.batch_size_finder import SearchConfig, TrialMemory, find_batch_size
from gpu_advisor.calibration.errors import CalibrationError, HostMemoryError, WorkloadError
from gpu_advisor.calibration.out_of_memory import MemoryFailure, is_nearly_full, memory_failure
from gpu_advisor.calibration.probe import IncompleteProbeError, ProbeRequest, run_probe

DEVICE, HOST, AMBIGUOUS = MemoryFailure.DEVICE, MemoryFailure.HOST, MemoryFailure.AMBIGUOUS

#: Messages of RuntimeErrors.
TEXTS = {
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB": DEVICE,
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported": DEVICE,
    "CUDA driver error: out of memory": DEVICE,
    "HIP out of memory. Tried to allocate 2.00 GiB": DEVICE,
    "MPS backend out of memory (MPS allocated: 1 GB)": DEVICE,
    "XPU out of memory. Tried to allocate 20.00 MiB": DEVICE,
    "NPU out of memory. Tried to allocate 2 GiB": DEVICE,
    "Triton Error [CUDA]: out of memory": DEVICE,
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED": DEVICE,
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED": DEVICE,
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": DEVICE,
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED": DEVICE,
    "cuFFT error: CUFFT_ALLOC_FAILED": DEVICE,
    "hipFFT error: HIPFFT_ALLOC_FAILED": DEVICE,
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`": DEVICE,
    "MIOpen Error: miopenStatusAllocFailed": DEVICE,
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes": DEVICE,
    "Caught OutOfMemoryError in replica 0 on device 0.": DEVICE,
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed": AMBIGUOUS,
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR": AMBIGUOUS,
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`": AMBIGUOUS,
    "Unable to find a valid cuDNN algorithm to run convolution": AMBIGUOUS,
    "GET was unable to find an engine to execute this computation": AMBIGUOUS,
    "cuFFT error: CUFFT_INTERNAL_ERROR": AMBIGUOUS,
    "MIOpen Error: miopenStatusUnknownError": AMBIGUOUS,
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried": HOST,
    "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate": HOST,
    "DataLoader worker (pid 4711) is killed by signal: Killed. ": HOST,
    "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory.": HOST,
    "unable to open shared memory object </torch_1_2> in read-write mode: Cannot allocate memory (12)": HOST,
    "Caught RuntimeError in pin memory thread for device 0.\nRuntimeError: CUDA error: out of memory": HOST,
    "CUDA error: an illegal memory access was encountered": None,
    "CUDA error: device-side assert triggered": None,
    "NCCL Error 1: unhandled cuda error": None,
    "out of resource: shared memory, Required: 147456, Hardware limit: 101376": None,
    "DataLoader worker (pid 4711) is killed by signal: Segmentation fault. ": None,
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)": None,
    "index 7 is out of bounds for dimension 0 with size 5": None,
}


class ResourceExhaustedError(Exception):
    """By TensorFlow's name."""


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_runtime_errors_are_known_by_their_text(text, expected):
    assert memory_failure(RuntimeError(text)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("whatever it says"), DEVICE),
        (ResourceExhaustedError("OOM when allocating tensor"), DEVICE),
        (MemoryError(), HOST),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HOST),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ValueError("out of memory"), None),
        (KeyError("CUDA out of memory"), None),
    ],
)
def test_other_errors_are_known_by_their_type(error, expected):
    assert memory_failure(error) is expected


def test_nearly_full_needs_both_figures():
    assert is_nearly_full(95, 100)
    assert not is_nearly_full(80, 100)
    assert not is_nearly_full(None, 100)
    assert not is_nearly_full(95, None)


MEASURED: dict[str, Any] = {
    "outcome": "measured",
    "memory": {
        "kind": "driver", "peak_bytes": 2**30, "allocated_bytes": 2**30, "reserved_bytes": 2**30, "driver_bytes": 2**30,
    },
    "step_seconds": [0.1, 0.1], "utilization_ratio": 0.5, "device_name": "GPU", "device_bytes": 2**33, "torch": "2",
}  # fmt: skip


def worker(limit: int, **otherwise: str) -> Callable[[ProbeRequest, int], dict[str, Any]]:
    """Measures sizes up to `limit`."""
    return lambda request, size: MEASURED if size <= limit else otherwise


@pytest.mark.parametrize("outcome", ["out_of_memory", "maybe_out_of_memory"])
def test_a_probe_ends_where_memory_ends(outcome):
    """An ambiguous error is one of memory, because smaller sizes succeeded."""
    profile = run_probe(ProbeRequest("mlp", (8, 16, 32, 64)), worker(16, outcome=outcome, message="CUDNN_STATUS"))
    assert [each.batch_size for each in profile.measurements] == [8, 16]
    assert profile.out_of_memory_batch_sizes == (32,)


@pytest.mark.parametrize("outcome", ["workload", "timeout", "failed", "taken", "host_memory"])
def test_a_probe_that_fails_later_keeps_what_it_measured(outcome):
    with pytest.raises(IncompleteProbeError, match=r"batch size 32.*\(measured before it: 8, 16\)") as raised:
        run_probe(ProbeRequest("mlp", (8, 16, 32, 64)), worker(16, outcome=outcome, message="it failed"))
    assert [each.batch_size for each in raised.value.profile.measurements] == [8, 16]
    assert raised.value.profile.out_of_memory_batch_sizes == ()


@pytest.mark.parametrize(
    ("outcome", "error"), [("maybe_out_of_memory", WorkloadError), ("host_memory", HostMemoryError)]
)
def test_a_first_size_that_fails_is_no_profile(outcome, error):
    with pytest.raises(error):
        run_probe(ProbeRequest("mlp", (8, 16)), worker(0, outcome=outcome, message="CUDNN_STATUS_NOT_SUPPORTED"))


def steps(fits: int, error: Exception) -> Callable[[int], TrialMemory]:
    """A trial with 1 GB a sample, which raises above `fits` samples."""

    def run(size: int) -> TrialMemory:
        if size > fits:
            raise error
        return TrialMemory(10**9 * (1 + size), 10**9)

    return run


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")]
)
def test_the_finder_counts_memory_errors_as_too_large(error):
    assert find_batch_size(steps(9, error), SearchConfig(24 * 10**9)).batch_size == 9


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), RuntimeError),  # of every size: not memory
        (torch.OutOfMemoryError("full"), CalibrationError),
        (MemoryError(), HostMemoryError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_the_finder_raises_what_no_smaller_size_helps(error, expected):
    with pytest.raises(expected):
        find_batch_size(steps(0, error), SearchConfig(24 * 10**9))
