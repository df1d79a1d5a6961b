"""What GPUs cost and what the advice saves a month, with today's settings and with others. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from gpu_advisor.evaluation.cost_check import fleet_cost
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.money import Money
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.what_if import WhatIfComparison
from gpu_advisor.web.page.template_filters import money


@dataclass(frozen=True, slots=True)
class MonthlyMoney:
    """The cost of all GPUs, and what the recommendations save together."""

    title: str
    cost: Money
    savings: Money


def monthly_money(comparison: WhatIfComparison, snoozed: Container[str] = ()) -> list[MonthlyMoney]:
    """Before and after the change, without the savings of `snoozed` recommendations (ids)."""
    sides = (
        ("current settings", comparison.current, comparison.current_advice),
        ("these settings", comparison.changed, comparison.changed_advice),
    )
    return [
        _monthly(title, evaluation, [each for id_, each in advice.items() if id_ not in snoozed])
        for title, evaluation, advice in sides
    ]


def budget_text(evaluation: Evaluation, currency: str) -> str:
    """`76.40 of 50.00 USD per hour: over budget`; empty without a budget, or where the cost is unknown."""
    for check in evaluation.checks:
        if check.item == "cost" and check.scope.kind == "fleet" and check.high is not None and check.value is not None:
            status = "over budget" if check.value > check.high else "within budget"
            return f"{check.value:,.2f} of {money(check.high, currency)}: {status}"
    return ""


def _monthly(title: str, evaluation: Evaluation, advice: Iterable[Recommendation]) -> MonthlyMoney:
    cost = fleet_cost(evaluation.facts, evaluation.prices)
    return MonthlyMoney(title, cost, evaluation.summarize(list(advice)).savings.money)
