"""The stretch of time that a report is about, cut into equal steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

HOUR, DAY = 3600, 86400

#: Up to this length (seconds), steps of so many seconds. Half an hour is what a GPU has to do nothing for to be idle on
#: the dashboards; 5 minutes is what their utilization is a mean of.
STEP_BY_LENGTH = ((2 * DAY, 300), (14 * DAY, 1800), (60 * DAY, HOUR), (400 * DAY, 6 * HOUR), (400 * DAY, DAY))

MIN_REPORT_SECONDS, MAX_REPORT_SECONDS = STEP_BY_LENGTH[0][1], STEP_BY_LENGTH[-1][0]

#: A large fleet has longer steps, so that there are at most so many of all GPUs: each is some hundred bytes while it is
#: read, several times over, and the advisor that reads them has other work to do.
MAX_GPU_STEPS = 400_000


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """`points` steps, the last of which ends at `end` (seconds since 1970), a whole multiple of the step.

    A value at a point is of the step that ends there. Whole multiples, because PromQL's subqueries stand on these too:
    so a person can ask for the same sum.
    """

    end: float
    step_seconds: int
    points: int

    @property
    def start(self) -> float:
        return self.end - self.points * self.step_seconds

    @property
    def first(self) -> float:
        """Where the first step ends."""
        return self.start + self.step_seconds

    @property
    def step_hours(self) -> float:
        return self.step_seconds / HOUR

    def index(self, at: float) -> int:
        return round((at - self.first) / self.step_seconds)

    def time(self, index: int) -> float:
        return self.first + index * self.step_seconds


def period(now: float, since_seconds: float, gpus: int = 0) -> ReportPeriod:
    """The last `since_seconds` before `now`, in whole steps; `gpus` is about how many there are to be read.

    Raises ValueError, which tells the mend.
    """
    if not MIN_REPORT_SECONDS <= since_seconds <= MAX_REPORT_SECONDS:
        raise ValueError(
            f"a report is of 5 minutes (5m) to {MAX_REPORT_SECONDS // DAY} days ({MAX_REPORT_SECONDS // DAY}d)"
        )
    fitting = [step for longest, step in STEP_BY_LENGTH if since_seconds <= longest]
    step = next((step for step in fitting if gpus * ceil(since_seconds / step) <= MAX_GPU_STEPS), fitting[-1])
    return ReportPeriod(now // step * step, step, ceil(since_seconds / step))
