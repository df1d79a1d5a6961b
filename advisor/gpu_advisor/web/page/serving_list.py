"""Inference servers: what users of each model feel, what its replicas do, and what is recommended. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.serving.cost import cost_per_million_tokens
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.features import missed_ratio
from gpu_advisor.evaluation.serving.recommend import ServedPool
from gpu_advisor.state.view import PublishedRecommendation


@dataclass(frozen=True, slots=True)
class ServingRow:
    """A model. Numbers are of all replicas that report, None unless known for each; latencies are the worst replica's.

    `of_replicas`: as the overview counts them, where the pool has more; a model without a pool of its own has None.
    """

    name: str
    pool: str
    server: str
    replicas: int
    of_replicas: int | None
    running: float | None
    waiting: float | None
    ttft: float | None
    itl: float | None
    kv_usage: float | None
    tokens_per_second: float | None
    missed: float | None
    cost: tuple[float, str] | None
    advice: tuple[PublishedRecommendation, ...]


def serving_rows(evaluation: Evaluation, issued: Sequence[PublishedRecommendation]) -> list[ServingRow]:
    """Those with advice first, then by the share of requests that miss an objective, then by name."""
    of_pools = evaluation.replicas
    rows = [_row(each, evaluation, issued, of_pools) for each in evaluation.served]
    return sorted(rows, key=lambda row: (not row.advice, -(row.missed or 0.0), row.name))


def _row(
    served: ServedPool, evaluation: Evaluation, issued: Sequence[PublishedRecommendation], of_pools: Mapping[str, int]
) -> ServingRow:
    replicas = served.group.replicas
    of_pool = of_pools.get(served.pool.settings.name, 0) if served.alone else 0
    return ServingRow(
        name=served.group.name,
        pool=served.pool.settings.name,
        server=evaluation.facts.serving.titles.get(served.group.server, served.group.server),
        replicas=len(replicas),
        of_replicas=of_pool if of_pool > len(replicas) else None,
        running=_all(replicas, "running", sum),
        waiting=_all(replicas, "waiting", sum),
        ttft=_all(replicas, "ttft_p95", max),
        itl=_all(replicas, "itl_p95", max),
        kv_usage=_all(replicas, "kv_usage_max", max),
        tokens_per_second=_all(replicas, "generation_token_rate", sum),
        missed=missed_ratio(served.group, served.objectives),
        cost=cost_per_million_tokens(served.group, evaluation.prices),
        advice=tuple(each for each in issued if each.recommendation.scope == served.scope),
    )


def _all(replicas: Sequence[ServingReplica], signal: str, combine: Callable[[Sequence[float]], float]) -> float | None:
    values = [value for each in replicas if (value := each.value(signal)) is not None]
    return combine(values) if values and len(values) == len(replicas) else None
