"""What the decision table looks at: a group's numbers, most of them ratios to an objective. Pure.

Each feature is None if a signal that it needs is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.loads import ReplicaLoad, measure_load, share_of, token_demand
from gpu_advisor.evaluation.serving.step_model import StepModel
from gpu_advisor.evaluation.serving.surplus import surplus_features

#: The busiest replica's requests by the mean replica's from which on the load is uneven: random arrivals differ, too.
UNEVEN = 1.3

Features = Mapping[str, float | None]

#: A replica that lacks this share of the window's samples began within it, if its process is no older than the window
#: and the longest start (seconds): loading a model takes long, and a page that is scraped in vain lacks samples, too.
LATE_RATIO, LONGEST_START_SECONDS = 0.1, 3600.0


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
    features |= surplus_features(group, loads, objectives)
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
        "backlog": share_of(value("waiting_now"), running),
        "queue_share": None if waiting is None or not running else waiting / (running + waiting),
        "plateau": share_of(running if (usual := value("running_p50")) is None else usual, highest),
        "kv_usage": value("kv_usage"),
        "reserved_kv_usage": value("kv_usage") if preempted is None else None,
        "kv_usage_max": value("kv_usage_max"),
        "preemptions": None if preempted is None or not finished else preempted / finished,
        "ttft_missed": load.ttft_missed,
        "itl_missed": load.itl_missed,
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
        "executions_waiting": share_of(waiting, batch),
        "queue_time_share": share_of(value("queue_seconds"), value("request_seconds")),
    }


def _relief(group: ServingGroup, load: ReplicaLoad, objectives: Objectives) -> dict[str, float | None]:
    """Latencies if something were relaxed, as shares of their objectives."""
    names = ("itl_load", "lone_itl", "free_itl", "fast_prefill_itl", "itl_stall", "ttft_body", "ttft_tail",
             "prompt_share", "prompt_time", "peak_itl", "stalls", "computing_share", "prefill_load", "prompt_wait",
             "ttft_spread", "itl_spread")  # fmt: skip
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
    computed = None if tokens is None or steps is None else steps * tokens
    if computed and generated is not None:  # of the requests running, some still compute their prompts
        found["prompt_share"] = max(0.0, 1 - generated / computed)
    if objectives.itl is not None:
        found["itl_load"] = itl / objectives.itl
    curve, output, prompt = group.curve, value("output_tokens"), value("prompt_tokens")
    if curve is None or not output or not prompt:
        return found
    demand, ratio = load.offered * output, prompt / output
    found["prompt_time"] = load.offered * prompt * curve.per_prompt_token
    found["prompt_wait"] = share_of(value("prefill_seconds"), prompt * curve.per_prompt_token)
    if objectives.itl is not None:
        highest = value("running_max")
        found["peak_itl"] = None if highest is None else curve.itl(highest, ratio) / objectives.itl
        found["lone_itl"] = curve.itl(1.0, 0.0) / objectives.itl
        found["free_itl"] = curve.settled_itl(demand, ratio) / objectives.itl
        found["fast_prefill_itl"] = curve.settled_itl(demand, ratio, prefill=4.0) / objectives.itl
    return found


def _first_token(load: ReplicaLoad, objectives: Objectives) -> dict[str, float | None]:
    """What a first token waits for: a place in the batch, or its prompt's computation; and how much latencies vary."""
    found: dict[str, float | None] = {}
    queued, computing = load.value("queue_seconds"), load.value("prefill_seconds")
    if queued is not None and computing is not None and queued + computing > 0:
        found["computing_share"] = computing / (queued + computing)
    if objectives.ttft is not None:
        found["prefill_load"] = None if computing is None else computing / objectives.ttft
    found["ttft_spread"] = share_of(load.value("ttft_p90"), load.value("ttft_p50"))
    found["itl_spread"] = share_of(load.value("itl_p99"), load.value("itl_mean"))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _spread(group: ServingGroup, loads: Sequence[ReplicaLoad], objectives: Objectives) -> dict[str, float | None]:
    """How uneven replicas are, and, of uneven ones, the latency of all if they were even."""
    running = [value for each in loads if (value := each.value("running")) is not None]
    found: dict[str, float | None] = {"unevenness": None, "even_itl": None}
    if len(running) == len(loads) >= 2 and sum(running) > 0:
        found["unevenness"] = unevenness = max(running) / (sum(running) / len(running))
        if unevenness >= UNEVEN:
            found["even_itl"] = _even_itl(group.curve, loads, objectives)
    return found


def _even_itl(curve: StepModel | None, loads: Sequence[ReplicaLoad], objectives: Objectives) -> float | None:
    """The share of the inter-token latency's objective with the load spread evenly."""
    totals = token_demand(loads)
    if curve is None or totals is None or objectives.itl is None:
        return None
    demand, ratio = totals
    return curve.settled_itl(demand / len(loads), ratio) / objectives.itl


def _prefix_cache(replicas: Sequence[ServingReplica]) -> dict[str, float | None]:
    """Tokens found in the prefix cache per token computed; None if nothing is looked up."""
    queries = [value for each in replicas if (value := each.value("prefix_query_rate")) is not None]
    hits = [value for each in replicas if (value := each.value("prefix_hit_rate")) is not None]
    looked_up = sum(queries)
    return {"prefix_lookups": looked_up or None, "prefix_hits": sum(hits) / looked_up if looked_up and hits else None}
