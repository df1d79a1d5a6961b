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
        present, seen = HOURS_PER_MONTH / time.present, HOURS_PER_MONTH / time.observed
        known = [_scaled(group, present, seen) for group in groups]
    return {
        "month_hours": HOURS_PER_MONTH,
        "min_data_hours": MIN_DATA_HOURS,
        "data_hours": time.observed,
        "data_ratio": time.ratio,
        "groups": known,
    }


def _scaled(group: UsageGroup, present: float, seen: float) -> MonthlyUsage:
    hours, cost = group["gpu_hours"], group["cost"]
    return {
        "kind": group["kind"],
        "name": group["name"],
        "present": hours["present"] * present,
        "busy": hours["busy"] * seen,
        "unused": hours["unused"] * seen,
        "cost": None if cost["total"] is None else cost["total"] * present,
        "cost_unused": None if cost["unused"] is None else cost["unused"] * seen,
    }
