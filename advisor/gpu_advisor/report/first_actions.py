"""The recommendations to start with: those that save most. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_advisor.documents.owner_names import recommendation_owners
from gpu_advisor.documents.savings import RankedRecommendation
from gpu_advisor.report.schema import FirstAction
from gpu_advisor.state.view import View

MAX_FIRST_ACTIONS = 3


def first_actions(view: View, ranked: Sequence[RankedRecommendation], external_url: str) -> list[FirstAction]:
    """By money, then GPUs, then urgency, which is the order of `ranked`. Not those that are snoozed or stale."""
    active = [each for each in ranked if not each.issued.snoozed and not each.issued.stale]
    most = sorted(active, key=lambda each: (-(each.savings.money_per_hour or 0.0), -(each.savings.gpus or 0.0)))
    return [_document(view, each, external_url.rstrip("/")) for each in most[:MAX_FIRST_ACTIONS]]


def _document(view: View, each: RankedRecommendation, external_url: str) -> FirstAction:
    savings = each.savings
    return {
        "id": each.issued.id,
        "summary": each.advice.summary,
        "savings_gpus": savings.gpus,
        "savings_per_month": savings.money_per_month,
        "savings_bound": savings.bound,
        "owners": recommendation_owners(view.evaluation, each.advice),
        "url": f"{external_url}/recommendations/{each.issued.id}" if external_url else "",
    }
