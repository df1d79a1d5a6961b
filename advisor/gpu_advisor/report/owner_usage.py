"""GPU-hours and money by team, namespace and user. Pure.

A GPU counts for whoever had it at the end of a step. Time in which owners are unknown is in no group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.owners import GpuOwner, with_team
from gpu_advisor.evaluation.savings import OwnerGroupBy, owner_group
from gpu_advisor.report import series
from gpu_advisor.report.history_reader import FleetHistory
from gpu_advisor.report.usage import observed_ratio_by_step
from gpu_advisor.settings.teams import TeamSettings


@dataclass(slots=True)
class OwnerUsage:
    """Observed and unused GPU-hours; the money of the unused ones, None without any price."""

    seen: float = 0.0
    unused: float = 0.0
    money_unused: float | None = None


def usage_by_owner(
    past: FleetHistory, by: OwnerGroupBy, teams: Sequence[TeamSettings], prices: Mapping[str, GpuPrice]
) -> dict[str, OwnerUsage]:
    """By the group's name. Prices are by uuid."""
    names: dict[frozenset[GpuOwner], str] = {}
    found: dict[str, OwnerUsage] = {}
    for gpu in past.gpus:
        owners, utilization = past.owners.get(gpu.uuid, {}), past.of(series.UTILIZATION, gpu.uuid)
        price = prices.get(gpu.uuid)
        for index, share in observed_ratio_by_step(past, gpu.uuid).items():
            if index not in past.owner_steps:
                continue
            here = owners.get(index, frozenset())
            if here not in names:
                names[here] = owner_group((with_team(owner, teams) for owner in here), by)
            _add(found.setdefault(names[here], OwnerUsage()), share * past.period.step_hours, utilization[index], price)
    return found


def _add(group: OwnerUsage, hours: float, utilization: float, price: GpuPrice | None) -> None:
    unused = max(0.0, hours * (1 - utilization))
    group.seen += hours
    group.unused += unused
    if price is not None:
        group.money_unused = (group.money_unused or 0.0) + unused * price.amount
