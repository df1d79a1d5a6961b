"""Training pools: whole gangs or nothing. A busy pool without waiting work is a success, no reason to scale up."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

#: Floating-point tolerance: this much above a whole number is still that number.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GangCounts:
    """A training pool in whole gangs, and the work that waits, in gangs; None without a demand signal.

    `idle` are the gangs among the present that idle GPUs make, which their owners may release.
    """

    present: int
    min: int
    max: int
    waiting: float | None
    idle: int = 0


def decide_gangs(found: GangCounts) -> tuple[int, str]:
    """How many gangs there should be, and why. The idle_reclaim policy, which sees each GPU, releases idle ones."""
    if found.present < found.min:
        return found.min, f"fewer than the minimum of {found.min}"
    if found.present > found.max:
        return found.max, f"more than the maximum of {found.max}"
    if found.waiting is None or found.waiting <= ROUNDING:
        return found.present, "no work is waiting"
    waits = f"work for {found.waiting:.3g} gangs waits"
    if found.waiting <= found.idle + ROUNDING:
        return (
            found.present,
            f"{waits}, and the GPUs of {found.idle} are idle: release those to it before adding any",
        )
    wanted = min(found.max, found.present + ceil(found.waiting - found.idle - ROUNDING))
    fits = f", {found.idle} fit on idle GPUs" if found.idle else ""
    limited = f"; the limit is {found.max}" if wanted == found.max else ""
    return wanted, f"{waits}{fits}{limited}"
