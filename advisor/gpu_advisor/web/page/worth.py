"""Money a month, and what recommendations save, in words."""

from __future__ import annotations

from gpu_advisor.documents import advice_groups
from gpu_advisor.documents.advice_groups import AdviceGroup
from gpu_advisor.documents.savings import Savings
from gpu_advisor.evaluation.money import BOUND_WORDS, HOURS_PER_MONTH, Bound, Money
from gpu_advisor.state.view import View
from gpu_advisor.web.page.template_filters import UNKNOWN, gpu_count


def group_savings(group: AdviceGroup, view: View) -> Savings:
    """Of the recommendations of a card together."""
    return Savings.of(advice_groups.worth(group, view))


def worth(of: Savings) -> str:
    """`about 3,650 USD a month`, `788 to 1,752 USD a month`, `at least 2.9 GPUs`; empty if unknown or nothing."""
    bound = of.bound or "exact"
    if of.money_per_hour:
        exactly = "about " if bound == "exact" else ""
        return f"{exactly}{_a_month(bound, of.lowest_per_hour, of.money_per_hour)} {of.currency} a month"
    return f"{BOUND_WORDS[bound] or 'about '}{gpu_count(of.gpus)}" if of.gpus else ""


def per_month(money: Money) -> str:
    """`at most 3,650 USD a month`; a dash if unknown."""
    if money.value_per_hour is None or money.bound is None:
        return UNKNOWN
    estimate = " (estimate)" if money.estimated else ""
    amount = _a_month(money.bound, money.per_hour.low, money.value_per_hour)
    return f"{amount} {money.currency} a month{estimate}"


def _a_month(bound: Bound, lowest: float, per_hour: float) -> str:
    """`3,650`, `at most 3,650`, or both ends: `788 to 1,752`."""
    low, high = (f"{value * HOURS_PER_MONTH:,.0f}" for value in (lowest, per_hour))
    if bound == "at_most" and low != "0":
        return high if low == high else f"{low} to {high}"
    return f"{BOUND_WORDS[bound]}{high}"
