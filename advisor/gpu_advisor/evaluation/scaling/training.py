"""Training pools: whole gangs or nothing. A busy pool without waiting work is a success, no reason to scale up."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

#: Floating-point tolerance: this much above a whole number is still that number.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GangCounts:
    """A training pool in whole gangs, and the work that waits, in gangs; None without a demand signal."""

    present: int
    min: int
    max: int
    waiting: float | None


def decide_gangs(found: GangCounts) -> tuple[int, str]:
    """How many gangs there should be, and why. The idle_reclaim policy, which sees each GPU, releases idle ones."""
    if found.present < found.min:
        return found.min, f"fewer than the minimum of {found.min}"
    if found.present > found.max:
        return found.max, f"more than the maximum of {found.max}"
    if found.waiting is None or found.waiting <= ROUNDING:
        return found.present, "no work is waiting"
    wanted = min(found.max, found.present + ceil(found.waiting - ROUNDING))
    limited = f"; the limit is {found.max}" if wanted == found.max else ""
    return wanted, f"work for {found.waiting:.3g} gangs waits{limited}"
