"""What a replica serves, and the share of its requests that miss an objective. Pure.

Shares of requests come from quantiles of histograms, linear between them in the logarithm of the time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives

#: How much requests differ in their mean inter-token latency, whatever the load (standard deviation, relative).
ITL_SPREAD = 0.015

#: Prompts that follow each other make runs of slow steps longer than one prompt's.
RUNS_IN_A_ROW = 1.5

#: The fewest tokens that a step of a prompt's computation takes, unless the prompt is shorter: servers' token budgets
#: are larger.
LEAST_BUDGET = 256

#: Standard deviations between the mean and the 95th percentile of a normal distribution.
Z95 = 1.645


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """One replica's load. `offered` is requests per second that arrive, `missed` the share of them that miss an
    objective."""

    replica: ServingReplica
    offered: float
    ttft_missed: float | None
    itl_missed: float | None
    missed: float | None

    def value(self, signal: str) -> float | None:
        return self.replica.value(signal)


def measure_load(replica: ServingReplica, objectives: Objectives, window: float) -> ReplicaLoad:
    finished = replica.value("request_rate") or 0.0
    queued = queue_growth(replica, window)
    offered = finished + queued
    ttft = None if objectives.ttft is None else _late(replica, "ttft", objectives.ttft)
    itl = None if objectives.itl is None else _itl_missed(replica, objectives.itl)
    known = [each for each in (ttft, itl) if each is not None]
    missed = None
    if known:
        met = math.prod(1 - each for each in known)
        missed = max(1 - met, queued / offered if offered else 0.0)
    return ReplicaLoad(replica, offered, ttft, itl, missed)


def queue_growth(replica: ServingReplica, window: float) -> float:
    """By how many requests per second the queue grows: its mean is that of the middle of the window."""
    mean, now = replica.value("waiting"), replica.value("waiting_now")
    return 0.0 if mean is None or now is None or mean < 1 else max(0.0, 2 * (now - mean) / window)


def _late(replica: ServingReplica, latency: str, objective: float) -> float | None:
    """The share of requests above an objective, by the latency's quantiles.

    Between them, shares are linear in the logarithm of the time: waiting times are skewed, and a straight line from an
    early median to a late tail counts too many as late."""
    points = [
        (share, value)
        for share, q in ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"))
        if (value := replica.value(f"{latency}_{q}")) is not None
    ]
    if not points:
        return None
    first, start = points[0]
    if start >= objective:
        return 1 - first * objective / start
    for (low, start), (high, end) in itertools.pairwise(points):
        if end > objective:
            known = math.log(objective / start) / math.log(end / start) if start > 0 else objective / end
            return 1 - (low + (high - low) * known)
    return (1 - points[-1][0]) / 3  # beyond the last quantile: an exponential tail


def _itl_missed(replica: ServingReplica, objective: float) -> float | None:
    """The share of requests whose mean inter-token latency is above the objective: as published, else by a normal
    distribution."""
    published = _late(replica, "request_itl", objective)
    if published is not None:
        return published
    mean = replica.value("itl_mean")
    if not mean:
        return None
    return 1 - _normal((objective / mean - 1) / itl_spread(replica))


def itl_spread(replica: ServingReplica) -> float:
    """Standard deviation of requests' mean inter-token latency, relative.

    Slow steps average out over a request's tokens. They come in runs, as many as a prompt is computed in: a request of
    few tokens meets a whole run or none.
    """
    mean, p95, tokens = (replica.value(name) for name in ("itl_mean", "itl_p95", "output_tokens"))
    if not mean or p95 is None or not tokens:
        return ITL_SPREAD
    prompt, step = replica.value("prompt_tokens"), replica.value("iteration_tokens")
    run = max(1.0, prompt / max(step, LEAST_BUDGET)) if prompt and step else 1.0
    of_step = max(0.0, p95 / mean - 1) / Z95
    return math.hypot(ITL_SPREAD, RUNS_IN_A_ROW * of_step * math.sqrt(min(1.0, run / max(1.0, tokens))))


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def share_of(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def token_demand(loads: Sequence[ReplicaLoad]) -> tuple[float, float] | None:
    """Generated tokens demanded per second, and prompt tokens per generated one; None without finished requests."""
    outputs = prompts = 0.0
    for each in loads:
        output, prompt = each.value("output_tokens"), each.value("prompt_tokens")
        if each.offered > 0 and (output is None or prompt is None):
            return None
        outputs += each.offered * (output or 0.0)
        prompts += each.offered * (prompt or 0.0)
    return (outputs, prompts / outputs) if outputs > 0 else None
