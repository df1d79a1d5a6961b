"""What NVML answers with lists: the samples of its utilization buffer, and the processes on a GPU.

Each keeps the memory that NVML writes to, and reads it in one piece: pynvml asks twice, makes room anew each time, and
an object of each entry, which takes 133 ms for 2,000 processes.
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
"""NVML_VALUE_NOT_AVAILABLE: the driver does not tell whose memory it is."""


class _GrowingBuffer:
    """A list that NVML fills: `ask` makes room until it fits."""

    def __init__(self, entry_bytes: int, capacity: int) -> None:
        self._entry_bytes = entry_bytes
        self._make_room(capacity)

    def _make_room(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries = create_string_buffer(self._entry_bytes * capacity)

    def grow(self, needed: int) -> None:
        self._make_room(max(needed + needed // 4, 2 * self.capacity))  # the list may have grown again by the next call


class UtilizationBuffer:
    """The driver's own samples of the utilization of one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetSamples")
        self._handle = handle
        self._list = _GrowingBuffer(entry_bytes=16, capacity=128)
        self._kind, self._count = c_uint(), c_uint()

    def read_since(self, since: int) -> list[UtilizationSample] | None:
        """Samples newer than `since`, oldest first; None if the driver keeps none.

        Times are microseconds of the driver's clock, values are percent. Raises GpuLost or DriverGone.
        """
        # A size query tells the size of the whole buffer, so asking at once with room for it is the shorter way.
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
    """The processes with a compute context on one GPU, or one slice of a GPU in MIG mode."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
        self._handle = handle
        self._list = _GrowingBuffer(entry_bytes=24, capacity=32)
        self._count = c_uint()
        self._last_bytes = b""
        self._processes: tuple[GpuProcess, ...] = ()

    def read(self) -> tuple[GpuProcess, ...]:
        """Those that are there now, as the driver names them. Raises NvmlValueError, GpuLost or DriverGone."""
        for _ in range(3):
            self._count.value = self._list.capacity
            code = self._get(self._handle, byref(self._count), self._list.entries)
            if code != INSUFFICIENT_SIZE:
                break
            self._list.grow(self._count.value)
        if code:
            raise NvmlValueError(absence_reason(code), f"no list of processes: NVML error {code}")
        used = bytes(memoryview(self._list.entries)[: 24 * min(self._count.value, self._list.capacity)])
        if used != self._last_bytes:  # most often nothing has changed, down to the last byte
            self._last_bytes = used
            self._processes = tuple(
                GpuProcess(pid, None if memory == _MEMORY_UNKNOWN else memory)
                for pid, memory in struct.iter_unpack("=I4xQ8x", used)
            )
        return self._processes
