"""Why a group has no number of replicas, though it has an objective, and replicas that do not serve. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision
from gpu_advisor.evaluation.serving.facts import ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.sizing import mean_below, mean_lengths
from gpu_advisor.evaluation.serving.step_model import MIN_POINTS
from gpu_advisor.settings import EvaluationSettings

#: Requests that a replica must run, on average over the window, to be expected to generate a token.
LEAST_RUNNING = 0.5


@dataclass(frozen=True, slots=True)
class Obstacle:
    reason: Reason
    why: str


def size_obstacle(
    group: ServingGroup,
    objectives: Objectives,
    limits: ScalingLimits,
    found: tuple[SizingDecision, float] | None,
    evaluation: EvaluationSettings,
) -> Obstacle | None:
    """What stands against a size, or against having found none; None: nothing."""
    if found is None and group.disaggregated:
        return Obstacle(
            Reason.UNSUPPORTED,
            f"{group.name} is one part of disaggregated serving: prompts and answers are computed by different "
            "servers, whose history has one name. Scale both by their router's planner (llm-d, Dynamo), or give each "
            "part a served name of its own",
        )
    if found is None:
        return _unreachable(group, objectives) or Obstacle(
            Reason.INSUFFICIENT_HISTORY,
            f"the curve of {group.name} is unknown: it needs {MIN_POINTS} steps of {evaluation.step_seconds} s with "
            "running requests, inter-token latencies and token counts, and slo.itl_p95",
        )
    decision = found[0]
    if decision.reason is not None:
        return Obstacle(decision.reason, decision.why)
    if decision.needed is not None and decision.needed > limits.max and len(group.replicas) >= limits.max:
        return Obstacle(
            Reason.CONFLICTING,
            f"{decision.why}: more than the maximum of {limits.max}, so that {group.name} will miss its objectives. "
            "Raise gpu.max, or reduce the load",
        )
    return None


def hung_replicas(group: ServingGroup, serving: ServingFacts) -> tuple[ServingReplica, ...]:
    """Those whose requests run and for which no token is computed, in all of the window.

    Of a server that counts tokens at the end of a request that is unknown: its answers may be long.
    """
    return () if group.server in serving.counted_at_end else tuple(filter(_computes_nothing, group.replicas))


def _computes_nothing(replica: ServingReplica) -> bool:
    rates = [replica.value(name) for name in ("generation_token_rate", "prompt_token_rate")]
    running = replica.value("running") or 0.0
    return running >= LEAST_RUNNING and all(rate == 0 for rate in rates)


def _unreachable(group: ServingGroup, objectives: Objectives) -> Obstacle | None:
    """An objective that leaves room for hardly a request at a time: no number of replicas keeps it."""
    lengths = mean_lengths(group)
    if group.curve is None or objectives.itl is None or lengths is None:
        return None
    output, prompt = lengths
    if mean_below(group.curve.largest(objectives.itl, prompt / output)) >= 1:
        return None
    alone = group.curve.itl(1, prompt / output)
    return Obstacle(
        Reason.CONFLICTING,
        f"no number of replicas keeps slo.itl_p95 of {1000 * objectives.itl:.3g} ms: by the curve of {group.name}, a "
        f"token takes {1000 * alone:.3g} ms of a request that is alone, and more beside others. Use faster GPUs, or "
        "several for each replica, or raise the objective",
    )
