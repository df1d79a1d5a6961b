"""Measure memory and utilization of training steps, on CUDA, ROCm or a CPU."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

from gpu_advisor.calibration.contention import DeviceUsage, contention_reason
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.memory_tracker import MemoryTracker
from gpu_advisor.calibration.out_of_memory import is_nearly_full

MEMORY_STEPS = 3
"""Steps in the memory measurement: the first creates the optimizer's state, which counts from the second on."""
UNKNOWN_USAGE = DeviceUsage(None, None, None)


@dataclass(frozen=True, slots=True)
class MemoryMeasurement:
    """Peaks in bytes; None if the device does not report one."""

    kind: str
    peak_bytes: int
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    driver_bytes: int | None = None
    kept_bytes_per_step: int = 0
    """What each step left behind, on top of the one before: 0 unless memory leaks."""


def kept_per_step(live_bytes: Sequence[int]) -> int:
    """Growth of the memory in use after each step, if it grew after all of them: the least."""
    return max(0, min((after - before for before, after in pairwise(live_bytes)), default=0))


def run_steps(step: Callable[[], object], read_bytes: Callable[[], int]) -> list[int]:
    """The memory in use after each step. After the last, without what only reference cycles keep: it is freed later."""
    live = []
    for _ in range(MEMORY_STEPS):
        step()
        live.append(read_bytes())
    gc.collect()
    live[-1] = read_bytes()
    return live


class DeviceMeter(Protocol):
    """One device."""

    device: torch.device

    def memory(self, make_step: Callable[[], Callable[[], object]]) -> tuple[Callable[[], object], MemoryMeasurement]:
        """Build the step, run it a few times, and measure its memory. Raises torch.OutOfMemoryError."""

    def synchronize(self) -> None:
        """Wait until the device has finished, so that timings include the whole step."""

    def utilization(self) -> float | None:
        """Busy share in 0..1, since the last call or current; None if unknown."""

    def contention_reason(self) -> str | None:
        """Why the measurements include other processes, or None."""

    def is_nearly_full(self) -> bool:
        """Whether the device's memory is nearly used up, or the simulated limit of it."""


class CpuMeter:
    """Counts tensor bytes as a GPU's allocator would: a process's resident memory does not reflect them."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.device = torch.device("cpu")
        self._limit = limit_bytes
        self._clock = (time.process_time(), time.perf_counter())

    def memory(self, make_step: Callable[[], Callable[[], object]]) -> tuple[Callable[[], object], MemoryMeasurement]:
        with MemoryTracker(self._limit) as tracker:
            step = make_step()
            live = run_steps(step, lambda: tracker.current_bytes)
        return step, MemoryMeasurement(
            "cpu_tracked", tracker.peak_bytes, tracker.peak_bytes, kept_bytes_per_step=kept_per_step(live)
        )

    def synchronize(self) -> None:
        return None

    def utilization(self) -> float | None:
        now = time.process_time(), time.perf_counter()
        busy, passed = now[0] - self._clock[0], now[1] - self._clock[1]
        self._clock = now
        return min(1.0, busy / (passed * torch.get_num_threads())) if passed > 0 else None

    def contention_reason(self) -> str | None:
        return None

    def is_nearly_full(self) -> bool:
        """False: it would be a MemoryError."""
        return False


class CudaMeter:
    """The allocator's own peaks, and the driver's view. ROCm builds of PyTorch have the same API."""

    def __init__(self, limit_bytes: int | None) -> None:
        if not torch.cuda.is_available():
            raise CalibrationError("no CUDA or ROCm device: install a GPU build of torch, or probe with --device cpu")
        self.device = torch.device("cuda", 0)
        self._limit = limit_bytes
        self._before = _read_device_usage()
        torch.cuda.init()
        if limit_bytes is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), 0)
        self._after = UNKNOWN_USAGE
        self._reserved = 0

    def memory(self, make_step: Callable[[], Callable[[], object]]) -> tuple[Callable[[], object], MemoryMeasurement]:
        torch.cuda.reset_peak_memory_stats(0)
        step = make_step()
        live = run_steps(step, lambda: torch.cuda.memory_allocated(0))
        self.synchronize()
        allocated, reserved = torch.cuda.max_memory_allocated(0), torch.cuda.max_memory_reserved(0)
        self._after, self._reserved = _read_device_usage(), torch.cuda.memory_reserved(0)
        driver = None
        if self._after.used_bytes is not None and self._before.used_bytes is not None:
            driver = max(reserved, self._after.used_bytes - self._before.used_bytes)
        peak = driver if driver is not None else reserved
        return step, MemoryMeasurement(
            "driver" if driver is not None else "reserved", peak, allocated, reserved, driver, kept_per_step(live)
        )

    def synchronize(self) -> None:
        torch.cuda.synchronize(0)

    def utilization(self) -> float | None:
        return _read_device_usage().busy_ratio

    def contention_reason(self) -> str | None:
        return contention_reason(self._before, self._after, self._reserved)

    def is_nearly_full(self) -> bool:
        free, total = torch.cuda.mem_get_info(0)
        limited = is_nearly_full(torch.cuda.memory_reserved(0), self._limit or total)
        return limited or is_nearly_full(total - free, total)


def create_meter(device: str, limit_bytes: int | None) -> DeviceMeter:
    """Create the meter of `cpu`, `cuda` (including ROCm) or `auto`, which prefers a GPU."""
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return CudaMeter(limit_bytes)
    return CpuMeter(limit_bytes)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def device_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _read_device_usage() -> DeviceUsage:
    """Read the first visible GPU through NVML; all None if NVML is missing (ROCm) or fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(_nvml_index())
        used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except (pynvml.NVMLError, ValueError):
        return UNKNOWN_USAGE
    try:
        busy: float | None = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        # In a PID namespace os.getpid() differs from the driver's PIDs: our own process cannot be identified.
        pids = {process.pid for process in processes}
        others: int | None = len(pids - {os.getpid()}) if os.getpid() in pids or not pids else None
    except pynvml.NVMLError:
        return DeviceUsage(used, None, None)
    return DeviceUsage(used, busy, others)


def _nvml_index() -> int:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return int(first or "0")
