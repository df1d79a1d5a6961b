"""What a recommendation saves, and the order of display: by severity, then by savings. Pure.

A GPU whose throughput could be r times as high does 1/r of its possible work: n such GPUs recover n (1 - 1/r) GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.policies import lost_gpu
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.state.view import PublishedRecommendation, View

_SEVERITY_ORDER = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Savings:
    """GPUs that a recommendation frees or recovers, and their price per hour. None if unknown."""

    gpus: float | None = None
    money_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class RankedRecommendation:
    issued: PublishedRecommendation
    savings: Savings

    @property
    def advice(self) -> Recommendation:
        return self.issued.recommendation


def savings(advice: Recommendation, group_size: int, price: float | None) -> Savings:
    """`group_size`: GPUs in one of the recommendation's unit; `price`: of one of its GPUs per hour."""
    gpus = _gpus(advice, group_size)
    saved = advice.projection.cost_change_per_hour
    if saved is not None and saved < 0:
        return Savings(gpus, -saved)
    return Savings(gpus, None if gpus is None or price is None else gpus * price)


def _gpus(advice: Recommendation, group_size: int) -> float | None:
    if advice.kind == lost_gpu.KIND:
        return float(len(advice.gpus))
    if advice.direction == "down":
        return (advice.current - advice.recommended) * group_size
    gain = advice.projection.throughput_ratio
    if advice.direction == "change" and gain is not None and gain > 1 and advice.gpus:
        return len(advice.gpus) * (1 - 1 / gain)
    return None


def rank_by_savings(view: View, prices: dict[str, float]) -> list[RankedRecommendation]:
    """All active recommendations, ordered for somebody on call: by severity, savings and age."""
    group = _group_sizes(view.evaluation)
    models = {gpu.uuid: gpu.name for gpu in view.evaluation.facts.gpus} if view.evaluation else {}
    found = []
    for issued in view.issued:
        advice = issued.recommendation
        costs = {prices.get(models.get(uuid, "")) for uuid in advice.gpus}
        price = costs.pop() if len(costs) == 1 else None
        size = group.get(advice.scope.name, 1) if advice.unit == "replicas" else 1
        found.append(RankedRecommendation(issued, savings(advice, size, price)))
    by_money = all(each.savings.money_per_hour is not None for each in found if each.savings.gpus is not None)
    return sorted(found, key=lambda each: _order(each, by_money))


def _order(each: RankedRecommendation, by_money: bool) -> tuple[int, float, float, str]:
    amount = each.savings.money_per_hour if by_money else each.savings.gpus
    return _SEVERITY_ORDER[each.advice.severity], -(amount or 0.0), each.issued.since, each.issued.id


def _group_sizes(evaluation: Evaluation | None) -> dict[str, int]:
    pools = evaluation.pools if evaluation else ()
    return {state.pool.settings.name: state.pool.settings.gpus_per_replica for state in pools}


def total_savings(found: Sequence[RankedRecommendation]) -> Savings:
    """The sum of the known savings. An upper bound: two recommendations for the same GPU both count it."""
    gpus = [each.savings.gpus for each in found if each.savings.gpus is not None]
    money = [each.savings.money_per_hour for each in found if each.savings.money_per_hour is not None]
    return Savings(sum(gpus) if gpus else None, sum(money) if len(money) == len(gpus) and money else None)
