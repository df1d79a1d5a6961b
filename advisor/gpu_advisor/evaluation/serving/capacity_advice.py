"""Advice on replicas, routing and GPUs. Pure."""

from __future__ import annotations

import math

from gpu_advisor.evaluation.actions import notes
from gpu_advisor.evaluation.recommendation import Alternative
from gpu_advisor.evaluation.serving.advice import (
    PLANNED_RATIO,
    Advice,
    ServerOptions,
    gpus_of_replica,
    project_latency,
    prompt_ratio,
    tensor_parallel,
    value_of,
)
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.projection import MOST_STEP
from gpu_advisor.evaluation.serving.sizing import group_work
from gpu_advisor.evaluation.serving.surplus import GROWTH, busiest_window

ONE_LOAD = (
    "The server has shown one load only. If its steps hardly depend on the load, even a request alone is late, and no "
    "number of replicas helps: look at the inter-token latency after one replica more."
)


def decode(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    count, load, lone = len(found.group.replicas), found.features["itl_load"], found.features["lone_itl"]
    needed, unproven = replicas_for(found), lone is None or lone > 1
    target = max(count + 1, needed or 0)
    target = min(target, math.ceil(MOST_STEP * count))
    running = value_of(found, "running") or 0.0
    return Advice(
        summary=f"Spread {found.group.name} over {target} replicas instead of {count}: a token takes as long as its "
                f"objective allows" + (f", or longer ({load:.0%} of it)" if load and load > 1 else ""),
        current=count,
        recommended=target,
        unit="replicas",
        signals=("itl_mean", "itl_p95", "running", "generation_token_rate"),
        actions=(
            *options.configure(found.group.name, "replicas", target),
            *options.multiply(found.group.name, "tensor_parallel_size", 2, gpus_of_replica(found),
                              f"instead: {tensor_parallel(found)}"),
            *notes("or quantized weights (FP8, INT4), which change answers: compare their quality first"),
        ),
        rejected=(
            Alternative("run fewer requests at a time", "tokens come faster, but requests wait for longer"),
            Alternative("run more requests at a time", "each token would take longer still"),
        ),
        projection=project_latency(found, running * count / target),
        confidence="medium" if unproven else "high",
        note=ONE_LOAD if unproven else "",
    )  # fmt: skip


def replicas_for(found: GroupDiagnosis) -> int | None:
    """The fewest replicas that keep the inter-token latency, by the curve.

    None without the curve or an objective, or if the load of a replica is unknown.
    """
    curve, objective, ratio = found.group.curve, found.objectives.itl, prompt_ratio(found)
    demand = _demand(found)
    if curve is None or objective is None or ratio is None or demand is None:
        return None
    planned = PLANNED_RATIO * objective
    most = curve.largest(planned, ratio)
    if most < 1 or not math.isfinite(most):
        return None
    return max(1, math.ceil(demand / curve.tokens_per_second(most, ratio)))


def _generated_per_second(replica: ServingReplica) -> float | None:
    """Tokens of the requests that finished; None if unknown, 0 if none finished."""
    rate, tokens = replica.value("request_rate"), replica.value("output_tokens")
    if rate == 0:
        return 0.0
    return None if rate is None or tokens is None else rate * tokens


def _needed_with_growth(found: GroupDiagnosis) -> int | None:
    """The replicas that serve a fifth more than the present demand, and than the busiest window of the hours before, by
    a cautious reading of their curve: each gets more than any has shown."""
    group = found.group
    work, demand = group_work(group, found.objectives, cautious=True), _demand(found)
    if work is None or demand is None:
        return None
    return max(1, math.ceil(GROWTH * max(demand, busiest_window(group.demand, group.window_seconds)) / work[0]))


def _demand(found: GroupDiagnosis) -> float | None:
    """Tokens of the requests that finish per second, of all replicas; None if that of one is unknown."""
    loads = [_generated_per_second(each) for each in found.group.replicas]
    known = [each for each in loads if each is not None]
    return sum(known) if len(known) == len(loads) else None


def _fewer(found: GroupDiagnosis, options: ServerOptions, target: int) -> Advice | None:
    count, needed = len(found.group.replicas), _needed_with_growth(found)
    if needed is None or max(target, needed) >= count:
        return None
    target = max(target, needed)
    running = value_of(found, "running") or 0.0
    return Advice(
        summary=f"Serve {found.group.name} with {target} replicas instead of {count}",
        current=count,
        recommended=target,
        unit="replicas",
        signals=("running", "itl_mean", "ttft_p95", "kv_usage_max", "generation_token_rate"),
        actions=options.configure(found.group.name, "replicas", target),
        rejected=(Alternative("keep them", "the objectives hold with a fifth more load on fewer"),),
        projection=project_latency(found, running * count / target),
        severity="info",
    )


def under_batched(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    return _fewer(found, options, math.ceil(len(found.group.replicas) / 2))


def over_provisioned(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    return _fewer(found, options, len(found.group.replicas) - 1)


def cold_start(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    started = found.features["started"] or 0.0
    count = len(found.group.replicas)
    return Advice(
        summary=f"Start replicas of {found.group.name} earlier or faster: {started:.0f} of {count} began to serve "
                "within the window, and the others were overloaded until then",
        current=count - started,
        recommended=count,
        unit="replicas before the rise",
        signals=("running_max", "waiting", "ttft_p95", "itl_p95"),
        actions=notes(
            "scale on expected demand (gpu_advisor_desired_replicas), not on the queue",
            "keep model weights on local disks or in the image; load them in parallel",
            f"keep one more replica of {options.title} while load rises",
        ),
        rejected=(Alternative("a larger batch", "the load was that of replicas which did not serve yet"),),
        confidence="medium",
    )  # fmt: skip


def imbalance(found: GroupDiagnosis, _options: ServerOptions) -> Advice | None:
    uneven, count = found.features["unevenness"], len(found.group.replicas)
    if uneven is None:
        return None
    running = value_of(found, "running") or 0.0
    return Advice(
        summary=f"Route requests of {found.group.name} to the replica with the least work: "
                f"{found.pressed.replica.label} has {uneven:.1f} times the mean",
        current=round(running),
        recommended=round(running / uneven),
        unit="requests at a time on the busiest replica",
        signals=("running", "waiting", "ttft_p95"),
        actions=notes(
            "use a router that knows queues and caches (the Gateway API inference extension, vLLM's production stack), "
            "or least-request balancing (Envoy: lb_policy LEAST_REQUEST)",
            "long-lived connections of HTTP/2 clients stick to one pod of a Service: balance requests, not connections",
        ),
        rejected=(Alternative("more replicas", f"{count} serve this load if it is even"),),
        projection=project_latency(found, running / uneven),
    )  # fmt: skip


def wrong_gpu(found: GroupDiagnosis, options: ServerOptions) -> Advice | None:
    lone = found.features["lone_itl"]
    if lone is None:
        return None
    doubled = max(2, 2 ** math.ceil(math.log2(lone / PLANNED_RATIO)))
    return Advice(
        summary=f"Use faster GPUs for {found.group.name}, or several for each replica: alone, a request takes "
                f"{lone:.0%} of the inter-token latency objective",
        current=1,
        recommended=doubled,
        unit="times the memory bandwidth for each replica",
        signals=("itl_mean", "running"),
        actions=(
            *options.multiply(found.group.name, "tensor_parallel_size", doubled, gpus_of_replica(found),
                              tensor_parallel(found)),
            *notes(
                f"or a GPU with {lone:.1f} times the memory bandwidth: gpu-advisor cost",
                "or quantized weights (FP8, INT4), which change answers: compare their quality first",
            ),
        ),
        rejected=(
            Alternative("more replicas", "a request that is alone is too slow on each"),
            Alternative("a smaller batch", "even a single request misses the objective"),
        ),
    )  # fmt: skip
