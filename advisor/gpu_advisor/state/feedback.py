"""What people say about recommendations, and what that suggests. Pure.

Feedback changes no threshold by itself: a suggestion is text, and a person changes the settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.rendering.durations import duration
from gpu_advisor.settings import EvaluationSettings

Verdict = Literal["accepted", "dismissed"]

#: Feedback kept as a list; the oldest is left out.
MAX_RECENT_FEEDBACK = 1000

#: A suggestion needs this many of the latest verdicts on a kind to be dismissals.
LATEST, ENOUGH = 6, 5

_TOO_EARLY = re.compile(r"\b(early|soon|premature|wait|still (need|us)\w*)\b", re.IGNORECASE)

#: The setting that makes a kind of recommendation come later.
_WAITS: Mapping[str, str] = {
    "hung_job": "idle_window_seconds",
    "idle_lease": "idle_window_seconds",
    "idle_reclaim": "idle_window_seconds",
    "scale_down": "scale_down_stabilization_seconds",
    "scale_up": "scale_up_stabilization_seconds",
}

#: How much longer to wait, if a suggestion is followed.
LONGER = 4


@dataclass(frozen=True, slots=True)
class Feedback:
    """A person's verdict on a recommendation of some kind. `made` is a Unix time; `by` is empty if unknown."""

    id: str
    kind: str
    verdict: Verdict
    reason: str
    by: str
    made: float


def latest_by_id(feedback: Iterable[Feedback]) -> dict[str, Feedback]:
    return {each.id: each for each in feedback}


def count_verdicts(feedback: Iterable[Feedback]) -> dict[tuple[str, str], int]:
    """By kind and verdict; of several on one recommendation, the latest counts."""
    counts: dict[tuple[str, str], int] = {}
    for each in latest_by_id(feedback).values():
        counts[each.kind, each.verdict] = counts.get((each.kind, each.verdict), 0) + 1
    return counts


def suggest(feedback: Iterable[Feedback], settings: EvaluationSettings) -> Iterator[str]:
    """One sentence for each kind that is mostly dismissed, oldest feedback first in `feedback`."""
    by_kind: dict[str, list[Feedback]] = {}
    for each in latest_by_id(feedback).values():
        by_kind.setdefault(each.kind, []).append(each)
    for kind, verdicts in sorted(by_kind.items()):
        latest = sorted(verdicts, key=lambda each: each.made)[-LATEST:]
        dismissed = [each for each in latest if each.verdict == "dismissed"]
        if len(dismissed) >= ENOUGH:
            yield _suggestion(kind, dismissed, len(latest), settings)


def _suggestion(kind: str, dismissed: list[Feedback], of: int, settings: EvaluationSettings) -> str:
    early = sum(1 for each in dismissed if _TOO_EARLY.search(each.reason))
    setting = _WAITS.get(kind)
    if setting is None or early < ENOUGH:
        return f"{len(dismissed)} of the last {of} {kind} recommendations were dismissed: look at the reasons"
    now = getattr(settings, setting)
    return (
        f"{early} of the last {of} {kind} recommendations were dismissed as too early: consider "
        f"evaluation.{setting}: {LONGER * now} ({duration(LONGER * now)}) instead of {now} ({duration(now)})"
    )
