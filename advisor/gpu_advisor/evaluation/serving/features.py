"""What the decision table looks at: a group's numbers, most of them ratios to an objective. Pure.

Each feature is None if a signal that it needs is missing. Shares of requests come from quantiles of histograms, linear
between them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.step_model import StepModel

Features = Mapping[str, float | None]

#: How much requests differ in their mean inter-token latency, whatever the load (standard deviation, relative).
ITL_SPREAD = 0.015

#: Prompts that follow each other make runs of slow steps longer than one prompt's.
RUNS_IN_A_ROW = 1.5

#: The fewest tokens that a step of a prompt's computation takes, unless the prompt is shorter: servers' token budgets
#: are larger.
LEAST_BUDGET = 256

#: Standard deviations between mean and 95th percentile, and 99th, of a normal distribution.
Z95, Z99 = 1.645, 2.326

#: A replica that lacks this share of the window's samples began within it, if its process is no older than the window
#: and the longest start (seconds): loading a model takes long, and a page that is scraped in vain lacks samples, too.
LATE_RATIO, LONGEST_START_SECONDS = 0.1, 3600.0

#: Growth of load that fewer replicas must still serve, and the share of the KV cache that sequences may fill.
GROWTH, KV_ROOM = 1.2, 0.9

#: Of fewer replicas.
SURPLUS_FEATURES = ("itl", "peak_itl", "ttft", "kv", "limit", "beyond")

#: The mean square of a prompt's length by the square of its mean: lengths within a factor of two of each other.
LENGTHS = 1.2

#: The 99th percentile by the 95th of an exponential distribution.
P99_BY_P95 = math.log(100) / math.log(20)

#: Requests that a server runs at most where it exposes no limit: the default of vLLM's --max-num-seqs
#: (https://docs.vllm.ai/en/v0.5.0/models/engine_args.html).
DEFAULT_LIMIT = 256.0


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
    queued = _queue_growth(replica, window)
    offered = finished + queued
    ttft = None if objectives.ttft is None else _ttft_missed(replica, objectives.ttft)
    itl = None if objectives.itl is None else _itl_missed(replica, objectives.itl)
    known = [each for each in (ttft, itl) if each is not None]
    missed = None
    if known:
        met = math.prod(1 - each for each in known)
        missed = max(1 - met, queued / offered if offered else 0.0)
    return ReplicaLoad(replica, offered, ttft, itl, missed)


def _queue_growth(replica: ServingReplica, window: float) -> float:
    """By how many requests per second the queue grows: its mean is that of the middle of the window."""
    mean, now = replica.value("waiting"), replica.value("waiting_now")
    return 0.0 if mean is None or now is None or mean < 1 else max(0.0, 2 * (now - mean) / window)


def _ttft_missed(replica: ServingReplica, objective: float) -> float | None:
    """Between quantiles, shares are linear in the logarithm of the time: waiting times are skewed, and a straight line
    from an early median to a late tail counts too many as late."""
    points = [
        (share, value)
        for share, signal in ((0.5, "ttft_p50"), (0.9, "ttft_p90"), (0.95, "ttft_p95"))
        if (value := replica.value(signal)) is not None
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
    """The share of requests whose mean inter-token latency is above the objective: a normal distribution."""
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


def group_features(group: ServingGroup, objectives: Objectives) -> tuple[dict[str, float | None], ReplicaLoad]:
    """The features, and the replica that is pressed most, to which those of one replica belong."""
    loads = [measure_load(each, objectives, group.window_seconds) for each in group.replicas]
    pressed = max(loads, key=lambda each: ((each.missed or 0.0) * each.offered, each.value("waiting") or 0.0))
    features: dict[str, float | None] = {
        "missed": _weighted_miss(loads),
        "replicas": float(len(loads)),
        "started": float(sum(1 for each in group.replicas if _started_in_window(each, group))),
    }
    features["missed_at_most"] = features["missed"] if _all_known(loads, objectives) else None
    features |= _pressure(pressed)
    features["mean_kv_usage"] = _mean([each.value("kv_usage") for each in loads])
    features["pressed"] = features["missed"] if features["missed"] is not None else features["queue_share"]
    features |= _relief(group, pressed, objectives)
    features |= _spread(group, loads, objectives)
    features |= _surplus(group, loads, objectives)
    features |= _prefix_cache(group.replicas)
    return features, pressed


def _all_known(loads: Sequence[ReplicaLoad], objectives: Objectives) -> bool:
    """Whether every replica with requests reports each latency that has an objective: else, more may be missed."""
    return all(
        (objectives.ttft is None or each.ttft_missed is not None)
        and (objectives.itl is None or each.itl_missed is not None)
        for each in loads
        if each.offered > 0
    )


def missed_ratio(group: ServingGroup, objectives: Objectives) -> float | None:
    """The share of a group's requests that miss an objective (0..1); None without one, or without its signals."""
    return _weighted_miss([measure_load(each, objectives, group.window_seconds) for each in group.replicas])


def _weighted_miss(loads: Sequence[ReplicaLoad]) -> float | None:
    known = [(each.missed, each.offered) for each in loads if each.missed is not None]
    offered = sum(weight for _, weight in known)
    return sum(missed * weight for missed, weight in known) / offered if offered > 0 else None


def _started_in_window(replica: ServingReplica, group: ServingGroup) -> bool:
    """Whether it began to serve within the window: its page is younger than the others', and its process is new."""
    samples, most = replica.value("samples"), max((each.value("samples") or 0.0) for each in group.replicas)
    if samples is None or samples > (1 - LATE_RATIO) * most:
        return False
    return replica.started is None or replica.started > group.at - group.window_seconds - LONGEST_START_SECONDS


def _pressure(load: ReplicaLoad) -> dict[str, float | None]:
    value = load.value
    running, waiting, highest = value("running"), value("waiting"), value("running_max")
    finished, preempted = value("request_rate"), value("preemption_rate")
    return {
        "waiting": waiting,
        "backlog": _ratio(value("waiting_now"), running),
        "queue_share": None if waiting is None or not running else waiting / (running + waiting),
        "plateau": _ratio(running if (usual := value("running_p50")) is None else usual, highest),
        "kv_usage": value("kv_usage"),
        "kv_usage_max": value("kv_usage_max"),
        "preemptions": None if preempted is None or not finished else preempted / finished,
        "ttft_missed": load.ttft_missed,
        "itl_missed": load.itl_missed,
        "offered": load.offered,
        **_executions(load),
    }


def _executions(load: ReplicaLoad) -> dict[str, float | None]:
    """Of a server that computes requests as a whole (embeddings, images): what waits, in mean executions, and the share
    of a request's time that it waits. A language model's batch changes at each token: None."""
    value = load.value
    if value("generation_token_rate") is not None or value("itl_mean") is not None or value("kv_usage") is not None:
        return dict.fromkeys(("executions_waiting", "queue_time_share"))
    waiting, batch = value("waiting"), value("batch")
    return {
        "executions_waiting": _ratio(waiting, batch),
        "queue_time_share": _ratio(value("queue_seconds"), value("request_seconds")),
    }


def _relief(group: ServingGroup, load: ReplicaLoad, objectives: Objectives) -> dict[str, float | None]:
    """Latencies if something were relaxed, as shares of their objectives."""
    names = ("itl_load", "lone_itl", "free_itl", "fast_prefill_itl", "fast_decode_itl", "prefill_share", "itl_stall",
             "ttft_body", "ttft_tail", "prompt_share", "peak_itl", "stalls", "computing_share", "queue_load",
             "prefill_load", "longest_prefill", "ttft_spread", "itl_spread")  # fmt: skip
    found: dict[str, float | None] = dict.fromkeys(names)
    value = load.value
    itl, ttft = value("itl_mean"), value("ttft_p50")
    if objectives.ttft is not None:
        for name, signal in (("ttft_body", "ttft_p50"), ("ttft_tail", "ttft_p90"), ("itl_stall", "itl_p99")):
            signal_value = value(signal)
            found[name] = None if signal_value is None else signal_value / objectives.ttft
    found |= _first_token(load, objectives)
    if itl is None or ttft is None:
        return found
    tokens, steps, generated = value("iteration_tokens"), value("iteration_rate"), value("generation_token_rate")
    found["stalls"] = None if steps is None else steps * itl
    if tokens and steps and generated is not None:  # of the requests running, some still compute their prompts
        found["prompt_share"] = max(0.0, 1 - generated / (steps * tokens))
    if objectives.itl is not None:
        found["itl_load"] = itl / objectives.itl
    curve, output, prompt = group.curve, value("output_tokens"), value("prompt_tokens")
    if curve is None or not output or not prompt:
        return found
    demand, ratio = load.offered * output, prompt / output
    found["prefill_share"] = load.offered * prompt * curve.per_prompt_token
    if objectives.itl is not None:
        highest = value("running_max")
        found["peak_itl"] = None if highest is None else curve.itl(highest, ratio) / objectives.itl
        found["lone_itl"] = curve.itl(1.0, 0.0) / objectives.itl
        found["free_itl"] = curve.settled_itl(demand, ratio) / objectives.itl
        found["fast_prefill_itl"] = curve.settled_itl(demand, ratio, prefill=4.0) / objectives.itl
        found["fast_decode_itl"] = curve.settled_itl(demand, ratio, decode=2.0) / objectives.itl
    return found


def _first_token(load: ReplicaLoad, objectives: Objectives) -> dict[str, float | None]:
    """What a first token waits for: a place in the batch, or its prompt's computation; and how much latencies vary."""
    found: dict[str, float | None] = {}
    queued, computing = load.value("queue_seconds"), load.value("prefill_seconds")
    if queued is not None and computing is not None and queued + computing > 0:
        found["computing_share"] = computing / (queued + computing)
    if objectives.ttft is not None:
        found["queue_load"] = None if queued is None else queued / objectives.ttft
        found["prefill_load"] = None if computing is None else computing / objectives.ttft
        found["longest_prefill"] = _ratio(load.value("prefill_p99"), objectives.ttft)
    found["ttft_spread"] = _ratio(load.value("ttft_p90"), load.value("ttft_p50"))
    found["itl_spread"] = _ratio(load.value("itl_p95"), load.value("itl_mean"))
    return found


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _spread(group: ServingGroup, loads: Sequence[ReplicaLoad], objectives: Objectives) -> dict[str, float | None]:
    """How uneven replicas are, and the latency of all if they were even."""
    running = [value for each in loads if (value := each.value("running")) is not None]
    found: dict[str, float | None] = {"unevenness": None, "even_itl": None}
    if len(running) == len(loads) >= 2 and sum(running) > 0:
        found["unevenness"] = max(running) / (sum(running) / len(running))
        found["even_itl"] = _even_itl(group.curve, loads, objectives)
    return found


def _even_itl(curve: StepModel | None, loads: Sequence[ReplicaLoad], objectives: Objectives) -> float | None:
    """The share of the inter-token latency's objective with the load spread evenly."""
    totals = _totals(loads)
    if curve is None or totals is None or objectives.itl is None:
        return None
    demand, ratio = totals
    return curve.settled_itl(demand / len(loads), ratio) / objectives.itl


def _totals(loads: Sequence[ReplicaLoad]) -> tuple[float, float] | None:
    """Generated tokens demanded per second, and prompt tokens per generated one; None without finished requests."""
    outputs = prompts = 0.0
    for each in loads:
        output, prompt = each.value("output_tokens"), each.value("prompt_tokens")
        if each.offered > 0 and (output is None or prompt is None):
            return None
        outputs += each.offered * (output or 0.0)
        prompts += each.offered * (prompt or 0.0)
    return (outputs, prompts / outputs) if outputs > 0 else None


def _surplus(group: ServingGroup, loads: Sequence[ReplicaLoad], objectives: Objectives) -> dict[str, float | None]:
    """Of half of the replicas, and of one fewer, with more load: latency and cache as shares of what there is."""
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
    """So many replicas with the load and a fifth more, or with the most that the history knows.

    `itl`, the 99th percentile of requests' inter-token latency, and `peak_itl`, that at a peak like the window's, as
    shares of the objective; `ttft`, the same of the time to the first token; `kv`, the share of the cache that the
    99th percentile fills; `limit`, the share of the requests that a server runs at most; `beyond`, the settled load by
    the most that the curve has seen. Longer steps keep requests longer, too.
    """
    curve, totals = group.curve, _totals(loads)
    if curve is None or totals is None:
        return {}
    demand, ratio = totals
    growth = max(
        GROWTH * (1 + _load_error(group, loads)),
        max((each.tokens_per_second for each in group.demand), default=0.0) / demand,
    )
    now, then = (curve.settled_itl(each, ratio) for each in (demand / len(loads), growth * demand / replicas))
    if not math.isfinite(now) or not math.isfinite(then):
        return dict.fromkeys(SURPLUS_FEATURES, math.inf)
    running = growth * demand / replicas * then
    varied = _running_spread(curve, running, then)
    found: dict[str, float | None] = {"beyond": running / curve.seen if curve.seen > 0 else None}
    prefill = growth * demand / replicas * ratio * curve.per_prompt_token
    if objectives.itl is not None:
        slower = varied * (then - curve.base) / then
        beside = prefill * math.sqrt(LENGTHS / running)
        found["itl"] = then * (1 + Z99 * math.hypot(slower, beside)) / objectives.itl
        found["peak_itl"] = curve.itl(running * _peak(loads), ratio) / objectives.itl
    found["limit"] = running * (1 + Z99 * varied) / _most_running(group)
    late = [value for each in loads if (value := each.value("ttft_p95")) is not None]
    if objectives.ttft is not None and late:
        busy = demand / len(loads) * ratio * curve.per_prompt_token
        longer = (1 - busy) / (1 - prefill) if prefill < 1 else math.inf
        found["ttft"] = max(late) * P99_BY_P95 * longer / objectives.ttft
    used = [each.value("kv_usage") for each in loads]
    known = [value for value in used if value is not None]
    if len(known) == len(used) and running > 0:
        mean = sum(known) * growth * then / now / replicas
        found["kv"] = mean * (1 + Z99 * varied * math.sqrt(LENGTHS))
    return found


def _load_error(group: ServingGroup, loads: Sequence[ReplicaLoad]) -> float:
    """By how much the load may be higher than the window shows, relative: its requests are a Poisson draw."""
    requests = sum(each.offered for each in loads) * group.window_seconds
    return Z95 / math.sqrt(requests) if requests > 0 else math.inf


def _running_spread(curve: StepModel, running: float, itl: float) -> float:
    """The standard deviation of requests running, relative to their mean.

    With steps of one length it is Poisson's. Where each further request lengthens the steps of all, a deviation lasts
    longer: of a birth-death process whose rates are linear around its mean, the variance is the mean x (step / base).
    Source: https://en.wikipedia.org/wiki/Birth%E2%80%93death_process (detailed balance, to the second order).
    """
    stretched = itl / curve.base if curve.base > 0 else math.inf
    return math.sqrt(stretched / running) if running > 0 else math.inf


def _most_running(group: ServingGroup) -> float:
    """The requests that a replica runs at a time: what it exposes, or what servers are set to by default."""
    exposed = [value for each in group.replicas if (value := each.value("max_num_seqs"))]
    return min(exposed, default=DEFAULT_LIMIT)


def _peak(loads: Sequence[ReplicaLoad]) -> float:
    """The most requests running by their mean; 1 if unknown."""
    pairs = [(each.value("running"), each.value("running_max")) for each in loads]
    known = [(mean, most) for mean, most in pairs if mean is not None and most is not None]
    total = sum(mean for mean, _ in known)
    return sum(most for _, most in known) / total if total > 0 else 1.0


def _prefix_cache(replicas: Sequence[ServingReplica]) -> dict[str, float | None]:
    """Tokens found in the prefix cache per token computed; None if nothing is looked up."""
    queries = [value for each in replicas if (value := each.value("prefix_query_rate")) is not None]
    hits = [value for each in replicas if (value := each.value("prefix_hit_rate")) is not None]
    looked_up = sum(queries)
    return {"prefix_lookups": looked_up or None, "prefix_hits": sum(hits) / looked_up if looked_up and hits else None}
