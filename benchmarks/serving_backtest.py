"""Replicas of a language model over a week of requests: the advisor's sizing next to other policies.

    python -m benchmarks.serving_backtest [--seed 1]

The requests and the fleet are those of benchmarks/serving/week.py. A five-minute window meets the objectives if 95 % of
its requests get their first token and their inter-token latency within them. All policies have the same start-up time,
minimum and maximum. HPA: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale (tolerance of 10 %,
the highest of the last 300 s on the way down). llm-d's rule: KV cache below 0.8 and queue below 5, with 0.1 and 3 to
spare, a replica at a time (docs/saturation-analyzer.md of llm-d-workload-variant-autoscaler).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gpu_advisor.evaluation.scaling.sizing import ScalingLimits
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.sizing import size_group
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model
from gpu_advisor.settings import EvaluationSettings

from benchmarks import common
from benchmarks.serving import week
from benchmarks.serving.draw import interval
from benchmarks.serving.week import Fleet, Scrape

GOAL_MET, GOAL_SAVING = 0.99, 0.20
MET_SHARE = 0.95


class Policy(Protocol):
    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        """The number of replicas wanted after a scrape."""
        ...


@dataclass
class Hpa:
    """desired = sum of the metric / target; the highest desire of the stabilization window on the way down."""

    metric: Callable[[Scrape], float]
    target: float
    desires: deque[int] = field(default_factory=lambda: deque(maxlen=300 // week.STEP_SECONDS))

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        ratio = self.metric(scrape) / (self.target * scrape.replicas)
        desired = fleet.total if abs(ratio - 1) <= 0.1 else math.ceil(scrape.replicas * ratio)
        self.desires.append(desired)
        return max(desired, min(fleet.total, max(self.desires)))


@dataclass
class Saturation:
    """llm-d's analyser of saturation: every minute, one replica at a time, none while one starts."""

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        if scrape.at % 60 or fleet.pending:
            return fleet.total
        queue = scrape.waiting / scrape.replicas
        spare_kv, spare_queue = 0.8 - scrape.kv_usage, 5 - queue
        if spare_kv < 0.1 or spare_queue < 3:
            return fleet.total + 1
        fewer = scrape.replicas - 1
        if fewer >= 2 and 0.8 - scrape.kv_usage * scrape.replicas / fewer >= 0.1 and 5 - scrape.waiting / fewer >= 3:
            return fleet.total - 1
        return fleet.total


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
    """The advisor's own sizing, from what it would have scraped: a curve of the last hours, and a demand."""

    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    points: deque[CurvePoint] = field(default_factory=lambda: deque(maxlen=240))
    demand: deque[DemandSample] = field(default_factory=lambda: deque(maxlen=240))
    scrapes: list[Scrape] = field(default_factory=list)
    curve: StepModel | None = None

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
            "vllm", "m", "", "", (replica,) * fleet.total, tuple(self.points), self.curve, scrape.at, 300.0,
            tuple(self.demand),
        )  # fmt: skip
        limits = ScalingLimits(week.MIN_REPLICAS, week.MAX_REPLICAS, 0.85, 0.6, week.START_DELAY_SECONDS)
        found = size_group(group, Objectives(week.TTFT, week.ITL), limits, self.settings, scrape.at)
        return fleet.total if found is None or found[0].reason else found[0].replicas

    def _close_step(self, at: float) -> None:
        found, self.scrapes = self.scrapes, []
        replicas = sum(each.replicas for each in found) / len(found)
        tokens = sum(each.tokens_per_second for each in found) / len(found)
        running = sum(each.running for each in found) / len(found) / replicas
        waiting = sum(each.waiting for each in found) / len(found)
        self.demand.append(DemandSample(at, replicas, tokens, waiting))
        itl = sum(each.itl * each.tokens_per_second for each in found) / (len(found) * tokens) if tokens else 0.0
        if running > 0 and tokens > 0:
            beside = running * week.LOAD.prompt / week.LOAD.output
            self.points.append(CurvePoint(running, tokens / replicas, itl, beside))


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
        fleet.scale(scrape.at, policy.decide(scrape, fleet))
    return Outcome(met / windows, fleet.seconds_used / 3600)


def _saving(ours: Outcome, found: dict[str, Outcome], rivals: str) -> float | None:
    """The GPU-hours saved next to the cheapest rival that meets the goal; None if none does."""
    hours = [each.gpu_hours for name, each in found.items() if name.startswith(rivals) and each.met >= GOAL_MET]
    return 1 - ours.gpu_hours / min(hours) if hours else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts, rates = list(week.arrivals(options.seed)), week.request_rates(options.seed)
    policies: list[tuple[str, Policy]] = [
        ("oracle", Oracle(rates)),
        ("advisor", Advisor()),
        ("llm-d's saturation", Saturation()),
        *((f"HPA queue {target:g}", Hpa(lambda each: each.waiting, target)) for target in (0.1, 1, 10, 100, 300, 1000)),
        *((f"HPA running {target:g}", Hpa(lambda each: each.running, target)) for target in (30, 40, 43, 46, 50, 60)),
        *((f"HPA running and waiting {target:g}", Hpa(lambda each: each.running + each.waiting, target))
          for target in (40, 43, 46, 50)),
    ]  # fmt: skip
    found = {name: replay(policy, counts) for name, policy in policies}
    rows = [(name, f"{each.met:.2%}", f"{each.gpu_hours:.0f}") for name, each in found.items()]
    print(common.table([("policy", "windows met", "GPU-hours"), *rows]))
    ours = found["advisor"]
    saving, saving_running = (_saving(ours, found, f"HPA {metric}") for metric in ("queue", "running"))
    queue = max((each for name, each in found.items() if name.startswith("HPA queue")), key=lambda each: each.met)
    figure = f"no threshold of the queue meets it, the nearest {queue.met:.0%} of the windows"
    if saving is not None:
        figure = f"{saving:.0%}"
    if saving_running is not None:
        print(f"{saving_running:.1%} fewer than the best target of an HPA on running requests, known only afterwards")
    goals = [
        common.Goal(f"{GOAL_MET:.0%} of the windows met", ours.met >= GOAL_MET, f"{ours.met:.2%}"),
        common.Goal(f"{GOAL_SAVING:.0%} fewer GPU-hours than HPA on the queue", saving is None or saving >= GOAL_SAVING,
                    figure),
    ]  # fmt: skip
    print(*goals, sep="\n")
    common.write("serving_backtest", {
        "seed": options.seed, "saving_ratio": saving, "saving_ratio_running": saving_running,
        "policies": {name: {"met": round(each.met, 5), "gpu_hours": round(each.gpu_hours, 1)}
                     for name, each in found.items()},
    })  # fmt: skip
    return 1 if common.missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
