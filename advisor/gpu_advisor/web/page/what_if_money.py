"""What GPUs cost and what the advice saves a month, with today's settings and with others. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_advisor.evaluation.checks import fleet_cost
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.money import Money
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.what_if import WhatIfComparison


@dataclass(frozen=True, slots=True)
class MonthlyMoney:
    """The cost of all GPUs, and what the recommendations save together."""

    title: str
    cost: Money
    savings: Money


def monthly_money(comparison: WhatIfComparison) -> list[MonthlyMoney]:
    """Before and after the change."""
    return [
        _monthly("current settings", comparison.current, comparison.current_advice.values()),
        _monthly("these settings", comparison.changed, comparison.changed_advice.values()),
    ]


def _monthly(title: str, evaluation: Evaluation, advice: Iterable[Recommendation]) -> MonthlyMoney:
    cost = fleet_cost(evaluation.facts, evaluation.prices)
    return MonthlyMoney(title, cost, evaluation.summarize(list(advice)).savings.money)
