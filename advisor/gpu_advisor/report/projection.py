"""The use, cost and waste of a period, scaled to a month: what they come to at this rate. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from gpu_advisor.evaluation.money import HOURS_PER_MONTH
from gpu_advisor.report.history_reader import FleetHistory
from gpu_advisor.report.schema import MonthlyUsage, ProjectionDocument, UsageGroup
from gpu_advisor.report.usage import observed_ratio_by_step

#: Less data than a day has no night, or no working hours.
MIN_DATA_HOURS = 24


def data_hours(past: FleetHistory) -> float:
    """Hours of the period that have data: of each step, the share in which the GPU observed longest was observed."""
    share: dict[int, float] = {}
    for gpu in past.gpus:
        for index, observed in observed_ratio_by_step(past, gpu.uuid).items():
            share[index] = max(share.get(index, 0.0), observed)
    return fsum(share.values()) * past.period.step_hours


def steps_with_data(past: FleetHistory) -> int:
    return len({index for gpu in past.gpus for index in observed_ratio_by_step(past, gpu.uuid)})


def _present_hours(past: FleetHistory) -> float:
    """From the first data of any GPU to the last."""
    spans = past.observed_spans.values()
    return (max(last for _, last in spans) - min(first for first, _ in spans) + 1) * past.period.step_hours


def project_month(past: FleetHistory, groups: Sequence[UsageGroup]) -> ProjectionDocument:
    """Present GPU-hours and cost grow with the time from the first data to the last, observed ones with the time that
    has data. All groups by the times of the fleet, so that they add up.
    """
    observed, enough = data_hours(past), steps_with_data(past) * past.period.step_hours >= MIN_DATA_HOURS
    known: list[MonthlyUsage] = []
    if enough and observed:
        present, seen = HOURS_PER_MONTH / _present_hours(past), HOURS_PER_MONTH / observed
        known = [_scaled(group, present, seen) for group in groups]
    return {
        "month_hours": HOURS_PER_MONTH,
        "min_data_hours": MIN_DATA_HOURS,
        "data_hours": observed,
        "data_ratio": observed / (past.period.points * past.period.step_hours),
        "groups": known,
    }


def _scaled(group: UsageGroup, present: float, seen: float) -> MonthlyUsage:
    hours, money = group["gpu_hours"], group["money"]
    return {
        "kind": group["kind"],
        "name": group["name"],
        "there": hours["there"] * present,
        "busy": hours["busy"] * seen,
        "unused": hours["unused"] * seen,
        "money_there": None if money["there"] is None else money["there"] * present,
        "money_unused": None if money["unused"] is None else money["unused"] * seen,
    }
