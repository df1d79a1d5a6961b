"""What a vendor's file has to provide."""

from __future__ import annotations

from typing import Protocol

from gpu_exporter.snapshot import DeviceReading, DriverState


class DriverUnavailable(Exception):
    """The driver cannot be used now. The message tells what is missing; `state` is what is published."""

    def __init__(self, state: DriverState, message: str) -> None:
        super().__init__(message)
        self.state = state


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
