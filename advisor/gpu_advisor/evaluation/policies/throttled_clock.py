"""What the clock of a throttled GPU is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

#: From this share of its peers' clock on, a GPU is not slower than they are: the end of the dead bands of
#: `clock_of_peers` in the decision table.
AS_FAST_AS_PEERS = 0.93


class ThrottledClock(NamedTuple):
    """The SM clock as a ratio, and the feature that it is."""

    feature: Literal["clock_of_peers", "clock"]
    ratio: float

    @property
    def whose(self) -> str:
        return "peers'" if self.feature == "clock_of_peers" else "maximum"


def throttled_clock(value: Callable[[str], float | None]) -> ThrottledClock | None:
    """Relative to peers, which have the same work; to the maximum where peers are throttled as well, as on a hot node.

    `value` gives a feature's value. None if no clock is known.
    """
    of_peers, clock = value("clock_of_peers"), value("clock")
    if of_peers is not None and (of_peers < AS_FAST_AS_PEERS or clock is None):
        return ThrottledClock("clock_of_peers", of_peers)
    return None if clock is None else ThrottledClock("clock", clock)
