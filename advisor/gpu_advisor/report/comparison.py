"""A period beside the one of the same length before it: what changed, and whether for the better. Pure.

Sums are divided by the days with data: a period with gaps, or one that reaches back before the history began, compares
with a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from gpu_advisor.documents.savings import MAX_GROUPS
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.savings import OwnerGroupBy
from gpu_advisor.report import usage
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.observed_time import ObservedTime
from gpu_advisor.report.owner_usage import OwnerUsage, group_usage, usage_by_owners
from gpu_advisor.report.schema import Change, ChangesByOwner, FleetChanges, OwnerChanges
from gpu_advisor.settings.teams import TeamSettings

Good = Literal["higher", "lower"] | None

#: Relative differences up to this are shown as 0.0 %, and are neither better nor worse.
_UNCHANGED_RATIO = 0.0005


def change(now: float | None, before: float | None, good: Good = None) -> Change:
    """`good`: the direction that is good; None if that depends."""
    difference = None if now is None or before is None else now - before
    return {
        "now": now,
        "before": before,
        "difference": difference,
        "difference_ratio": difference / before if difference is not None and before else None,
        "verdict": _verdict(difference, max(abs(now or 0.0), abs(before or 0.0)), good),
    }


def _verdict(difference: float | None, size: float, good: Good) -> Literal["better", "worse"] | None:
    if difference is None or good is None or abs(difference) <= _UNCHANGED_RATIO * size:
        return None
    return "better" if (difference > 0) == (good == "higher") else "worse"


def fleet_changes(
    now: FleetHistory,
    usage_now: Mapping[Gpu, usage.GpuHourUsage],
    before: FleetHistory,
    usage_before: Mapping[Gpu, usage.GpuHourUsage],
    prices: Mapping[str, GpuPrice],
) -> FleetChanges:
    """Prices are by uuid, of the GPUs of both periods, and the same for both."""
    numbers = [_fleet_numbers(*each, prices) for each in ((now, usage_now), (before, usage_before))]

    def of(name: str, good: Good = None) -> Change:
        return change(numbers[0].get(name), numbers[1].get(name), good)

    return {
        "gpus": of("gpus"),
        "gpu_utilization_ratio": of("utilization", "higher"),
        "gpu_memory_ratio": of("memory"),
        "busy_per_day": of("busy", "higher"),
        "unused_per_day": of("unused", "lower"),
        "idle_allocated_per_day": of("idle_allocated", "lower"),
        "cost_per_day": of("cost"),
        "cost_unobserved_per_day": of("cost_unobserved", "lower"),
        "cost_unused_per_day": of("cost_unused", "lower"),
    }


def _fleet_numbers(
    past: FleetHistory, usage_by_gpu: Mapping[Gpu, usage.GpuHourUsage], prices: Mapping[str, GpuPrice]
) -> dict[str, float | None]:
    """Nothing at all is compared with a period without data: not even that there were no GPUs."""
    time = ObservedTime.of(past)
    if not time.observed:
        return {}
    sums, cost = usage.total(list(usage_by_gpu.values())), usage.cost(usage_by_gpu, prices)
    total, blind = cost["total"], cost["unobserved"]
    unobserved = None if total is None or blind is None else time.unobserved_rate(total, total - blind)
    return {
        "gpus": float(len(past.gpus)),
        "utilization": sums.utilization,
        "memory": usage.mean_memory(past, past.gpus),
        "busy": per_day(sums.busy, time.observed),
        "unused": per_day(sums.unused, time.observed),
        "idle_allocated": per_day(sums.idle_allocated, time.observed),
        "cost": per_day(total, time.present),
        "cost_unobserved": None if unobserved is None else unobserved * 24,
        "cost_unused": per_day(cost["unused"], time.observed),
    }


def per_day(value: float | None, hours: float) -> float | None:
    """None without any hour of data."""
    return None if value is None or not hours else value * 24 / hours


def changes_by_owner(
    now: FleetHistory, before: FleetHistory, teams: Sequence[TeamSettings], prices: Mapping[str, GpuPrice]
) -> ChangesByOwner:
    periods = [
        (usage_by_owners(past, prices), ObservedTime.of(past, past.any_owner_steps).observed) for past in (now, before)
    ]
    groupings = {
        by: _owner_changes([(group_usage(found, by, teams), hours) for found, hours in periods], by)
        for by in _GROUPINGS
    }
    return {"team": groupings["team"], "namespace": groupings["namespace"], "user": groupings["user"]}


_GROUPINGS: tuple[OwnerGroupBy, ...] = ("team", "namespace", "user")


def _owner_changes(periods: Sequence[tuple[Mapping[str, OwnerUsage], float]], by: OwnerGroupBy) -> list[OwnerChanges]:
    """By unused hours, most first. `periods` are this and the one before, with their hours of known owners.

    A group that had no GPU in a period with known owners left nothing unused in it.
    """
    names = {name: None for found, _ in periods for name in found}
    if all(name == f"no {by}" for name in names):
        return []

    def of(name: str, number: str, good: Good = None) -> Change:
        values = [per_day(getattr(found.get(name) or _no_usage(found), number), hours) for found, hours in periods]
        return change(values[0], values[1], good)

    changes: list[OwnerChanges] = [
        {
            "name": name,
            "observed_per_day": of(name, "observed"),
            "unused_per_day": of(name, "unused", "lower"),
            "cost_unused_per_day": of(name, "cost_unused", "lower"),
        }
        for name in names
    ]
    return sorted(changes, key=_most_first)[:MAX_GROUPS]


def _no_usage(found: Mapping[str, OwnerUsage]) -> OwnerUsage:
    """Of a group that is not in a period: no hours and no money, if any price is known in it."""
    priced = any(each.cost_unused is not None for each in found.values())
    return OwnerUsage(cost_unused=0.0 if priced else None)


def _most_first(group: OwnerChanges) -> tuple[float, float, str]:
    unused = group["unused_per_day"]
    return -(unused["now"] or 0.0), -(unused["before"] or 0.0), group["name"]
