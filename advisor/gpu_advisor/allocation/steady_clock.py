"""The clock of leases: not affected by changes of the system clock while the service runs."""

from __future__ import annotations

import time


class SteadyClock:
    """Unix time at the start, advanced by the monotonic clock.

    A step of the system clock (by NTP, or set by hand) must not expire all leases at once.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._offset + time.monotonic()
