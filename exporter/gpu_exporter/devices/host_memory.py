"""The machine's memory, for GPUs that have none of their own.

Used is what is not available, as in tegrastats and NVIDIA's guidance for DGX Spark (user guide, "Known issues"): page
cache that the kernel would give up is not used, and the memory of processes on the CPU is: the GPU cannot have it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gpu_exporter.devices.sysfs import SysfsValueError, read_file
from gpu_exporter.snapshot import AbsenceReason


class MemoryUse(NamedTuple):
    """Bytes of memory."""

    total: int
    used: int


class HostMemoryError(Exception):
    """The machine's memory cannot be read."""

    def __init__(self, reason: AbsenceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_LINE = re.compile(rb"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB$", re.MULTILINE)


def read_host_memory(procfs: str) -> MemoryUse:
    """Read `meminfo` (proc(5)). Raises HostMemoryError."""
    path = f"{procfs}/meminfo"
    try:
        found = {name: 1024 * int(kib) for name, kib in _LINE.findall(read_file(path))}
    except SysfsValueError as error:
        raise HostMemoryError(error.reason, f"cannot read {path}") from error
    total, available = found.get(b"MemTotal", 0), found.get(b"MemAvailable")
    if available is None or not 0 <= available <= total:
        raise HostMemoryError(AbsenceReason.ERROR, f"{path} has no MemTotal or MemAvailable")
    return MemoryUse(total, total - available)
