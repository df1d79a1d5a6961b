"""Whether the system clock can be believed when it says that data is old enough to delete."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: A larger difference to the monotonic clock is a step, not drift.
MAX_DRIFT_SECONDS = 3600.0
#: The newest data at the start is usually younger than this; a clock that says otherwise may have jumped.
MAX_GAP_SECONDS = 7 * 86400.0
#: For so long nothing is deleted after a step: an operator or NTP sets a wrong clock right within a day.
SETTLING_SECONDS = 86400.0


class ClockWatch:
    """`newest`: the time of the newest stored data, if any. Times are Unix times."""

    def __init__(self, newest: float | None, now: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = now - monotonic()
        is_plausible = newest is None or abs(now - newest) <= MAX_GAP_SECONDS
        self._settled_at = monotonic() if is_plausible else monotonic() + SETTLING_SECONDS
        if not is_plausible:
            log.warning("the newest data is %.0f days from the present time: nothing is deleted for a day, in case "
                        "the clock is wrong", abs(now - (newest or now)) / 86400)  # fmt: skip

    def is_settled(self, now: float) -> bool:
        """Whether the clock has run steadily for long enough."""
        offset = now - self._monotonic()
        if abs(offset - self._offset) > MAX_DRIFT_SECONDS:
            log.warning("the clock stepped by %.0f s: nothing is deleted for a day", offset - self._offset)
            self._settled_at = self._monotonic() + SETTLING_SECONDS
            self._offset = offset
        return self._monotonic() >= self._settled_at
