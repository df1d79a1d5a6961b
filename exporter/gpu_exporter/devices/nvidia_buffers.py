"""NVML functions that fill a list: the samples of the utilization buffer, and the processes on a GPU.

The buffers are reused and unpacked at once: pynvml calls twice, allocates each time and creates an object per entry,
which takes 133 ms for 2,000 processes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ctypes import byref, c_uint, c_ulonglong, create_string_buffer, memset, sizeof
from typing import Any

from gpu_exporter.devices.meters import UtilizationSample
from gpu_exporter.devices.nvidia_drivers import MPS_PROCESS_ENTRY_BYTES, ProcessFunction, Version, process_functions
from gpu_exporter.devices.nvml import INSUFFICIENT_SIZE, NOT_FOUND, NvmlSession, NvmlValueError, absence_reason
from gpu_exporter.snapshot import AbsenceReason, GpuProcess

_UTILIZATION_SAMPLES = 1  # nvmlSamplingType_t
_DOUBLE, _UINT = 0, 1  # nvmlValueType_t
_SAMPLE_LAYOUTS = {_DOUBLE: "=Qd", _UINT: "=QI4x", 2: "=QQ", 3: "=QQ", 4: "=Qq", 5: "=Qi4x", 6: "=QH6x"}

_NO_INSTANCE = 0xFFFFFFFF
"""Id of the instances of a process on a GPU that is not in MIG mode."""

MAX_ENTRIES = 65_536
"""A driver that reports a longer list is wrong: NVIDIA's GPUs have far fewer contexts, and sample buffers are small."""

MAX_PID = 2**22
"""The kernel's limit of process ids (proc(5), pid_max)."""

MAX_PROCESS_BYTES = 2.0**44
"""More than a process can have. Drivers that do not report memory per process return 2^64 - 1."""

_ROOM = 2
"""A driver may write longer entries than its header declares, as 535.54 does: buffers have twice the space."""

_UNWRITTEN = 0xA5
"""Written into the buffer before a call: what the driver has overwritten shows the size of its entries."""


class _GrowingBuffer:
    """A buffer of entries that NVML fills, enlarged with `grow` until the list fits."""

    def __init__(self, entry_bytes: int, capacity: int) -> None:
        self._entry_bytes = entry_bytes
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries = create_string_buffer(_ROOM * self._entry_bytes * capacity)

    def grow(self, needed: int) -> bool:
        """Make room for a list of this length, which may grow until the next call. False: no list is that long."""
        if needed > MAX_ENTRIES:
            return False
        self._allocate(max(needed + needed // 4, 2 * self.capacity))
        return True

    def used(self, count: int) -> memoryview | None:
        """The first `count` entries; None if the driver reports more than there is room for."""
        if count > self.capacity:
            return None
        return memoryview(self.entries)[: self._entry_bytes * count]

    def mark(self) -> None:
        """Prepare `written`."""
        memset(self.entries, _UNWRITTEN, sizeof(self.entries))

    def written(self) -> bytes:
        """The bytes from the first to the last that the driver has written since `mark`."""
        return self.entries.raw.rstrip(bytes([_UNWRITTEN]))


class UtilizationBuffer:
    """The driver's buffer of utilization samples of one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetSamples")
        self._handle = handle
        self._list = _GrowingBuffer(entry_bytes=16, capacity=128)
        self._kind, self._count = c_uint(), c_uint()

    def read_since(self, since: int) -> list[UtilizationSample] | None:
        """Samples newer than `since`, oldest first; None if the driver has no buffer.

        Times are microseconds of the driver's clock, values are percent.
        """
        # A size query returns the size of the whole buffer: calling with enough room at once saves it.
        for _ in range(3):
            code = self._query(since, self._list.entries)
            if code != INSUFFICIENT_SIZE:
                break
            self._query(since, None)
            if not self._list.grow(self._count.value):
                return None
        if code == NOT_FOUND:
            return []
        layout = _SAMPLE_LAYOUTS.get(self._kind.value)
        used = self._list.used(self._count.value)
        if code or layout is None or used is None:
            return None
        return [(stamp, float(value)) for stamp, value in struct.iter_unpack(layout, used)]

    def _query(self, since: int, entries: Any) -> int:
        self._count.value = self._list.capacity
        return self._get(
            self._handle, _UTILIZATION_SAMPLES, c_ulonglong(since), byref(self._kind), byref(self._count), entries
        )


class ProcessList:
    """The processes with a compute context on one GPU or MIG instance.

    `functions` are tried in turn until the driver has one. `instance` is the id of the compute instance, within its GPU
    instance, whose processes are listed; None for all. The size of the entries is measured: drivers have changed it
    under the same name of the function (nvidia_drivers), to 16 bytes as well (XuehaiPan/nvitop#226).
    """

    def __init__(
        self, nvml: NvmlSession, handle: Any, functions: Sequence[ProcessFunction], instance: int | None = None
    ) -> None:
        self._nvml, self._handle = nvml, handle
        self._functions = list(functions)
        self._instance = instance
        self._count = c_uint()
        self._use(self._functions.pop(0))

    def _use(self, function: ProcessFunction) -> None:
        self._get = self._nvml.function(function.name)
        self._list = _GrowingBuffer(function.entry_bytes, capacity=32)
        self._last_bytes = b""
        self._processes: tuple[GpuProcess, ...] = ()

    def read(self, max_bytes: float = MAX_PROCESS_BYTES) -> tuple[GpuProcess, ...]:
        """The current processes. Memory above `max_bytes`, the GPU's own, is unknown. Raises NvmlValueError."""
        code = self._fill()
        while code and self._functions and absence_reason(code) is AbsenceReason.UNSUPPORTED:
            self._use(self._functions.pop(0))
            code = self._fill()
        if code:
            raise NvmlValueError(absence_reason(code), f"cannot list processes: NVML error {code}")
        count, written = self._count.value, self._list.written()
        if count == 0:
            return ()
        layout = _PROCESS_LAYOUTS.get(len(written) // count) if len(written) % count == 0 else None
        if layout is None or count > self._list.capacity:
            raise NvmlValueError(AbsenceReason.ERROR, f"the driver lists {count} processes in {len(written)} bytes")
        if written != self._last_bytes:  # usually nothing has changed
            self._processes = tuple(self._parse(layout, written, max_bytes))
            self._last_bytes = written
        return self._processes

    def _fill(self) -> int:
        code = INSUFFICIENT_SIZE
        for _ in range(3):
            self._count.value = self._list.capacity
            self._list.mark()
            code = self._get(self._handle, byref(self._count), self._list.entries)
            if code != INSUFFICIENT_SIZE or not self._list.grow(self._count.value):
                break
        return code

    def _parse(self, layout: struct.Struct, entries: bytes, max_bytes: float) -> Iterator[GpuProcess]:
        """Raises NvmlValueError if a process cannot exist: then none of the entries is where it should be."""
        for pid, memory, *instances in layout.iter_unpack(entries):
            if not 0 < pid <= MAX_PID:
                raise NvmlValueError(AbsenceReason.ERROR, f"the driver lists a process {pid}")
            if self._instance is None or not instances or instances[0] in (self._instance, _NO_INSTANCE):
                yield GpuProcess(pid, memory if memory <= max_bytes else None)


class ComputeProcesses:
    """The processes with a compute context on one GPU or MIG instance, clients of the multi-process service included.

    NVML lists those in a list of their own; the other one has their server only. `instance` as in ProcessList.
    """

    def __init__(self, nvml: NvmlSession, handle: Any, version: Version, instance: int | None = None) -> None:
        self._own = ProcessList(nvml, handle, process_functions(version), instance)
        self._clients = ProcessList(nvml, handle, process_functions(version, MPS_PROCESS_ENTRY_BYTES), instance)

    def read(self, max_bytes: float = MAX_PROCESS_BYTES) -> tuple[GpuProcess, ...]:
        """The current processes. Memory above `max_bytes`, the GPU's own, is unknown. Raises NvmlValueError.

        A list of clients that fails counts as empty: few machines have any, and not every driver has the list.
        """
        own = self._own.read(max_bytes)
        if not own:  # nor a server of clients
            return own
        try:
            clients = self._clients.read(max_bytes)
        except NvmlValueError:
            return own
        listed = {process.pid for process in own}
        return (*own, *(client for client in clients if client.pid not in listed)) if clients else own


_PROCESS_LAYOUTS = {16: struct.Struct("=I4xQ"), 24: struct.Struct("=I4xQ4xI"), 32: struct.Struct("=I4xQ4xI8x")}
"""By the size of an entry: process id, memory, and since the second version the compute instance."""
