"""When a GPU did something in its owner's time, and how long it paused. Pure.

A pause is idleness if it is longer than the owner's earlier pauses: work comes in turns, people think between two cells
of a notebook, a service waits for requests at night.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gpu_advisor.promql.expressions import TimeSeries

#: Utilization of a step from which on something ran: a second of five minutes is a third of a percent.
ACTIVE_RATIO = 0.0003

#: Something that runs in nearly every step of this time (seconds), and never more than an idle GPU may, is no work: a
#: desktop, or a health check.
BACKGROUND_SECONDS, BACKGROUND_RATIO = 3 * 3600, 0.95


@dataclass(frozen=True, slots=True)
class Pauses:
    """`current` is the present pause in seconds, `longest_before` the longest finished one; None without any.

    `ended_idle` is when the latest pause as long as the idle window ended, also one that was under way when the data or
    the owner began; None if there was none. Without any activity (`any_activity`), the present pause is at least as
    long as the data.
    """

    current: float
    longest_before: float | None
    ended_idle: float | None = None
    any_activity: bool = True


def find_pauses(
    steps: TimeSeries, step_seconds: float, at: float, since: float | None, idle_ratio: float, idle_seconds: float
) -> Pauses | None:
    """The pauses up to `at`, from the utilization of each step (by its end), in the owner's time since `since`.

    Steps without data are no pause: what happened there is unknown. None without any data.
    """
    known = [(time, share) for time, share in steps if time <= at and (since is None or time > since)]
    if not known:
        return None
    level = idle_ratio if _is_background(known, step_seconds, idle_ratio) else ACTIVE_RATIO
    active = [time for time, share in known if share >= level]
    begin = known[0][0] - step_seconds
    if not active:
        return Pauses(at - max(begin, since or begin), None, any_activity=False)
    observed = {time for time, _ in known}
    first = active[0] - step_seconds
    longest, ended = 0.0, first if first - max(begin, since or begin) >= idle_seconds else None
    for earlier, later in pairwise(active):
        pause = later - earlier - step_seconds
        if pause > 0 and all(earlier + n * step_seconds in observed for n in range(1, round(pause / step_seconds) + 1)):
            longest = max(longest, pause)
            ended = later - step_seconds if pause >= idle_seconds else ended
    return Pauses(at - active[-1], longest if len(active) > 1 else None, ended)


def _is_background(known: list[tuple[float, float]], step_seconds: float, idle_ratio: float) -> bool:
    recent = [share for time, share in known if time > known[-1][0] - BACKGROUND_SECONDS]
    if len(recent) * step_seconds < 0.9 * BACKGROUND_SECONDS or max(recent) >= idle_ratio:
        return False
    return sum(1 for share in recent if share >= ACTIVE_RATIO) >= BACKGROUND_RATIO * len(recent)
