"""Replicas of a language model over a week of requests: the advisor's sizing next to other policies.

    python -m benchmarks.serving_backtest [--seed 1]

The requests and the fleet are those of benchmarks/serving/week.py; --shape names others (benchmarks/serving/shapes.py).
A five-minute window meets the objectives if 95 % of its requests get their first token and their inter-token latency
within them. All policies have the same start-up time, minimum and maximum. The other autoscalers are in
benchmarks/serving/autoscalers.py.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from gpu_advisor.evaluation.scaling.headroom import SLO_HISTORY_SECONDS, TUNING_SECONDS, Headroom, TunedHeadroom
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.headroom import group_headroom
from gpu_advisor.evaluation.serving.sizing import size_group
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model
from gpu_advisor.observation.serving import HISTORY_WINDOW_STEPS
from gpu_advisor.settings import EvaluationSettings, PoolSettings

from benchmarks import common
from benchmarks.serving import shapes, week
from benchmarks.serving.autoscalers import Policy, autoscalers
from benchmarks.serving.draw import interval
from benchmarks.serving.week import Fleet, Scrape

GOAL_MET, GOAL_SAVING = 0.99, 0.20
MET_SHARE = 0.95

#: Scrapes of the window of a point of the advisor's history.
WINDOW_SCRAPES = HISTORY_WINDOW_STEPS * EvaluationSettings().step_seconds // week.STEP_SECONDS

#: Scrapes of a window of the objectives, and steps of the history that a tuning needs.
OBJECTIVE_SCRAPES = EvaluationSettings().window_seconds // week.STEP_SECONDS
DAY_STEPS = (SLO_HISTORY_SECONDS + TUNING_SECONDS) // EvaluationSettings().step_seconds

OBJECTIVES = Objectives(week.TTFT, week.ITL)


@dataclass
class Oracle:
    """Knows the rates to come, and how many replicas serve each within the objectives."""

    rates: list[float]

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        now = int(scrape.at) // week.STEP_SECONDS
        ahead = self.rates[now : now + week.START_DELAY_SECONDS // week.STEP_SECONDS + 2]
        peak = max(ahead, default=0.0)
        seconds = week.LOAD.output * interval(week.COST, week.LOAD, 0.9 * week.MAX_NUM_SEQS)
        return math.ceil((peak + 2 * math.sqrt(peak / week.STEP_SECONDS)) * seconds / (0.9 * week.MAX_NUM_SEQS))


@dataclass
class Advisor:
    """The advisor's own sizing, from what it would have scraped: a curve of the last hours, and a day's demand and
    latencies.

    The headroom is tuned to the objective of its `slo`, once an hour, unless the settings have one.
    """

    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    slo: str = "99%"
    points: deque[CurvePoint] = field(default_factory=lambda: deque(maxlen=240))
    demand: deque[DemandSample] = field(default_factory=lambda: deque(maxlen=DAY_STEPS))
    scrapes: deque[Scrape] = field(default_factory=lambda: deque(maxlen=WINDOW_SCRAPES))
    latencies: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=OBJECTIVE_SCRAPES))
    curve: StepModel | None = None
    headroom: Headroom | None = None
    decisions: list[SizingDecision] = field(default_factory=list)

    def see_requests(self, count: int, ttft: float, itl: float) -> None:
        """The latencies of a scrape's requests (seconds): servers publish their histograms."""
        self.latencies.append((count, ttft, itl))

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        self.scrapes.append(scrape)
        if scrape.at % self.settings.step_seconds:
            return fleet.total
        self._close_step(scrape.at)
        if self.curve is None or scrape.at % 3600 == 0:
            self.curve = fit_step_model(list(self.points))
        values = {
            "output_tokens": week.LOAD.output, "prompt_tokens": week.LOAD.prompt,
            "running": scrape.running / scrape.replicas, "kv_usage": scrape.kv_usage,
        }  # fmt: skip
        replica = ServingReplica("vllm", "j", "h", "m", values=values)
        group = ServingGroup(
            "vllm", "m", "", "", (replica,) * scrape.replicas, tuple(self.points), self.curve, scrape.at, 300.0,
            tuple(self.demand),
        )  # fmt: skip
        limits = ScalingLimits(week.MIN_REPLICAS, week.MAX_REPLICAS, 0.85, 0.6, week.START_DELAY_SECONDS)
        found = size_group(group, OBJECTIVES, limits, self.settings, scrape.at, self._tuned(group, limits, scrape.at))
        if found is None or found[0].reason:
            return fleet.total
        self.decisions.append(found[0])
        return found[0].replicas

    def _tuned(self, group: ServingGroup, limits: ScalingLimits, at: float) -> Headroom:
        """Within an hour, that of the last tuning; a new pool's, at each step."""
        is_new = not isinstance(self.headroom, TunedHeadroom) or self.headroom.missing_seconds > 0
        if is_new or at % TUNING_SECONDS == 0:
            by_hand = "headroom_deviations" in self.settings.model_fields_set
            stated = {} if by_hand else {"windows": self.slo}
            slo = {"ttft_p95": f"{week.TTFT}s", "itl_p95": f"{week.ITL}s", **stated}
            pool = PoolSettings.model_validate({"name": "m", "kind": "serving", "slo": slo})
            self.headroom = group_headroom(group, OBJECTIVES, pool, limits, self.settings, at)
        assert self.headroom is not None
        return self.headroom

    def _close_step(self, at: float) -> None:
        """What the advisor reads at the end of a step: rates and means of a longer window, queue and size of now."""
        found, last = list(self.scrapes), self.scrapes[-1]
        replicas = sum(each.replicas for each in found) / len(found)
        tokens = sum(each.tokens_per_second for each in found) / len(found)
        running = sum(each.running for each in found) / len(found) / replicas
        ttft, itl_p95 = (late(self.latencies, column) for column in (1, 2))
        self.demand.append(DemandSample(at, last.replicas, tokens, last.waiting, ttft, itl_p95))
        itl = sum(each.itl * each.tokens_per_second for each in found) / (len(found) * tokens) if tokens else 0.0
        if running > 0 and tokens > 0:
            beside = running * week.LOAD.prompt / week.LOAD.output
            self.points.append(CurvePoint(running, tokens / replicas, itl, beside))


def late(latencies: Iterable[tuple[int, float, float]], column: int) -> float | None:
    """The 95th percentile of a latency over the requests; None without any."""
    ordered = sorted(latencies, key=lambda each: -each[column])
    most = (1 - MET_SHARE) * sum(each[0] for each in ordered)
    seen = 0
    for each in ordered:
        seen += each[0]
        if seen > most:
            return each[column]
    return None


@dataclass(frozen=True)
class Outcome:
    met: float
    gpu_hours: float


def replay(policy: Policy, counts: list[int]) -> Outcome:
    fleet = Fleet(max(week.MIN_REPLICAS, 8))
    met = windows = 0
    good = total = 0
    per_window = week.WINDOW_SECONDS // week.STEP_SECONDS
    for step, count in enumerate(counts):
        at = float(step * week.STEP_SECONDS)
        scrape, ttft = fleet.advance(at, count)
        total += count
        good += count if ttft <= week.TTFT and scrape.itl <= week.ITL else 0
        if (step + 1) % per_window == 0:
            windows += 1
            met += good >= MET_SHARE * total
            good = total = 0
        if isinstance(policy, Advisor):
            policy.see_requests(count, ttft, scrape.itl)
        fleet.scale(scrape.at, policy.decide(scrape, fleet))
    return Outcome(met / windows, fleet.seconds_used / 3600)


Outcomes = Mapping[str, Outcome]

#: Headroom of the advisor's own frontier, in deviations; the second is the default.
HEADROOMS = (0.0, 3.5, 6.0)


def advisors() -> dict[str, Advisor]:
    default = EvaluationSettings().headroom_deviations
    return {
        "advisor" if each == default else f"advisor, headroom {each:g}": Advisor(
            EvaluationSettings(headroom_deviations=each)
        )
        for each in HEADROOMS
    }


def _named(found: Outcomes, prefix: str, without: str = "\n") -> Outcomes:
    return {name: each for name, each in found.items() if name.startswith(prefix) and without not in name}


def _compare(title: str, rivals: Outcomes, frontier: Mapping[str, Outcome]) -> float | None:
    """Print the rival that comes nearest to the goal and the cheapest that meets it; the GPU-hours saved next to it."""
    ours, least = frontier["advisor"], min(frontier.values(), key=lambda each: each.gpu_hours)
    name, best = max(rivals.items(), key=lambda pair: (pair[1].met, -pair[1].gpu_hours))
    at_equal = hours_at(list(frontier.values()), best.met)
    print(f"{title}: at most {best.met:.2%} ({name}, {best.gpu_hours:.0f} GPU-hours); for the same share, the advisor")
    if at_equal is None:
        print(f"  would need less than no headroom, with which it meets {least.met:.2%} in {least.gpu_hours:.0f}")
    else:
        print(f"  uses {at_equal:.0f}, by its own frontier")
    met = {name: each for name, each in rivals.items() if each.met >= GOAL_MET}
    if not met:
        return None
    name, rival = min(met.items(), key=lambda pair: pair[1].gpu_hours)
    saving = 1 - ours.gpu_hours / rival.gpu_hours
    print(f"  the cheapest that meets {GOAL_MET:.0%} is {name}: {rival.met:.2%} in {rival.gpu_hours:.0f} GPU-hours;")
    print(f"  the advisor's {ours.gpu_hours:.0f} are {saving:.1%} fewer")
    return saving


def hours_at(points: Sequence[Outcome], met: float) -> float | None:
    """GPU-hours at which a share of the windows is met, between two points of a frontier; None beyond it."""
    ordered = sorted(points, key=lambda each: each.met)
    for low, high in pairwise(ordered):
        if low.met <= met <= high.met:
            share = (met - low.met) / (high.met - low.met) if high.met > low.met else 0.0
            return low.gpu_hours + share * (high.gpu_hours - low.gpu_hours)
    return None


def account(advisor: Advisor, rates: Sequence[float], outcomes: Outcomes) -> list[tuple[str, float]]:
    """GPU-hours of the advisor, step by step from the demand to what it used."""
    busiest = week.MAX_NUM_SEQS / interval(week.COST, week.LOAD, week.MAX_NUM_SEQS)
    true = [max(week.MIN_REPLICAS, rate * week.LOAD.output / busiest) for rate in rates]
    hours = week.STEP_SECONDS / 3600
    decided = advisor.decisions
    sizes = [
        ("the demand, at the objective, in parts of replicas", hours * sum(true)),
        ("room for the requests of a moment, by the learned curve", _hours(each.level for each in decided)),
        ("rises until a new replica serves", _hours(each.expected for each in decided)),
        ("headroom for errors of the forecast", _hours(each.needed for each in decided)),
        ("whole replicas", _hours(math.ceil(each.needed or 0.0) for each in decided)),
        ("scaled down late: stabilization, small changes", outcomes["advisor"].gpu_hours),
    ]
    return [(sizes[0][0], sizes[0][1]), *((name, after - before) for (_, before), (name, after) in pairwise(sizes))]


def _hours(replicas: Iterable[float | None]) -> float:
    """Of a decision a step of the demand's history."""
    step = EvaluationSettings().step_seconds
    return sum(max(week.MIN_REPLICAS, each or 0.0) for each in replicas) * step / 3600


def shaped_rates(shape: str, seed: int, recorded: Path | None) -> list[float]:
    return shapes.SHAPES[shape](seed) if recorded is None else shapes.recorded_hours(seed, shapes.read_demand(recorded))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", choices=sorted(shapes.SHAPES), default="week")
    parser.add_argument("--recorded", type=Path, help="instead: a trace of the back-test, repeated with noise")
    options = parser.parse_args()
    rates = shaped_rates(options.shape, options.seed, options.recorded)
    counts = list(week.arrivals(options.seed, rates))
    ours_by_headroom = advisors()
    policies: dict[str, Policy] = {"oracle": Oracle(rates), **ours_by_headroom, **autoscalers()}
    found = {name: replay(policy, counts) for name, policy in policies.items()}
    rows = [(name, f"{each.met:.2%}", f"{each.gpu_hours:.0f}") for name, each in found.items()]
    print(common.table([("policy", "windows met", "GPU-hours"), *rows]))
    explained = account(ours_by_headroom["advisor"], rates, found)
    print(
        common.table([("the advisor's GPU-hours are for", ""), *((name, f"{hours:+.0f}") for name, hours in explained)])
    )
    ours = found["advisor"]
    frontier = {name: found[name] for name in ours_by_headroom}
    _compare("HPA on the queue, default behavior", _named(found, "HPA queue ", ","), frontier)
    savings = {
        metric: _compare(f"HPA on {metric}", _named(found, f"HPA {metric} "), frontier)
        for metric in ("queue", "running")
    }
    saving = savings["queue"]
    figure = "no HPA on the queue meets it" if saving is None else f"{saving:.0%}"
    goals = [
        common.Goal(f"{GOAL_MET:.0%} of the windows met", ours.met >= GOAL_MET, f"{ours.met:.2%}"),
        common.Goal(f"{GOAL_SAVING:.0%} fewer GPU-hours than HPA on the queue", saving is None or saving >= GOAL_SAVING,
                    figure),
    ]  # fmt: skip
    print(*goals, sep="\n")
    if options.shape == "week" and options.recorded is None:
        common.write("serving_backtest", {
            "seed": options.seed, "saving_ratio": saving, "saving_ratio_running": savings["running"],
            "account_gpu_hours": {name: round(hours, 1) for name, hours in explained},
            "policies": {name: {"met": round(each.met, 5), "gpu_hours": round(each.gpu_hours, 1)}
                         for name, each in found.items()},
        })  # fmt: skip
    return 1 if common.missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
