"""Advice on a server's settings: batch, cache, prompts. Pure."""

from __future__ import annotations

import math

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.recommendation import Alternative
from gpu_advisor.evaluation.serving.advice import (
    CHANGES_ANSWERS,
    HIGHEST_MEMORY_UTILIZATION,
    PLANNED_RATIO,
    Advice,
    ServerOptions,
    gpus_of_replica,
    is_extrapolated,
    project_load,
    prompt_ratio,
    span_of_loads,
    tensor_parallel,
    value_of,
)
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis
from gpu_advisor.evaluation.serving.projection import MIN_SPAN, MOST_STEP

#: The share of the KV cache that sequences may fill.
KV_ROOM = 0.9

#: What bounds a limit that nothing else does: MOST_STEP.
STEP_BOUND = "twice the present limit, the largest step"


def largest_batch(found: GroupDiagnosis, limit: float) -> tuple[int, str]:
    """The next limit of running requests, and what bounds it: the objective, the KV cache, or a twofold step."""
    bounds = {STEP_BOUND: MOST_STEP * limit}
    used, objective, curve, ratio = (
        value_of(found, "kv_usage_max"), found.objectives.itl, found.group.curve, prompt_ratio(found)
    )  # fmt: skip
    if used:
        bounds["the KV cache"] = KV_ROOM * limit / used
    if objective is not None and curve is not None and ratio is not None and span_of_loads(found) >= MIN_SPAN:
        bounds["the inter-token latency objective"] = curve.largest(PLANNED_RATIO * objective, ratio)
    why = min(bounds, key=lambda name: bounds[name])
    return math.floor(bounds[why]), why


def batch_limit(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    if found.features["executions_waiting"] is not None:
        return _larger_executions(found, options)
    exposed, plateau = value_of(found, "max_num_seqs"), value_of(found, "running_max")
    limit = exposed or plateau
    if not limit:
        return None
    target, bound = largest_batch(found, limit)
    if target <= limit:
        return None
    extrapolated = is_extrapolated(found, target)
    waiting, running = value_of(found, "waiting") or 0.0, value_of(found, "running") or 0.0
    hidden = "" if exposed else (
        f" {options.title} does not publish its limit: it is where the number running stays while others wait."
    )  # fmt: skip
    return Advice(
        summary=f"{found.group.name}: raise {options.name_of('max_num_seqs')} from {limit:.0f} to {target}: "
        f"{waiting:.0f} {'request' if round(waiting) == 1 else 'requests'} waiting",
        current=round(limit),
        recommended=target,
        unit="requests at a time",
        signals=("running", "running_max", "waiting", "kv_usage_max", "ttft_p95", "itl_mean"),
        actions=options.configure(found.group.name, "max_num_seqs", target),
        rejected=(
            Alternative("add replicas", "the GPUs in use have room for more requests at a time"),
            Alternative("a larger step", f"bounded by {bound}; look at the curve again after this one"),
        ),
        projection=project_load(found, min(target, running + waiting)),
        confidence="medium" if extrapolated else "high",
        note=f"{_bound_text(bound)}{hidden}"
        + (" Beyond the loads observed so far, the projection is an extrapolation." if extrapolated else ""),
    )


def _bound_text(bound: str) -> str:
    return "One step at most doubles the limit." if bound == STEP_BOUND else f"Bounded by {bound}."


def _larger_executions(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    """For servers that compute requests as a whole."""
    batch, waiting, share = value_of(found, "batch"), value_of(found, "waiting"), found.features["queue_time_share"]
    if not batch or waiting is None or share is None:
        return None
    name, target = found.group.name, math.ceil(MOST_STEP * batch)
    return Advice(
        summary=f"Compute {target} requests of {name} at a time instead of {batch:.1f}: {waiting:.0f} wait, for "
        f"{share:.0%} of their time",
        current=round(batch, 2),
        recommended=target,
        unit="requests in an execution",
        signals=("batch", "waiting", "queue_seconds", "request_seconds"),
        actions=(
            *options.configure(name, "max_num_seqs", target, "if it is lower; without batching it is 1"),
            *options.configure(name, "batch_delay", 0, "enough requests wait already"),
            *options.configure(name, "replicas", "one more", "if executions are as large as their limit, and the GPU "
                               "has memory and time left"),
        ),
        rejected=(
            Alternative("a longer wait for larger batches", f"{waiting / batch:.1f} executions' worth wait already"),
        ),
        confidence="medium",
        note="A larger execution takes longer, usually less than in proportion: look at the time of requests after it.",
    )  # fmt: skip


def kv_cache(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    running = value_of(found, "running")
    if not running:
        return None
    name, tokens = found.group.name, value_of(found, "kv_tokens")
    target, waiting = MOST_STEP * running, value_of(found, "waiting") or 0.0
    more_memory = (
        options.configure(name, "gpu_memory_utilization", HIGHEST_MEMORY_UTILIZATION, "if it is lower now, and the "
                          "GPU has as much free memory")
        if options.shared is False
        else ()
    )  # fmt: skip
    unshared = () if options.shared is False else (
        Alternative(
            "a larger share of the GPU's memory for the server",
            "other processes use the GPU" if options.shared else "whether others use the GPU is not known",
        ),
    )  # fmt: skip
    preempted = bool(value_of(found, "preemption_rate"))
    # https://docs.vllm.ai/en/latest/configuration/optimization/ (preemption)
    less_again = (
        options.multiply(name, "max_num_seqs", 0.75, None, "instead: fewer sequences are computed twice, and more wait")
        if preempted
        else ()
    )  # fmt: skip
    return Advice(
        summary=f"Give {name} a larger KV cache: it is full, {waiting:.0f} requests wait"
        + (", and sequences are preempted" if preempted else ""),
        current=round(tokens or running),
        recommended=round(MOST_STEP * (tokens or running)),
        unit="tokens of KV cache" if tokens else "requests at a time",
        signals=("kv_usage_max", "preemption_rate", "waiting", "running", "kv_tokens", "ttft_p95"),
        actions=(
            *more_memory,
            *options.multiply(name, "tensor_parallel_size", 2, gpus_of_replica(found), tensor_parallel(found)),
            *options.configure(name, "kv_cache_dtype", "fp8", CHANGES_ANSWERS),
            *less_again,
            *notes("or more replicas, or a smaller maximum length of the context, if requests allow it"),
        ),
        rejected=(
            Alternative("run more requests at a time", "the cache has no room for more"),
            *unshared,
        ),
        projection=project_load(found, min(target, running + waiting)),
        confidence="medium",
        note="Twice the GPUs or the smaller type alone give about twice the cache, a larger share of memory less.",
    )


def prefill(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    budget, stall = value_of(found, "max_num_batched_tokens"), found.features["itl_stall"]
    stalls = (found.features["stalls"] or 1.0) > 1.16 or (stall or 0.0) > 0.5
    actions: list[Action] = []
    if stalls:
        actions += options.configure(found.group.name, "chunked_prefill", True, "if it is off")
        actions += options.multiply(found.group.name, "max_num_batched_tokens", 0.5, budget,
                                    "smaller parts of prompts stall answers less")  # fmt: skip
    else:
        actions += options.multiply(found.group.name, "max_num_batched_tokens", 2, budget,
                                    "more prompt tokens in a step, where steps are full")  # fmt: skip
    actions += options.multiply(
        found.group.name, "tensor_parallel_size", 2, gpus_of_replica(found), tensor_parallel(found)
    )
    actions += options.configure(found.group.name, "prefix_caching", True, "if prompts begin alike")
    count = len(found.group.replicas)
    return Advice(
        summary=f"Compute prompts of {found.group.name} faster: they make first tokens late or answers stall",
        current=count,
        recommended=count + 1,
        unit="replicas' worth of prompt computation",
        signals=("ttft_p90", "prompt_tokens", "prompt_token_rate", "iteration_tokens", "itl_p99", "prefill_seconds"),
        actions=tuple(actions),
        rejected=(Alternative("run more requests at a time", "their prompts would wait for the same computation"),),
        confidence="medium",
    )


def head_of_line(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    longest, median = found.features["ttft_tail"], found.features["ttft_body"]
    if longest is None or median is None:
        return None
    name = found.group.name
    return Advice(
        summary=f"Keep long prompts of {name} from holding up short ones: late first tokens take "
                f"{longest / median:.0f} times as long as the median" if median else f"Separate prompts of {name}",
        current=1,
        recommended=2,
        unit="queues of prompts",
        signals=("ttft_p50", "ttft_p90", "prompt_tokens", "waiting"),
        actions=(
            *options.configure(name, "chunked_prefill", True, "if it is off"),
            *options.configure(name, "long_prompts", 2048, "fewer long prompts at a time beside short ones"),
            *notes("or route long prompts to replicas of their own"),
        ),
        rejected=(Alternative("more replicas", "short prompts would still wait behind long ones on each"),),
        confidence="medium",
    )  # fmt: skip


def prefix_cache(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    hits = found.features["prefix_hits"]
    if hits is None:
        return None
    return Advice(
        summary=f"The prefix cache of {found.group.name} finds {hits:.1%} of the tokens that it looks up",
        current=round(100 * hits, 1),
        recommended=0,
        unit="% of looked-up tokens found",
        signals=("prefix_query_rate", "prefix_hit_rate"),
        actions=(
            *notes("put what prompts share (instructions, examples) first, and route the same conversation to the same "
                   "replica"),
            *options.configure(found.group.name, "no_prefix_caching", True, "if prompts share nothing"),
        ),
        rejected=(Alternative("a larger KV cache", "there is nothing to find in it"),),
        severity="info",
        confidence="medium",
    )  # fmt: skip
