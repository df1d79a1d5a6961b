"""Training pools: whole gangs or nothing. Busy with nothing waiting is success, and no reason to add."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

#: Shares of whole numbers are not exact: so much above a whole number is still that number.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GangCounts:
    """A training pool in whole gangs, and how much work waits, in gangs; None where no signal tells."""

    present: int
    min: int
    max: int
    waiting: float | None


def decide_gangs(found: GangCounts) -> tuple[int, str]:
    """How many gangs there should be, and why. What is idle is given back by another policy, which sees each GPU."""
    if found.present < found.min:
        return found.min, f"fewer than the {found.min} that the limits ask for"
    if found.present > found.max:
        return found.max, f"more than the {found.max} that the limits allow"
    if found.waiting is None or found.waiting <= ROUNDING:
        return found.present, "nothing waits"
    wanted = min(found.max, found.present + ceil(found.waiting - ROUNDING))
    limited = f"; the limit is {found.max}" if wanted == found.max else ""
    return wanted, f"work for {found.waiting:.3g} gangs waits{limited}"
