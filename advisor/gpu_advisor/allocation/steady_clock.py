"""The clock of leases: changes of the system clock do not move it while leases are active.

A clock that jumps a year ahead must not end leases, and one that is set back must not keep them forever. The time
since boot goes on whatever happens to the system clock, also across restarts of the service. So the difference between
the two is taken once, and kept beside the leases. After a reboot the system clock is all there is.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpu_advisor.storage.output_file import write_output
from gpu_advisor.storage.private_files import FILE_MODE

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def seconds_since_boot() -> float:
    """Including suspension, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def read_boot_id() -> str:
    """The kernel's name of this boot (random(4)); empty where there is none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True)
class MachineClocks:
    """`wall` is Unix time, which may step; `since_boot` is in seconds, and does not."""

    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = seconds_since_boot
    boot_id: str = field(default_factory=read_boot_id)


class SteadyClock:
    """Unix time when it was set, advanced by the time since boot."""

    def __init__(self, clocks: MachineClocks | None = None, offset: float | None = None) -> None:
        """`offset` is the Unix time of the boot; by default, that of the system clock now."""
        clocks = clocks or MachineClocks()
        self._since_boot = clocks.since_boot
        self.offset = clocks.wall() - clocks.since_boot() if offset is None else offset

    def __call__(self) -> float:
        return self.offset + self._since_boot()


def resume_clock(file: Path, in_use: bool, clocks: MachineClocks | None = None) -> SteadyClock:
    """The clock that `file` has of this boot, or a new one. A clock that is not `in_use` by any lease is set again."""
    clocks = clocks or MachineClocks()
    clock = SteadyClock(clocks, _read_offset(file, clocks.boot_id) if in_use else None)
    document = {"boot_id": clocks.boot_id, "offset": clock.offset}
    try:
        write_output(file, json.dumps(document) + "\n", new_mode=FILE_MODE)
    except OSError as error:
        log.warning("cannot write %s (%s): if the system clock jumps, a restart may end leases", file, error)
    return clock


def _read_offset(file: Path, boot_id: str) -> float | None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if boot_id and document["boot_id"] == boot_id:
            return float(document["offset"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
