"""Money of the documents as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_advisor.evaluation.money import BOUND_WORDS

if TYPE_CHECKING:
    from gpu_advisor.documents import schema

#: Owners or teams in a line.
MAX_GROUPS = 5


def format_savings(of: schema.SavingsFields, short: bool = False) -> str:
    """What is saved or recovered, by the hour and by the month; `short`: by the month only. A dash if unknown."""
    if of["savings_per_hour"] is None or of["savings_per_month"] is None or of["savings_bound"] is None:
        return "-"
    bound, month = BOUND_WORDS[of["savings_bound"]], f"{of['savings_per_month']:,.0f} {of['currency']}"
    if short:
        return f"{bound}{month}{' (estimate)' if of['estimated'] else ''}"
    basis = f"; {of['price_basis']}" if of["price_basis"] else ""
    return f"{bound}{of['savings_per_hour']:,.2f} {of['currency']} per hour ({month} per month{basis})"


def lost_by_group(summary: schema.MoneySummaryDocument) -> str:
    """Whose GPUs lose most now: by team where the settings have teams, else by owner. Empty if nothing is lost."""
    from gpu_advisor.evaluation.savings import NO_TEAM

    teams, owners = summary["waste_by"]["team"], summary["waste_by"]["owner"]
    title, groups = ("team", teams) if any(each["name"] != NO_TEAM for each in teams) else ("owner", owners)
    amounts = [f"{each['name']}: {_format_lost(each, summary['currency'])}" for each in groups[:MAX_GROUPS]]
    others = [f"{len(groups) - MAX_GROUPS} more"] if len(groups) > MAX_GROUPS else []
    return f"Lost a month by {title}: {'; '.join([*amounts, *others])}" if groups else ""


def _format_lost(group: schema.WasteGroupDocument, currency: str | None) -> str:
    if group["per_month"] is None or group["bound"] is None:
        return "unknown"
    estimate = " (estimate)" if group["estimated"] else ""
    return f"{BOUND_WORDS[group['bound']]}{group['per_month']:,.0f} {currency}{estimate}"
