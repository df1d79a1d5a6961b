"""Panels on money, shared by the boards of the fleet and of cost: from prices of the settings, else list prices."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.stat import Panel as Stat

from grafana import panels
from grafana.queries import PRICE


def cost_panel(matchers: str) -> Stat:
    return panels.money_panel(
        "GPU cost per hour",
        "All GPUs of models whose price is known: from the advisor's settings (cost.gpu_price_per_hour), or an "
        "estimate at list prices.",
        f"sum by (currency) (sum by (name) (host:gpus:count{matchers}) * on (name) group_left (currency) {PRICE})",
    )


def unused_cost_panel(matchers: str) -> Stat:
    unused = f"sum by (name) (host:gpus_measured:count{matchers}) - sum by (name) (host:gpus_busy:mean5m{matchers})"
    return panels.money_panel(
        "Cost of unused GPUs per hour",
        "GPUs minus the sum of their utilization over the last 5 minutes, times the price, for models that have one.",
        f"sum by (currency) (({unused}) * on (name) group_left (currency) {PRICE})",
        panels.threshold_steps(panels.WARNING),
    )


def savings_panel() -> Stat:
    return panels.money_panel(
        "Potential savings per hour",
        "Of all open recommendations that are not snoozed; no GPU counts twice. At list prices for models without a "
        "price in the settings; the labels of the metric say whether it is a bound.",
        "max by (currency) (gpu_advisor_savings_per_hour)",
        panels.threshold_steps(panels.GOOD),
    )
