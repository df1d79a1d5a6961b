"""What a policy of the back-test gave: windows that kept the objectives, and GPU-hours, by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.serving import week
from benchmarks.serving.advisor_policy import MET_SHARE, Advisor
from benchmarks.serving.autoscalers import Policy
from benchmarks.serving.week import Fleet


@dataclass(frozen=True)
class Outcome:
    """Windows met as a share (0..1)."""

    met: float
    gpu_hours: float


@dataclass(frozen=True)
class Days:
    """By day: how many windows met the objectives, and GPU-hours."""

    met: tuple[int, ...]
    gpu_hours: tuple[float, ...]

    def outcome(self, first: int = 0, last: int = week.DAYS) -> Outcome:
        """From the day `first` up to, not including, `last`; 0 is the first."""
        met, hours = self.met[first:last], self.gpu_hours[first:last]
        return Outcome(sum(met) / (len(met) * week.DAY_SECONDS / week.WINDOW_SECONDS), sum(hours))


Outcomes = Mapping[str, Outcome]


def replay(policy: Policy, counts: Sequence[int]) -> Days:
    """A week of requests, `counts` in each step."""
    fleet = Fleet(max(week.MIN_REPLICAS, 8))
    days = -(-len(counts) * week.STEP_SECONDS // week.DAY_SECONDS)
    met, hours = [0] * days, [0.0] * days
    good = total = 0
    per_window = week.WINDOW_SECONDS // week.STEP_SECONDS
    for step, count in enumerate(counts):
        at, used = float(step * week.STEP_SECONDS), fleet.seconds_used
        day = int(at // week.DAY_SECONDS)
        scrape, ttft = fleet.advance(at, count)
        total += count
        good += count if ttft <= week.TTFT and scrape.itl <= week.ITL else 0
        if (step + 1) % per_window == 0:
            met[day] += good >= MET_SHARE * total
            good = total = 0
        if isinstance(policy, Advisor):
            policy.see_requests(count, ttft, scrape.itl)
        fleet.scale(scrape.at, policy.decide(scrape, fleet))
        hours[day] += (fleet.seconds_used - used) / 3600
    return Days(tuple(met), tuple(hours))


def nearest(found: Outcomes, goal: float) -> str:
    """The cheapest that meets the goal; if none does, the one that comes nearest."""
    met = {name: each for name, each in found.items() if each.met >= goal}
    if met:
        return min(met, key=lambda name: met[name].gpu_hours)
    return max(found, key=lambda name: (found[name].met, -found[name].gpu_hours))


def hours_at(points: Sequence[Outcome], met: float) -> float | None:
    """GPU-hours at which a share of the windows is met, between two points of a frontier; None beyond it."""
    ordered = sorted(points, key=lambda each: each.met)
    for low, high in pairwise(ordered):
        if low.met <= met <= high.met:
            share = (met - low.met) / (high.met - low.met) if high.met > low.met else 0.0
            return low.gpu_hours + share * (high.gpu_hours - low.gpu_hours)
    return None
