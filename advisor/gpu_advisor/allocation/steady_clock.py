"""The clock of leases: it goes on evenly, whatever is done to the machine's clock while the service runs."""

from __future__ import annotations

import time


class SteadyClock:
    """Seconds since 1970 as they were at the start, and from there on by the monotonic clock.

    A step of the machine's clock (NTP after a long silence, somebody's hand) must not end everybody's leases at once.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._offset + time.monotonic()
