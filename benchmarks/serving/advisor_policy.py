"""The advisor's sizing as a policy of the back-test, and the one that knows the rates to come."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS, TUNING_SECONDS, Headroom, TunedHeadroom
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.headroom import group_headroom
from gpu_advisor.evaluation.serving.sizing import size_group
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model
from gpu_advisor.observation.serving import HISTORY_WINDOW_STEPS
from gpu_advisor.settings import EvaluationSettings, PoolSettings

from benchmarks.serving import week
from benchmarks.serving.draw import interval
from benchmarks.serving.week import Fleet, Scrape

#: The share of a window's requests that keep both objectives, if the window does.
MET_SHARE = 0.95

#: Scrapes of the window of a point of the advisor's history.
WINDOW_SCRAPES = HISTORY_WINDOW_STEPS * EvaluationSettings().step_seconds // week.STEP_SECONDS

#: Scrapes of a window of the objectives, and steps of the history that a tuning needs.
OBJECTIVE_SCRAPES = EvaluationSettings().window_seconds // week.STEP_SECONDS
DAY_STEPS = READ_SECONDS // EvaluationSettings().step_seconds

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
