"""What is published at one moment: immutable, swapped as a whole, read by every publisher."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.outcomes import NO_OUTCOMES, Outcomes

RUNBOOK_BASE_URL = "https://github.com/gpu-advisor/gpu-advisor/blob/main/docs/runbooks"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How the data source fares. Times in seconds since 1970; `error` and `message` are empty while it is up."""

    name: str
    address: str
    up: bool
    error: str = ""
    message: str = ""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedRecommendation:
    """A recommendation as it is given out. `held` means that it was concluded before and cannot be judged now."""

    id: str
    since: float
    recommendation: Recommendation
    held: bool = False
    snoozed: Snooze | None = None

    @property
    def alert_name(self) -> str:
        """`idle_reclaim` -> `GpuAdvisorIdleReclaim`: the alert's name, and its runbook's."""
        return "GpuAdvisor" + "".join(part.capitalize() for part in self.recommendation.kind.split("_"))

    @property
    def runbook(self) -> str:
        return f"{RUNBOOK_BASE_URL}/{self.alert_name}.md"


@dataclass(frozen=True, slots=True)
class View:
    """The last good evaluation, and whether it is still current."""

    cluster: str
    source: SourceStatus
    evaluation: Evaluation | None = None
    issued: tuple[PublishedRecommendation, ...] = ()
    duration_seconds: float | None = None
    evaluations: int = 0
    failures: tuple[tuple[str, int], ...] = ()
    outcomes: Outcomes = NO_OUTCOMES
    #: (GPU model, price per hour) as the settings have them
    prices: tuple[tuple[str, float], ...] = ()

    @property
    def stale(self) -> bool:
        return self.evaluation is not None and not self.source.up
