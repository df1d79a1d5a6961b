"""Replicas of a language model for its objectives: work per replica by its own curve, sized as other pools. Pure.

A replica's work is what it generates while 95 % of the time the requests running leave the inter-token latency within
its objective: of n running on average, n + 1.64 sqrt(n) at most (arrivals at random are Poisson distributed).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.headroom import Headroom
from gpu_advisor.evaluation.scaling.sizing import CountedDemand, ScalingLimits, SizingDecision, decide_size
from gpu_advisor.evaluation.serving.extrapolation import (
    CautiousCurve,
    cautious_curve,
    computed_share,
    delay_of_prompt_token,
)
from gpu_advisor.evaluation.serving.facts import DemandSample, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.prompt_delays import LENGTHS, Z99, Prompts, running_in_time, share_in_time
from gpu_advisor.evaluation.serving.step_model import StepModel
from gpu_advisor.evaluation.serving.surplus import busiest_window
from gpu_advisor.settings import EvaluationSettings

#: The 95th percentile of a normal distribution, in standard deviations.
Z95 = 1.645

#: The share of the KV cache that requests may fill, and of the time that prompts may take: beyond, first tokens queue.
KV_ROOM, PREFILL_ROOM = 0.9, 0.7

#: Requests whose mean is the present level of demand, and the least half-life of past demand in it (steps). Counters
#: miss no request, so that the last step of a busy server is its level. Utilization, which is sampled, and servers with
#: few requests need the half-life of the settings.
REQUESTS_OF_A_LEVEL, LEAST_HALF_LIFE_STEPS = 100.0, 0.25


def mean_below(most: float) -> float:
    """The mean of a Poisson distribution whose 95th percentile is `most`."""
    return max(0.0, (math.sqrt(most + Z95**2 / 4) - Z95 / 2) ** 2)


def work_per_replica(
    curve: StepModel | CautiousCurve, itl: float, prompt_ratio: float, running_for_full_cache: float = math.inf
) -> float | None:
    """Tokens per second that a replica generates within an inter-token latency (seconds); None if it serves none."""
    most = min(curve.largest(itl, prompt_ratio), KV_ROOM * running_for_full_cache)
    mean = mean_below(most) if math.isfinite(most) else most
    if mean < 1 or not math.isfinite(mean):
        return None
    work = curve.tokens_per_second(mean, prompt_ratio)
    prefill = prompt_ratio * curve.per_prompt_token
    return min(work, PREFILL_ROOM / prefill) if prefill > 0 else work


def group_work(group: ServingGroup, objectives: Objectives, cautious: bool = False) -> tuple[float, float] | None:
    """Work per replica (tokens per second) and mean tokens of an answer; None if the curve or a signal is missing.

    `cautious`: beyond the loads that the group has shown, on the safe side, and with what prompts add to latencies. An
    objective for 95 % is to hold in each window, not on average over windows: the work is that which keeps it for 99 %
    of the requests. First tokens are as late as they are, and wait for more prompts. What a window has shown needs no
    such reading: the windows that missed their objectives correct the work of a replica (missed_load).
    """
    lengths = mean_lengths(group)
    if group.curve is None or objectives.itl is None or lengths is None:
        return None
    output, prompt = lengths
    full = min((each for each in map(_running_for_full_cache, group.replicas)), default=math.inf)
    if not cautious:
        work = work_per_replica(group.curve, objectives.itl, prompt / output, full)
        return None if work is None else (work, output)
    curve = cautious_curve(group.curve, group.replicas, _history_seconds(group), KV_ROOM * full)
    delay = delay_of_prompt_token(group.curve, group.replicas, prompt)
    prompts = Prompts(prompt / output, prompt, delay, computed_share(group.replicas))
    work = work_per_replica(curve, objectives.itl, prompts.ratio, full)
    in_time = _work_in_time(curve, objectives.itl, prompts)
    first_tokens = _work_with_first_tokens_in_time(group, objectives.ttft, prompts)
    if work is None or in_time is None or first_tokens is None:
        return None
    return max(min(work, in_time, first_tokens), min(work, shown_work(group, output))), output


def shown_work(group: ServingGroup, output: float) -> float:
    """Tokens per second of a replica in the busiest window of the history; 0 without one.

    Less the error of its number of requests, which are a Poisson draw of the load (`output` tokens each).
    """
    each_replica = [
        replace(each, tokens_per_second=each.tokens_per_second / each.replicas)
        for each in group.demand
        if each.replicas > 0
    ]
    busiest = busiest_window(each_replica, group.window_seconds)
    requests = busiest * len(group.replicas) * group.window_seconds / output
    return busiest / (1 + Z99 * math.sqrt(LENGTHS / requests)) if requests > 0 else 0.0


def _work_in_time(curve: CautiousCurve, itl: float, prompts: Prompts) -> float | None:
    """Tokens per second with which 99 % of the requests keep an inter-token latency (seconds); None if none does."""
    most = running_in_time(curve, itl, prompts)
    if most < 1:
        return None
    return curve.tokens_per_second(most, prompts.ratio) if math.isfinite(most) else math.inf


def _work_with_first_tokens_in_time(group: ServingGroup, ttft: float | None, prompts: Prompts) -> float | None:
    """Tokens per second with which 99 % of the first tokens keep an objective (seconds); None if they are late already.

    They take as long as they do now, or, where that is unknown, as their prompts; and they wait for more prompts.
    """
    seconds = prompts.ratio * prompts.token_seconds
    if ttft is None or seconds <= 0:
        return math.inf
    known = [value for each in group.replicas if (value := each.value("ttft_p95")) is not None]
    rates = [value for each in group.replicas if (value := each.value("generation_token_rate")) is not None]
    # At an unknown share, all of a first token's time is taken to be its own, and the wait comes on top.
    share = sum(rates) / len(rates) * seconds if known and rates else 0.0
    first = max(known) if known else prompts.tokens * prompts.token_seconds
    if first >= ttft:
        return None
    return share_in_time(ttft, first, min(share, PREFILL_ROOM), prompts, PREFILL_ROOM) / seconds


def _history_seconds(group: ServingGroup) -> float:
    return group.at - group.demand[0].at if group.demand else 0.0


def mean_lengths(group: ServingGroup) -> tuple[float, float] | None:
    """Tokens of an answer and of a prompt, means of the replicas; None if unknown."""
    known = [
        (output, prompt)
        for each in group.replicas
        if (output := each.value("output_tokens")) and (prompt := each.value("prompt_tokens"))
    ]
    if not known:
        return None
    output, prompt = (sum(column) / len(known) for column in zip(*known, strict=True))
    return output, prompt


def _running_for_full_cache(replica: ServingReplica) -> float:
    running, used = replica.value("running"), replica.value("kv_usage")
    return running / used if running and used else math.inf


def demand_points(
    demand: Iterable[DemandSample], work: float, output: float, drain_seconds: float
) -> tuple[DemandPoint, ...]:
    """The demand in replicas' worth of work. Requests that wait are to be served within `drain_seconds`."""
    found = []
    for each in demand:
        needed = (each.tokens_per_second + each.waiting * output / drain_seconds) / work
        busy = min(1.0, needed / each.replicas) if each.replicas else 1.0
        found.append(DemandPoint(each.at, each.replicas, each.replicas, busy, needed))
    return tuple(found)


def size_group(
    group: ServingGroup,
    objectives: Objectives,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    headroom: Headroom | None = None,
) -> tuple[SizingDecision, float] | None:
    """How many replicas the group should have, and the work of one; None if that does not follow from its signals.

    A replica's work leaves the margin that the objective needs: no band of utilization adds another. Without
    `headroom`, it is that of the settings. Replicas are removed only if the others serve the load by a cautious
    reading of their curve, too: they get more than they have shown.
    """
    found = _size_by_work(group, group_work(group, objectives), limits, evaluation, at, headroom)
    if found is None or found[0].reason is not None or found[0].replicas >= len(group.replicas):
        return found
    cautious = _size_by_work(group, group_work(group, objectives, cautious=True), limits, evaluation, at, headroom)
    if cautious is None:  # nothing can be expected of a replica with more load
        return replace(found[0], replicas=len(group.replicas)), found[1]
    needed = max(found[0].replicas, min(len(group.replicas), cautious[0].replicas))
    return replace(cautious[0], replicas=needed), cautious[1]


def _size_by_work(
    group: ServingGroup,
    found: tuple[float, float] | None,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    headroom: Headroom | None,
) -> tuple[SizingDecision, float] | None:
    """The decision, and the work of a replica that it rests on."""
    if found is None or not group.demand:
        return None
    headroom = headroom or Headroom(evaluation.headroom_deviations)
    work, output = found[0] * headroom.work_ratio, found[1]
    drain = max(limits.start_delay_seconds, evaluation.step_seconds)
    recent = [each for each in group.demand if each.at > at - evaluation.history_seconds] or group.demand[-1:]
    points = demand_points((*group.demand[:1], *recent), work, output, drain)
    counted = CountedDemand(level_half_life_steps(recent, output, evaluation))
    decided = decide_size(points, len(group.replicas), limits.for_objective(), evaluation, at, 0, headroom, counted)
    return decided, work


def level_half_life_steps(demand: Sequence[DemandSample], output: float, evaluation: EvaluationSettings) -> float:
    """Steps with REQUESTS_OF_A_LEVEL requests, of the mean step; at most the half-life of the settings."""
    tokens = sum(each.tokens_per_second for each in demand) / len(demand)
    requests = tokens * evaluation.step_seconds / output
    most = evaluation.level_half_life_seconds / evaluation.step_seconds
    return min(most, max(LEAST_HALF_LIFE_STEPS, REQUESTS_OF_A_LEVEL / requests)) if requests > 0 else most
