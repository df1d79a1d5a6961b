"""The published state at one moment: immutable, replaced as a whole, read by API, page, metrics and alerts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu_advisor.evaluation.actions import without_commands
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.outcomes import NO_OUTCOMES, Outcomes
from gpu_advisor.storage.damage import DamagedFile

RUNBOOK_BASE_URL = "https://github.com/gpu-advisor/gpu-advisor/blob/main/docs/runbooks"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Status of the data source. `last_success` is a Unix time; `error` and `message` are empty while it is up.

    `address` is where the advisor reaches it, `browser_url` where a browser does; empty if that is unknown.
    """

    name: str
    address: str
    up: bool
    error: str = ""
    message: str = ""
    last_success: float | None = None
    browser_url: str = ""


def alert_name(kind: str) -> str:
    """`idle_reclaim` -> `GpuAdvisorIdleReclaim`"""
    return "GpuAdvisor" + "".join(part.capitalize() for part in kind.split("_"))


@dataclass(frozen=True, slots=True)
class PublishedRecommendation:
    """A published recommendation. `stale`: an earlier evaluation made it, and its data is missing now.

    `last_seen` is when an evaluation last made it (Unix time), if not the present one: its cause may come again soon.
    """

    id: str
    since: float
    recommendation: Recommendation
    stale: bool = False
    snoozed: Snooze | None = None
    feedback: Feedback | None = None
    last_seen: float | None = None
    withdrawn: bool = False

    def without_commands(self) -> PublishedRecommendation:
        """With nothing to run, while data is missing. Its alert and its evidence stay."""
        if self.withdrawn:
            return self
        actions = without_commands(self.recommendation.actions)
        return replace(self, recommendation=replace(self.recommendation, actions=actions), withdrawn=True)

    @property
    def alert_name(self) -> str:
        """Name of the alert and of its runbook."""
        return alert_name(self.recommendation.kind)

    @property
    def runbook(self) -> str:
        return f"{RUNBOOK_BASE_URL}/{self.alert_name}.md"


@dataclass(frozen=True, slots=True)
class View:
    """The last successful evaluation, and whether it is current."""

    cluster: str
    source: SourceStatus
    evaluation: Evaluation | None = None
    issued: tuple[PublishedRecommendation, ...] = ()
    duration_seconds: float | None = None
    evaluations: int = 0
    failures: tuple[tuple[str, int], ...] = ()
    outcomes: Outcomes = NO_OUTCOMES
    #: oldest first
    feedback: tuple[Feedback, ...] = ()
    #: what the feedback suggests to change in the settings
    suggestions: tuple[str, ...] = ()
    #: state files that were damaged and moved aside at the start
    damaged: tuple[DamagedFile, ...] = ()

    #: whether no evaluation has finished for several intervals, whatever the reason
    overdue: bool = False

    #: between evaluations, by the settings
    interval_seconds: float | None = None

    @property
    def stale(self) -> bool:
        return self.evaluation is not None and (self.overdue or not self.source.up)
