"""The overview's headline: the fleet's status in one sentence that is always true. Pure.

A count of recommendations never hides what is down. "All targets met" needs every check to be known and met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import CheckStatus
from gpu_advisor.evaluation.signals import IDLE_COVERAGE
from gpu_advisor.state.view import View
from gpu_advisor.web.page.checklist import ChecklistItem


@dataclass(frozen=True, slots=True)
class Watching:
    """History so far, of what the first advice needs. `remaining_seconds` assumes that the exporters keep reporting."""

    observed_ratio: float
    remaining_seconds: float


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """What the headline depends on. `worth` is the money or the GPUs to save, as text; empty if unknown.

    `missed`, `unknown` and `met` count items of the checklist.
    """

    evaluated: bool = True
    starting: bool = False
    source_up: bool = True
    overdue: bool = False
    gpus: int = 0
    down: int = 0
    silent: int = 0
    down_exporters: int = 0
    open: int = 0
    snoozed: int = 0
    worth: str = ""
    missed: int = 0
    unknown: int = 0
    met: int = 0
    watching: Watching | None = None


@dataclass(frozen=True, slots=True)
class Headline:
    """`progress` is 0..1 while the first history is read, else None."""

    text: str
    detail: str = ""
    progress: float | None = None


def headline(status: FleetStatus) -> Headline:
    """The status in one sentence."""
    for applies, text, detail in _WITHOUT_CURRENT_DATA:
        if applies(status):
            return Headline(text, detail)
    if not status.gpus:
        return Headline("; ".join(["No GPUs found", *_down(status)]))
    parts = [*_down(status), *_to_do(status)]
    if status.watching and not status.open:
        minutes = max(1, ceil(round(status.watching.remaining_seconds, 3) / 60))
        parts.append(f"Watching: first recommendations in {minutes} min")
        return Headline(_sentence(parts), WATCHING_DETAIL, status.watching.observed_ratio)
    if not status.open:
        parts += _checklist(status)
    return Headline(_sentence(parts))


WATCHING_DETAIL = "A recommendation needs a whole window of history, so that no short pause looks like waste."

#: Without a current evaluation: the first that applies.
_WITHOUT_CURRENT_DATA: Sequence[tuple[Callable[[FleetStatus], bool], str, str]] = (
    (lambda status: not status.evaluated and status.starting, "Starting: the first evaluation is under way", ""),
    (lambda status: not status.evaluated, "No data from the source yet", ""),
    (lambda status: status.overdue and status.source_up,
     "No evaluation has finished for a while: showing the last successful one", ""),
    (lambda status: not status.source_up, "The data source is down: showing the last successful evaluation", ""),
)  # fmt: skip


def _down(status: FleetStatus) -> list[str]:
    found = [(status.down, "GPU", "down"), (status.silent, "GPU", "not reporting"),
             (status.down_exporters, "exporter", "down")]  # fmt: skip
    return [f"{count_of(count, noun)} {state}" for count, noun, state in found if count]


def _to_do(status: FleetStatus) -> list[str]:
    if not status.open:
        return []
    found = count_of(status.open, "recommendation")
    return [f"{found}, saving {status.worth}" if status.worth else found]


def _checklist(status: FleetStatus) -> list[str]:
    """The checklist, where there is nothing to do."""
    found = []
    if status.missed:
        found.append(f"{count_of(status.missed, 'target')} missed, no recommendation")
    elif status.met and not (status.down or status.silent or status.down_exporters):
        found.append("known targets met" if status.unknown else "all targets met")
    if status.unknown:
        found.append(f"{count_of(status.unknown, 'check')} unknown")
    if status.snoozed:
        found.append(f"{count_of(status.snoozed, 'recommendation')} snoozed")
    return found or ([] if status.down or status.silent or status.down_exporters else ["no recommendations"])


def count_of(count: int, noun: str) -> str:
    """`1 GPU`, `2 GPUs`"""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def fleet_status(view: View, items: Sequence[ChecklistItem], worth: str) -> FleetStatus:
    """The status of a view. `items` is its checklist, `worth` the savings as text."""
    evaluation = view.evaluation
    gpus = evaluation.facts.gpus if evaluation else ()
    open_ = sum(1 for each in view.issued if not each.snoozed)
    return FleetStatus(
        evaluated=evaluation is not None,
        starting=view.source.error == "not_yet",
        source_up=view.source.up,
        overdue=view.overdue,
        gpus=len(gpus),
        down=sum(1 for gpu in gpus if gpu.up is False),
        silent=sum(1 for gpu in gpus if gpu.up is None),
        down_exporters=len(evaluation.facts.down_targets) if evaluation else 0,
        open=open_,
        snoozed=len(view.issued) - open_,
        worth=worth,
        missed=sum(1 for item in items if item.status is CheckStatus.MISSED),
        unknown=sum(1 for item in items if item.status is CheckStatus.UNKNOWN),
        met=sum(1 for item in items if item.status is CheckStatus.MET),
        watching=watching(evaluation) if evaluation else None,
    )


def watching(evaluation: Evaluation) -> Watching | None:
    """How far the first whole window is; None if a GPU has one, or if no exporter can give it."""
    facts = evaluation.facts
    present = [gpu for gpu in facts.gpus if gpu.up]
    if not present or not facts.supports(IDLE_COVERAGE):
        return None
    best = max(facts.value(IDLE_COVERAGE, gpu.uuid) or 0.0 for gpu in present)
    needed = facts.evaluation.min_coverage_ratio
    if best >= needed:
        return None
    return Watching(best / needed, (needed - best) * facts.evaluation.idle_window_seconds)
