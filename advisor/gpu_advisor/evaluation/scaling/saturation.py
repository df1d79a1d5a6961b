"""Growing where utilization is at its ceiling and tells only that the demand is at least the size: by growing steps.

Whether a step was of use is seen in the next points. Some servers show 100 % at any load: a growth that is told by
nothing but the ceiling ends after a few steps, and takes never more than half of what is left up to the limit. A pool
whose utilization has told of its load before is believed, and goes on growing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from gpu_advisor.evaluation.scaling.demand_history import DemandPoint

#: A step at saturation, as a share of the size; each further step of one run is longer by as much again.
FIRST_STEP_RATIO = 0.25

#: The same while next to nothing is known of the pool: the demand may be anything.
SHORT_HISTORY_STEP_RATIO = 3.0

#: Points from which on a pool's own past says how far its demand goes beyond what was expected.
MIN_HISTORY_POINTS = 20

#: Steps after which a utilization that never came off its ceiling is not believed any more.
MAX_UNINFORMED_STEPS = 3

#: Utilization between these is one that tells of a load. A server that shows all or nothing has few such points.
INFORMATIVE_RANGE = (0.05, 0.95)
MIN_INFORMATIVE_SHARE = 0.1

#: So much of the past (seconds), at steps so far apart, says whether growing has helped, where a pool was at its
#: ceiling throughout its history. After that it is tried again.
LONG_HISTORY_SECONDS, LONG_STEP_SECONDS = 3 * 86400, 900


@dataclass(frozen=True, slots=True)
class SaturatedRun:
    """The saturated points at the end of a trail: how many, the present size, growths seen, and what was before."""

    points: int
    size: float
    growths: int
    history_is_short: bool
    is_informative: bool

    @property
    def exhausted(self) -> bool:
        """Whether growing has not helped, and nothing says that it will."""
        return not self.is_informative and self.growths >= MAX_UNINFORMED_STEPS


def saturated_run(trail: Sequence[DemandPoint], at: float) -> SaturatedRun | None:
    """The run that the trail ends with at `at`; None if its last point then is not saturated.

    All of the trail is looked at, also what is older than a forecast needs and lies further apart: a growth that did
    not help must not be forgotten while the run goes on. Missing points do not end a run.
    """
    latest = next((point for point in reversed(trail) if point.at <= at), None)
    if latest is None or not latest.saturated:
        return None
    there = [point for point in trail if point.at <= at]
    first = len(there)
    while first and there[first - 1].saturated:
        first -= 1
    run, before = there[first:], there[:first]
    sizes = [point.replicas for point in run]
    growths = sum(1 for one, other in pairwise(sizes) if other > one)
    low, high = INFORMATIVE_RANGE
    informative = sum(1 for point in before if low < point.utilization_ratio < high)
    return SaturatedRun(
        points=len(run),
        size=sizes[-1],
        growths=growths,
        history_is_short=len(there) < MIN_HISTORY_POINTS,
        is_informative=informative >= MIN_HISTORY_POINTS * MIN_INFORMATIVE_SHARE
        and informative >= MIN_INFORMATIVE_SHARE * len(before),
    )


def next_size(run: SaturatedRun, most: int) -> int:
    """Replicas after the next step, at most `most`; the present size where growing has not helped."""
    size = run.size
    if run.exhausted:
        return ceil(size)
    share = (SHORT_HISTORY_STEP_RATIO if run.history_is_short else FIRST_STEP_RATIO) + FIRST_STEP_RATIO * run.growths
    wanted = ceil(size + max(1.0, size * share))
    if not run.is_informative:
        wanted = min(wanted, max(2, int(size + (most - size) / 2)))
    return min(most, wanted)
