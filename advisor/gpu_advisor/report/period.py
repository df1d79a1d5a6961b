"""The period of a report, divided into equal steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

HOUR, DAY = 3600, 86400

#: Longest period and step, in seconds. On the dashboards a GPU is idle after half an hour without work, and utilization
#: is a mean over 5 minutes.
STEP_BY_LENGTH = ((2 * DAY, 300), (14 * DAY, 1800), (60 * DAY, HOUR), (400 * DAY, 6 * HOUR), (400 * DAY, DAY))

MIN_REPORT_SECONDS, MAX_REPORT_SECONDS = STEP_BY_LENGTH[0][1], STEP_BY_LENGTH[-1][0]

#: Steps times GPUs; a large fleet gets longer steps. Each takes some hundred bytes several times over while it is read.
MAX_GPU_STEPS = 400_000


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """`points` steps; the last ends at `end` (Unix time), a whole multiple of the step.

    A value belongs to the step that ends at its time. PromQL subqueries are aligned to multiples too, so that a person
    can query the same sum.
    """

    end: float
    step_seconds: int
    points: int

    @property
    def start(self) -> float:
        return self.end - self.points * self.step_seconds

    @property
    def first(self) -> float:
        """The end of the first step."""
        return self.start + self.step_seconds

    @property
    def step_hours(self) -> float:
        return self.step_seconds / HOUR

    def before(self) -> ReportPeriod:
        """The period of the same length before."""
        return ReportPeriod(self.start, self.step_seconds, self.points)

    def index(self, at: float) -> int:
        return round((at - self.first) / self.step_seconds)

    def time(self, index: int) -> float:
        return self.first + index * self.step_seconds


def report_period(now: float, since_seconds: float, gpus: int = 0) -> ReportPeriod:
    """The last `since_seconds` before `now`, in whole steps; `gpus` is about how many will be read.

    Raises ValueError with the valid range.
    """
    if not MIN_REPORT_SECONDS <= since_seconds <= MAX_REPORT_SECONDS:
        raise ValueError(
            f"a report covers 5 minutes (5m) to {MAX_REPORT_SECONDS // DAY} days ({MAX_REPORT_SECONDS // DAY}d)"
        )
    fitting = [step for longest, step in STEP_BY_LENGTH if since_seconds <= longest]
    step = next((step for step in fitting if gpus * ceil(since_seconds / step) <= MAX_GPU_STEPS), fitting[-1])
    return ReportPeriod(now // step * step, step, ceil(since_seconds / step))
