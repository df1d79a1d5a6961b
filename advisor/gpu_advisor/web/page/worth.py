"""Money a month, and what recommendations save, in words."""

from __future__ import annotations

from gpu_advisor.documents.savings import Savings
from gpu_advisor.evaluation.money import BOUND_WORDS, Money
from gpu_advisor.web.page.template_filters import UNKNOWN, gpu_count


def worth(of: Savings) -> str:
    """`about 3,650 USD a month`, `at least 2.9 GPUs`; empty if unknown or nothing."""
    bound = BOUND_WORDS[of.bound or "exact"] or "about "
    if of.money_per_month:
        return f"{bound}{of.money_per_month:,.0f} {of.currency} a month"
    return f"{bound}{gpu_count(of.gpus)}" if of.gpus else ""


def per_month(money: Money) -> str:
    """`at most 3,650 USD a month`; a dash if unknown."""
    if money.value_per_month is None or money.bound is None:
        return UNKNOWN
    estimate = " (estimate)" if money.estimated else ""
    return f"{BOUND_WORDS[money.bound]}{money.value_per_month:,.0f} {money.currency} a month{estimate}"
