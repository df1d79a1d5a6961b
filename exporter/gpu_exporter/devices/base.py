"""The interface of a GPU driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gpu_exporter.snapshot import DeviceReading, DriverState


class DriverUnavailable(Exception):
    """The driver cannot be used now. The message says what is missing; `state` is exported."""

    def __init__(self, state: DriverState, message: str) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Mount points of the host's file systems, and the directory that keeps known GPUs across restarts (None: none)."""

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    state_directory: Path | None = None

    def state_file(self, vendor: str) -> Path | None:
        """The file of one vendor's known GPUs."""
        return self.state_directory / f"{vendor}.json" if self.state_directory else None


@runtime_checkable
class SamplingDriver(Protocol):
    """A driver that must be sampled more often than it is read, to count what happens in between."""

    def sampling_interval_seconds(self) -> float | None:
        """The interval; None while sampling is not needed."""
        ...

    def sample(self) -> None:
        """Take one sample, in the thread of `read`. Raises nothing that `read` would not."""
        ...


class Driver(Protocol):
    """Reads all GPUs of one vendor.

    The sampler calls `read` at its interval, always from the same thread, and reports a hanging call as hung. `read`
    opens the vendor library when needed, and again after a driver reload; importing the module and constructing the
    driver need no vendor library.
    """

    vendor: str

    def read(self) -> tuple[DeviceReading, ...]:
        """Read all GPUs of this vendor, including those lost since the start (`down` is the reason).

        A value that could not be read is an `Absence`, never a zero. Raises DriverUnavailable if the driver is absent
        or denies access; the sampler then retries later.
        """
        ...

    def close(self) -> None:
        """Unload the vendor library. `read` may be called again."""
        ...
