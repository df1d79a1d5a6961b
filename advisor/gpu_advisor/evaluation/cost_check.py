"""The check of the fleet's cost against the budget. Pure."""

from __future__ import annotations

from gpu_advisor.cost.list_prices import CURRENCY as LIST_PRICE_CURRENCY
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import is_lost
from gpu_advisor.evaluation.money import Money
from gpu_advisor.evaluation.prices import Prices, billable
from gpu_advisor.evaluation.recommendation import FLEET, Abstention, Check, CheckStatus, Reason
from gpu_advisor.evaluation.unknown_checks import explain_no_gpus, unknown_check
from gpu_advisor.settings import Settings


def check_cost(facts: Facts, settings: Settings, prices: Prices) -> Check:
    """Cost of all GPUs, lost ones included, against the budget.

    Unknown without a budget, without GPUs, or if GPUs have no price and the others are within the budget. A cost at
    list prices says that it is an estimate.
    """
    if not facts.gpus:
        return unknown_check("cost", "cost", FLEET, explain_no_gpus(facts))
    budget, spent = settings.cost.budget_per_hour, fleet_cost(facts, prices)
    message = _explain_cost(facts, settings, prices, spent)
    least, most = spent.per_hour.low, spent.per_hour.high
    if budget is None or (most is None and least <= budget):
        return unknown_check("cost", "cost", FLEET, Abstention(Reason.UNSUPPORTED, "cost", FLEET, message))
    met = least <= budget
    return Check(
        "cost", "cost", FLEET, CheckStatus.MET if met else CheckStatus.MISSED,
        "info" if met else "warning", least, None, budget, None if met else least - budget, message=message,
    )  # fmt: skip


def fleet_cost(facts: Facts, prices: Prices) -> Money:
    """What all GPUs cost per hour: at least that of those with a price."""
    return prices.cost(gpu.uuid for gpu in billable(facts.gpus))


def _explain_cost(facts: Facts, settings: Settings, prices: Prices, spent: Money) -> str:
    """Empty if all is known and set."""
    paid = billable(facts.gpus)
    unpriced = sorted({gpu.name or "GPUs of unknown model" for gpu in paid if gpu.uuid not in prices.by_gpu})
    lost = [gpu.uuid for gpu in paid if is_lost(facts, gpu)]
    parts = []
    if spent.bound is not None and (spent.estimated or unpriced or settings.cost.budget_per_hour is None):
        parts.append(str(spent))
    if lost:
        subject = "1 lost GPU costs" if len(lost) == 1 else f"{len(lost)} lost GPUs cost"
        parts.append(f"{subject} {prices.cost(lost)}")
    if unpriced:
        parts.append(f"no price for {', '.join(unpriced)}: {_price_fix(settings)}")
    elif spent.estimated:
        parts.append("set cost.gpu_price_per_hour for your own prices")
    if settings.cost.budget_per_hour is None:
        parts.append("set cost.budget_per_hour in the settings")
    return "; ".join(parts)


def _price_fix(settings: Settings) -> str:
    if settings.cost.list_prices and settings.cost.currency != LIST_PRICE_CURRENCY:
        return (
            f"list prices are in {LIST_PRICE_CURRENCY} and are not converted to {settings.cost.currency}; set "
            "cost.gpu_price_per_hour"
        )
    return "set it under cost.gpu_price_per_hour in the settings"
