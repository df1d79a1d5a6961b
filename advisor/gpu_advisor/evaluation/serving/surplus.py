"""Whether fewer replicas would serve the load and more: latencies, cache and requests running, as shares. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gpu_advisor.evaluation.serving.extrapolation import most_running
from gpu_advisor.evaluation.serving.facts import DemandSample
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.loads import Z95, ReplicaLoad, token_demand
from gpu_advisor.evaluation.serving.prompt_delays import LENGTHS, Z99, running_spread
from gpu_advisor.evaluation.serving.step_model import StepModel

#: Growth of load that fewer replicas must still serve.
GROWTH = 1.2

#: Of fewer replicas.
SURPLUS_FEATURES = ("itl", "computed_itl", "peak_itl", "ttft", "kv", "limit", "beyond")

#: The 99th percentile by the 95th of an exponential distribution.
P99_BY_P95 = math.log(100) / math.log(20)


def surplus_features(
    group: ServingGroup, loads: Sequence[ReplicaLoad], objectives: Objectives
) -> dict[str, float | None]:
    """Of half of the replicas, and of one fewer, with more load: latency and cache as shares of their limits."""
    count = len(loads)
    found: dict[str, float | None] = {"curve_error": None if group.curve is None else group.curve.error_ratio}
    found["doubled_step"] = _doubled_step(group.curve, loads)
    for name, fewer in (("half", math.ceil(count / 2)), ("fewer", count - 1)):
        surplus = _fewer_replicas(group, loads, fewer, objectives) if 0 < fewer < count else {}
        found |= {f"{name}_{key}": surplus.get(key) for key in SURPLUS_FEATURES}
    return found


def _doubled_step(curve: StepModel | None, loads: Sequence[ReplicaLoad]) -> float | None:
    """How many times as long a step of decoding takes with twice the requests, of the mean replica."""
    running = [value for each in loads if (value := each.value("running")) is not None]
    if curve is None or len(running) != len(loads):
        return None
    mean = max(1.0, sum(running) / len(running))
    single = curve.itl(mean, 0.0)
    return curve.itl(2 * mean, 0.0) / single if single > 0 else None


def _fewer_replicas(
    group: ServingGroup, loads: Sequence[ReplicaLoad], replicas: int, objectives: Objectives
) -> dict[str, float | None]:
    """So many replicas with a fifth more than the load, and than the busiest window of the history, or with the most
    that a step of it knows.

    `itl`, the 99th percentile of requests' inter-token latency, `computed_itl`, that with the computation of the tokens
    beyond the load seen, and `peak_itl`, that at a peak like the window's, as shares of the objective; `ttft`, the same
    of the time to the first token; `kv`, the share of the cache that the 95th percentile fills (a request that finds it
    full waits); `limit`, the share of the requests that a server runs at most; `beyond`, the settled load by the most
    that the curve has seen. Longer steps keep requests longer, too.
    """
    curve, totals = group.curve, token_demand(loads)
    if curve is None or totals is None:
        return {}
    demand, ratio = totals
    busiest = busiest_window(group.demand, group.window_seconds)
    growth = max(
        GROWTH * (1 + _load_error(group, loads)),
        GROWTH * busiest / demand,
        max((each.tokens_per_second for each in group.demand), default=0.0) / demand,
    )
    now, then = (curve.settled_itl(each, ratio) for each in (demand / len(loads), growth * demand / replicas))
    if not math.isfinite(now) or not math.isfinite(then):
        return dict.fromkeys(SURPLUS_FEATURES, math.inf)
    running = growth * demand / replicas * then
    varied = running_spread(curve.base, running, then)
    found: dict[str, float | None] = {"beyond": running / curve.seen if curve.seen > 0 else None}
    prefill = growth * demand / replicas * ratio * curve.per_prompt_token
    if objectives.itl is not None:
        slower = varied * (then - curve.base) / then
        beside = prefill * math.sqrt(LENGTHS / running)
        longest = (1 + Z99 * math.hypot(slower, beside)) / objectives.itl
        computed = _computed_itl(curve, growth * demand / replicas, ratio)
        found |= {"itl": longest * then, "computed_itl": None if computed is None else longest * computed}
        peak = _peak(loads)
        found["peak_itl"] = None if peak is None else curve.itl(running * peak, ratio) / objectives.itl
    found["limit"] = running * (1 + Z99 * varied) / most_running(group.replicas)
    late = [value for each in loads if (value := each.value("ttft_p95")) is not None]
    if objectives.ttft is not None and late:
        busy = demand / len(loads) * ratio * curve.per_prompt_token
        longer = (1 - busy) / (1 - prefill) if prefill < 1 else math.inf
        found["ttft"] = max(late) * P99_BY_P95 * longer / objectives.ttft
    used = [each.value("kv_usage") for each in loads]
    known = [value for value in used if value is not None]
    if len(known) == len(used) and running > 0:
        mean = sum(known) * growth * then / now / replicas
        found["kv"] = mean * (1 + Z95 * varied * math.sqrt(LENGTHS))
    return found


def _computed_itl(curve: StepModel, demand: float, ratio: float) -> float | None:
    """Seconds between tokens once a load beyond those seen has settled, if each sequence beyond them costs its
    computation, which is that of a token of a prompt; None if that is unknown. At little load the time to read the
    weights hides it (https://arxiv.org/abs/2211.05102, section 2).
    """
    token = curve.per_prompt_token
    if token <= 0:
        return None
    base = max(0.0, curve.base - curve.seen * token)
    steeper = replace(curve, base=base, per_sequence=curve.per_sequence + token)
    return max(curve.settled_itl(demand, ratio), steeper.settled_itl(demand, ratio))


def busiest_window(demand: Sequence[DemandSample], seconds: float) -> float:
    """The most tokens per second over a window of so many seconds: the mean of its steps; 0 without a full one."""
    most = total = 0.0
    first = 0
    for number, each in enumerate(demand):
        total += each.tokens_per_second
        while demand[first].at <= each.at - seconds:
            total -= demand[first].tokens_per_second
            first += 1
        if first:
            most = max(most, total / (number + 1 - first))
    return most


def _load_error(group: ServingGroup, loads: Sequence[ReplicaLoad]) -> float:
    """By how much the load may be higher than the window shows, relative: its requests are a Poisson draw."""
    requests = sum(each.offered for each in loads) * group.window_seconds
    return Z95 / math.sqrt(requests) if requests > 0 else math.inf


def _peak(loads: Sequence[ReplicaLoad]) -> float | None:
    """The most requests running by their mean; None if a replica reports neither, 1 if none runs."""
    pairs = [(each.value("running"), each.value("running_max")) for each in loads]
    known = [(mean, most) for mean, most in pairs if mean is not None and most is not None]
    if len(known) < len(pairs):
        return None
    total = sum(mean for mean, _ in known)
    return sum(most for _, most in known) / total if total > 0 else 1.0
