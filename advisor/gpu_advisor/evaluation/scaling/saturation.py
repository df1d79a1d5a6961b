"""Scaling up at saturation, where utilization shows only that demand is at least the size: in increasing steps.

The next points show whether a step helped. Some servers show 100 % at any load: without other evidence, scaling up ends
after a few steps, and each takes at most half of what is left up to the limit (without a limit, half of the size). A
pool whose utilization followed its load before keeps scaling up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.settings.resources import UNLIMITED

#: A step at saturation, as a share of the size; each further step of a run is longer by the same share.
FIRST_STEP_RATIO = 0.25

#: The same while the pool has almost no history: demand may be anything.
SHORT_HISTORY_STEP_RATIO = 3.0

#: Points needed before a pool's own past shows how far demand exceeds forecasts.
MIN_HISTORY_POINTS = 20

#: After this many steps without leaving saturation, utilization is no longer trusted.
MAX_UNINFORMED_STEPS = 3

#: Utilization in this range follows the load. A server that shows all or nothing has few such points.
INFORMATIVE_RANGE = (0.05, 0.95)
MIN_INFORMATIVE_SHARE = 0.1

#: If a pool was saturated throughout its history, this much of the past (seconds), at this step, shows whether scaling
#: up helped. After that it is tried again.
LONG_HISTORY_SECONDS, LONG_STEP_SECONDS = 3 * 86400, 900


@dataclass(frozen=True, slots=True)
class SaturatedRun:
    """The saturated points at the end of a history.

    `growths` are scale-ups within the run; `is_informative` says that utilization followed the load before it.
    """

    points: int
    size: float
    growths: int
    history_is_short: bool
    is_informative: bool

    @property
    def exhausted(self) -> bool:
        """Whether scaling up did not help, and no evidence says that it will."""
        return not self.is_informative and self.growths >= MAX_UNINFORMED_STEPS


def saturated_run(history: Sequence[DemandPoint], at: float) -> SaturatedRun | None:
    """The saturated run that ends at `at`; None if the last point is not saturated.

    Uses the whole history, including older and sparser points than a forecast needs: a scale-up that did not help must
    not be forgotten while the run continues. Missing points do not end a run.
    """
    latest = next((point for point in reversed(history) if point.at <= at), None)
    if latest is None or not latest.saturated:
        return None
    points = [point for point in history if point.at <= at]
    first = len(points)
    while first and points[first - 1].saturated:
        first -= 1
    run, before = points[first:], points[:first]
    sizes = [point.replicas for point in run]
    growths = sum(1 for one, other in pairwise(sizes) if other > one)
    low, high = INFORMATIVE_RANGE
    informative = sum(1 for point in before if low < point.utilization_ratio < high)
    return SaturatedRun(
        points=len(run),
        size=sizes[-1],
        growths=growths,
        history_is_short=len(points) < MIN_HISTORY_POINTS,
        is_informative=informative >= MIN_HISTORY_POINTS * MIN_INFORMATIVE_SHARE
        and informative >= MIN_INFORMATIVE_SHARE * len(before),
    )


def next_size(run: SaturatedRun, limit: int) -> int:
    """Replicas after the next step, at most `limit`; the present size if scaling up did not help."""
    size = run.size
    if run.exhausted:
        return ceil(size)
    share = (SHORT_HISTORY_STEP_RATIO if run.history_is_short else FIRST_STEP_RATIO) + FIRST_STEP_RATIO * run.growths
    proposed = ceil(size + max(1.0, size * share))
    if not run.is_informative:
        room = size if limit == UNLIMITED else limit - size
        proposed = min(proposed, max(2, int(size + room / 2)))
    return min(limit, proposed)
