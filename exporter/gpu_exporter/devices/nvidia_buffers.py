"""NVML functions that fill a list: the samples of the utilization buffer, and the processes on a GPU.

The buffers are reused and unpacked at once: pynvml calls twice, allocates each time and creates an object per entry,
which takes 133 ms for 2,000 processes.
"""

from __future__ import annotations

import struct
from ctypes import byref, c_uint, c_ulonglong, create_string_buffer
from typing import Any

from gpu_exporter.devices.meters import UtilizationSample
from gpu_exporter.devices.nvml import INSUFFICIENT_SIZE, NOT_FOUND, NvmlSession, NvmlValueError, absence_reason
from gpu_exporter.snapshot import GpuProcess

_UTILIZATION_SAMPLES = 1  # nvmlSamplingType_t
_DOUBLE = 0  # nvmlValueType_t

_MEMORY_UNKNOWN = 0xFFFFFFFFFFFFFFFF
"""NVML_VALUE_NOT_AVAILABLE: the driver does not report memory per process."""


class _GrowingBuffer:
    """A buffer of entries that NVML fills, enlarged with `grow` until the list fits."""

    def __init__(self, entry_bytes: int, capacity: int) -> None:
        self._entry_bytes = entry_bytes
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries = create_string_buffer(self._entry_bytes * capacity)

    def grow(self, needed: int) -> None:
        self._allocate(max(needed + needed // 4, 2 * self.capacity))  # the list may grow until the next call


class UtilizationBuffer:
    """The driver's buffer of utilization samples of one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetSamples")
        self._handle = handle
        self._list = _GrowingBuffer(entry_bytes=16, capacity=128)
        self._kind, self._count = c_uint(), c_uint()

    def read_since(self, since: int) -> list[UtilizationSample] | None:
        """Samples newer than `since`, oldest first; None if the driver has no buffer.

        Times are microseconds of the driver's clock, values are percent. Raises GpuLost or DriverUnloaded.
        """
        # A size query returns the size of the whole buffer: calling with enough room at once saves it.
        for _ in range(3):
            code = self._query(since, self._list.entries)
            if code != INSUFFICIENT_SIZE:
                break
            self._query(since, None)
            self._list.grow(self._count.value)
        if code == NOT_FOUND:
            return []
        if code:
            absence_reason(code)
            return None
        layout = "=Qd" if self._kind.value == _DOUBLE else "=QI4x"
        used = memoryview(self._list.entries)[: 16 * min(self._count.value, self._list.capacity)]
        return [(stamp, float(value)) for stamp, value in struct.iter_unpack(layout, used)]

    def _query(self, since: int, entries: Any) -> int:
        self._count.value = self._list.capacity
        return self._get(
            self._handle, _UTILIZATION_SAMPLES, c_ulonglong(since), byref(self._kind), byref(self._count), entries
        )


class ProcessList:
    """The processes with a compute context on one GPU or MIG instance."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
        self._handle = handle
        self._list = _GrowingBuffer(entry_bytes=24, capacity=32)
        self._count = c_uint()
        self._last_bytes = b""
        self._processes: tuple[GpuProcess, ...] = ()

    def read(self) -> tuple[GpuProcess, ...]:
        """The current processes. Raises NvmlValueError, GpuLost or DriverUnloaded."""
        for _ in range(3):
            self._count.value = self._list.capacity
            code = self._get(self._handle, byref(self._count), self._list.entries)
            if code != INSUFFICIENT_SIZE:
                break
            self._list.grow(self._count.value)
        if code:
            raise NvmlValueError(absence_reason(code), f"cannot list processes: NVML error {code}")
        used = bytes(memoryview(self._list.entries)[: 24 * min(self._count.value, self._list.capacity)])
        if used != self._last_bytes:  # usually nothing has changed
            self._last_bytes = used
            self._processes = tuple(
                GpuProcess(pid, None if memory == _MEMORY_UNKNOWN else memory)
                for pid, memory in struct.iter_unpack("=I4xQ8x", used)
            )
        return self._processes
