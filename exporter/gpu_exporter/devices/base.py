"""What a vendor's file has to provide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gpu_exporter.snapshot import DeviceReading, DriverState


class DriverUnavailable(Exception):
    """The driver cannot be used now. The message tells what is missing; `state` is what is published."""

    def __init__(self, state: DriverState, message: str) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Where the host's files are, and where a driver may remember its GPUs over a restart (None: nowhere)."""

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    state: Path | None = None

    def state_file(self, vendor: str) -> Path | None:
        return self.state / f"{vendor}.json" if self.state else None


@runtime_checkable
class SamplingDriver(Protocol):
    """A driver that has to be looked at more often than it is read, to count what happens in between."""

    def sampling_interval_seconds(self) -> float | None:
        """How often; None while there is no need."""
        ...

    def sample(self) -> None:
        """Look once, between two calls of `read` and in their thread. Raises nothing that `read` would not."""
        ...


class Driver(Protocol):
    """Reads all GPUs of one vendor.

    The sampler calls `read` at its interval, always from the same thread, and cuts a hanging call off from outside.
    `read` connects by itself when it is not connected, and again after the driver was reloaded; importing the file
    and constructing the driver needs no vendor library.
    """

    vendor: str

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs of this vendor, those lost since the start included (`down` says why).

        A value that could not be read is an `Absence`, never a zero. Raises DriverUnavailable if there is no such
        driver here or it refuses us; the sampler then tries again later.
        """
        ...

    def close(self) -> None:
        """Let go of the vendor's library. `read` may be called again."""
        ...
