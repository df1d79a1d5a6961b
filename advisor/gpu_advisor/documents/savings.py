"""Worth and order of the recommendations of a view, as documents and pages show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from gpu_advisor.documents import schema
from gpu_advisor.evaluation.money import HOURS_PER_MONTH, Bound
from gpu_advisor.evaluation.recommendation import Savings as Worth
from gpu_advisor.evaluation.savings import GroupBy, WasteGroup, urgency
from gpu_advisor.state.view import PublishedRecommendation, View

#: Of an amount per hour: a month of what is less comes to less than a cent.
HOURLY_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Savings:
    """GPUs freed or recovered, and their price per hour; None if unknown. `bound` says how to read the money.

    `lowest_per_hour` is the least that they save; below `money_per_hour` if that is "at most". `basis` is not empty for
    an estimate, as in `estimate, list prices of 2026-09-20`.
    """

    gpus: float | None = None
    money_per_hour: float | None = None
    bound: Bound | None = None
    currency: str = ""
    basis: str = ""
    lowest_per_hour: float = 0.0

    @staticmethod
    def of(found: Worth | None) -> Savings:
        if found is None:
            return Savings()
        money, value = found.money, found.money.value_per_hour
        per_hour = None if value is None else round(value, HOURLY_DIGITS)
        return Savings(found.gpus.value, per_hour, money.bound, money.currency, money.basis, money.per_hour.low)

    @property
    def money_per_month(self) -> float | None:
        """To the cent: of more digits, most are those of binary fractions."""
        return None if self.money_per_hour is None else round(self.money_per_hour * HOURS_PER_MONTH, 2)


def by_urgency(issued: Iterable[PublishedRecommendation]) -> list[PublishedRecommendation]:
    """The most urgent first."""
    return sorted(issued, key=lambda each: urgency(each.recommendation, each.id))


def total_savings(view: View, found: Sequence[PublishedRecommendation]) -> Savings:
    """Of these together. No GPU counts twice."""
    if view.evaluation is None or not found:
        return Savings()
    return Savings.of(view.evaluation.summarize([each.recommendation for each in found]).savings)


def savings_fields(of: Worth | None) -> schema.SavingsFields:
    found = Savings.of(of)
    known = found.money_per_hour is not None
    return {
        "savings_gpus": found.gpus,
        "savings_per_hour": found.money_per_hour,
        "savings_per_month": found.money_per_month,
        "savings_bound": found.bound,
        "currency": found.currency if known else None,
        "estimated": bool(found.basis) if known else None,
        "price_basis": found.basis,
    }


def money_summary(view: View, selection: Iterable[PublishedRecommendation]) -> schema.MoneySummaryDocument:
    """Of the selected recommendations that are not snoozed."""
    if view.evaluation is None:
        return {**savings_fields(None), "waste_per_hour": None, "waste_per_month": None, "waste_bound": None,
                "waste_by": waste_by({})}  # fmt: skip
    found = view.evaluation.summarize([each.recommendation for each in selection if not each.snoozed])
    lost = Savings.of(found.waste)
    return {
        **savings_fields(found.savings),
        "currency": found.waste.money.currency,
        "waste_per_hour": lost.money_per_hour,
        "waste_per_month": lost.money_per_month,
        "waste_bound": lost.bound,
        "waste_by": waste_by(found.by),
    }


#: Groups in a document; the others are left out.
MAX_GROUPS = 64


def waste_by(groups: Mapping[GroupBy, Sequence[WasteGroup]]) -> schema.WasteByDocument:
    """The groups with the largest loss, by each grouping of the document."""
    found = {
        by: [_group(each.name, Savings.of(each.worth)) for each in groups.get(by, ())[:MAX_GROUPS]]
        for by in get_args(GroupBy)
    }
    return cast("schema.WasteByDocument", found)


def _group(name: str, lost: Savings) -> schema.WasteGroupDocument:
    return {
        "name": name,
        "gpus": lost.gpus,
        "per_hour": lost.money_per_hour,
        "per_month": lost.money_per_month,
        "bound": lost.bound,
        "estimated": bool(lost.basis),
    }
