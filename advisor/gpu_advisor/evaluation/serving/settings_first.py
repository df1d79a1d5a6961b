"""Replicas of a server that a setting or its routing limits: the change comes first, and replicas for what remains
after it. Pure.

Such a server has a queue that is the setting's, and a cache that fills with few requests: sized as it is set, it would
need many times the replicas that it needs after the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gpu_advisor.evaluation.recommendation import Alternative
from gpu_advisor.evaluation.serving.decision_table import ServingCause
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis
from gpu_advisor.evaluation.serving.groups import ServingGroup
from gpu_advisor.evaluation.serving.loads import queue_growth
from gpu_advisor.evaluation.serving.projection import MOST_STEP

#: Causes whose remedy is not a number of replicas -> the state after it.
REMEDIED: Mapping[str, str] = {
    "kv_cache_bound": "its KV cache is larger",
    "batch_limit_bound": "it runs more requests at a time",
    "prefill_bound": "its prompts are computed faster",
    "head_of_line": "long prompts do not hold up short ones",
    "imbalance": "its load is even",
}

REPLICAS_FIRST = Alternative(
    "more replicas first",
    "requests wait for this change, not for replicas: how many are needed shows after it",
)


def changes_first(found: GroupDiagnosis) -> tuple[ServingCause, ...]:
    """The causes that are to be changed before the number of replicas. The last window alone is enough: replicas for a
    burst at a limit are not needed after it."""
    return tuple(each for each in (*found.causes, *found.pending) if each.name in REMEDIED)


def after_change(group: ServingGroup, causes: Iterable[ServingCause]) -> ServingGroup:
    """The group as it is to be sized: the demand is what is served and what its queue grows by, without the queue; the
    cache is twice as large, the largest step, if it is full."""
    growth = _growing_demand(group)
    demand = tuple(
        replace(each, tokens_per_second=each.tokens_per_second + (growth if each.waiting else 0.0), waiting=0.0)
        for each in group.demand
    )
    if not any(each.name == "kv_cache_bound" for each in causes):
        return replace(group, demand=demand)
    replicas = tuple(replace(each, values=_with_larger_cache(each.values)) for each in group.replicas)
    return replace(group, replicas=replicas, demand=demand)


def _growing_demand(group: ServingGroup) -> float:
    """Tokens of the answers by which the queues grow (per second)."""
    return sum(
        queue_growth(each, group.window_seconds) * (each.value("output_tokens") or 0.0) for each in group.replicas
    )


def _with_larger_cache(values: Mapping[str, float]) -> Mapping[str, float]:
    used = values.get("kv_usage")
    return values if used is None else {**values, "kv_usage": used / MOST_STEP}
