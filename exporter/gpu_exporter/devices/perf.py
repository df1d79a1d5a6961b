"""Perf counters of the kernel: include/uapi/linux/perf_event.h, perf_event_open(2).

Device-wide counters need CAP_PERFMON, or kernel.perf_event_paranoid at 0 or less.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Protocol


class CounterBackend(Protocol):
    """Counters of a device; tests replace it."""

    def open(self, pmu: int, config: int, cpu: int) -> int:
        """Start a counter. `pmu` is the number in the PMU's `type` file. Returns a handle. Raises OSError."""
        ...

    def read(self, handle: int) -> tuple[int, int]:
        """(count, nanoseconds enabled), both since `open`. Raises OSError."""
        ...

    def close(self, handle: int) -> None:
        """Stop the counter."""
        ...


_SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_CLOSE_ON_EXEC = 8
_TIME_ENABLED = 1
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
"""The first version of struct perf_event_attr, 64 bytes, which every kernel accepts."""


class PerfCounters:
    """The counters of the running kernel."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def open(self, pmu: int, config: int, cpu: int) -> int:
        call = _SYSCALL_NUMBERS.get(platform.machine())
        if call is None:
            raise OSError(errno.ENOSYS, f"perf_event_open is not supported on {platform.machine()}")
        attributes = _ATTRIBUTES.pack(pmu, _ATTRIBUTES.size, config, 0, 0, _TIME_ENABLED, 0, 0, 0, 0)
        handle = self._libc.syscall(
            ctypes.c_long(call),
            ctypes.c_char_p(attributes),
            ctypes.c_long(-1),  # all processes
            ctypes.c_long(cpu),
            ctypes.c_long(-1),  # no group
            ctypes.c_ulong(_CLOSE_ON_EXEC),
        )
        if handle < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(handle)

    def read(self, handle: int) -> tuple[int, int]:
        content = os.read(handle, 16)
        if len(content) != 16:
            raise OSError(errno.EIO, "the counter is in an error state")
        count, enabled = struct.unpack("=QQ", content)
        return count, enabled

    def close(self, handle: int) -> None:
        os.close(handle)
