"""The use, cost and waste of a period, scaled to a month: what they come to at this rate. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_advisor.evaluation.money import HOURS_PER_MONTH
from gpu_advisor.report.observed_time import ObservedTime
from gpu_advisor.report.schema import MonthlyUsage, ProjectionDocument, UsageGroup

#: Less data than a day has no night, or no working hours.
MIN_DATA_HOURS = 24


def project_month(time: ObservedTime, groups: Sequence[UsageGroup]) -> ProjectionDocument:
    """Present GPU-hours and cost grow with the time from the first data to the last, observed ones with the time that
    has data. All groups by the times of the fleet, so that they add up.
    """
    known: list[MonthlyUsage] = []
    if time.touched >= MIN_DATA_HOURS and time.observed:
        known = [_scaled(group, time) for group in groups]
    return {
        "month_hours": HOURS_PER_MONTH,
        "min_data_hours": MIN_DATA_HOURS,
        "data_hours": time.observed,
        "data_ratio": time.ratio,
        "groups": known,
    }


def _scaled(group: UsageGroup, time: ObservedTime) -> MonthlyUsage:
    present, seen = HOURS_PER_MONTH / time.present, HOURS_PER_MONTH / time.observed
    hours, cost = group["gpu_hours"], group["cost"]
    total, unobserved = cost["total"], cost["unobserved"]
    unseen = None if total is None or unobserved is None else time.unobserved_rate(total, total - unobserved)
    return {
        "kind": group["kind"],
        "name": group["name"],
        "present": hours["present"] * present,
        "busy": hours["busy"] * seen,
        "unused": hours["unused"] * seen,
        "unobserved": time.unobserved_rate(hours["present"], hours["observed"]) * HOURS_PER_MONTH,
        "cost": None if total is None else total * present,
        "cost_unobserved": None if unseen is None else unseen * HOURS_PER_MONTH,
        "cost_unused": None if cost["unused"] is None else cost["unused"] * seen,
    }
