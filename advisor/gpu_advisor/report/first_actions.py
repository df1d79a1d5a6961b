"""The recommendations to start with: those that save most. Pure."""

from __future__ import annotations

from gpu_advisor.documents.advice_groups import AdviceGroup, group_by_node, worth
from gpu_advisor.documents.owner_names import recommendation_owners
from gpu_advisor.documents.savings import Savings
from gpu_advisor.report.schema import FirstAction
from gpu_advisor.state.view import View

MAX_FIRST_ACTIONS = 3


def first_actions(view: View, external_url: str) -> list[FirstAction]:
    """By money, then GPUs, then urgency. Not those that are snoozed or stale; several GPUs of a node are one action."""
    active = [each for each in group_by_node(view) if each.open and not each.first.stale]
    valued = [(each, _savings(each, view)) for each in active]
    valued.sort(key=lambda each: (-(each[1].money_per_hour or 0.0), -(each[1].gpus or 0.0)))
    return [_document(view, each, saved, external_url.rstrip("/")) for each, saved in valued[:MAX_FIRST_ACTIONS]]


def _savings(group: AdviceGroup, view: View) -> Savings:
    return Savings.of(worth(group, view) if group.is_several else group.advice.savings)


def _document(view: View, group: AdviceGroup, savings: Savings, external_url: str) -> FirstAction:
    id_ = group.open[0].id
    owners = (name for each in group.open for name in recommendation_owners(view.evaluation, each.recommendation))
    return {
        "id": id_,
        "summary": group.summary,
        "savings_gpus": savings.gpus,
        "savings_per_month": savings.money_per_month,
        "savings_bound": savings.bound,
        "owners": list(dict.fromkeys(owners)),
        "url": f"{external_url}/recommendations/{id_}" if external_url else "",
    }
