"""GPU-hours and money by team, namespace and user. Pure.

A GPU counts for its owner at the end of a step. Time in which owners are unknown is in no group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.owners import GpuOwner, with_team
from gpu_advisor.evaluation.savings import OwnerGroupBy, owner_group
from gpu_advisor.report import series
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.usage import observed_ratio_by_step
from gpu_advisor.settings.teams import TeamSettings


@dataclass(slots=True)
class OwnerUsage:
    """Observed and unused GPU-hours; the money of the unused ones, None without any price."""

    observed: float = 0.0
    unused: float = 0.0
    cost_unused: float | None = None

    def add(self, hours: float, utilization: float, price: GpuPrice | None) -> None:
        unused = max(0.0, hours * (1 - utilization))
        self.observed += hours
        self.unused += unused
        if price is not None:
            self.cost_unused = (self.cost_unused or 0.0) + unused * price.amount

    def plus(self, other: OwnerUsage) -> OwnerUsage:
        known = [each.cost_unused for each in (self, other) if each.cost_unused is not None]
        return OwnerUsage(self.observed + other.observed, self.unused + other.unused, sum(known) if known else None)


_NOBODY = frozenset[GpuOwner]()

#: By the owners who share a GPU.
UsageByOwners = Mapping[frozenset[GpuOwner], OwnerUsage]


def usage_by_owners(past: FleetHistory, prices: Mapping[str, GpuPrice]) -> UsageByOwners:
    """Prices are by uuid."""
    found: dict[frozenset[GpuOwner], OwnerUsage] = {}
    for gpu in past.gpus:
        owners, utilization = past.owners.get(gpu.uuid, {}), past.of(series.UTILIZATION, gpu.uuid)
        price, known = prices.get(gpu.uuid), past.owner_steps.get(gpu.uuid, frozenset[int]())
        for index, share in observed_ratio_by_step(past, gpu.uuid).items():
            if index in known:
                usage = found.setdefault(owners.get(index, _NOBODY), OwnerUsage())
                usage.add(share * past.period.step_hours, utilization[index], price)
    return found


def group_usage(found: UsageByOwners, by: OwnerGroupBy, teams: Sequence[TeamSettings]) -> dict[str, OwnerUsage]:
    """By the group's name."""
    groups: dict[str, OwnerUsage] = {}
    for owners, usage in found.items():
        name = owner_group((with_team(owner, teams) for owner in owners), by)
        groups[name] = groups.get(name, OwnerUsage()).plus(usage)
    return groups
