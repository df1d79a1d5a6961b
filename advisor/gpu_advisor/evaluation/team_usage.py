"""GPUs by team and namespace: how many they have, how busy these are, and what the rest costs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.savings import owner_group
from gpu_advisor.evaluation.signals import UTILIZATION


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """The GPUs of one team in one namespace. Owners who share a GPU are one team, as in reports.

    `busy` is the sum of the utilization (0 to 1) of the `measured` GPUs, those whose utilization is known.
    `unused_cost_per_hour` is the price of the rest of these; None if no price is known. `estimated`: at list prices.
    """

    team: str
    namespace: str
    gpus: int
    measured: int
    busy: float
    unused_cost_per_hour: float | None
    currency: str = ""
    estimated: bool = False


def team_usage(facts: Facts, prices: Mapping[str, GpuPrice]) -> tuple[TeamUsage, ...]:
    """By team and namespace. `prices` are by uuid. Of a GPU in MIG mode its slices count, which have owners."""
    members: dict[tuple[str, str], list[str]] = {}
    boards = {gpu.parent for gpu in facts.gpus}
    for gpu in (each for each in facts.gpus if each.uuid not in boards):
        owners = facts.owners.get(gpu.uuid, ())
        members.setdefault((owner_group(owners, "team"), owner_group(owners, "namespace")), []).append(gpu.uuid)
    return tuple(_usage(facts, prices, team, namespace, uuids) for (team, namespace), uuids in sorted(members.items()))


def _usage(facts: Facts, prices: Mapping[str, GpuPrice], team: str, namespace: str, uuids: list[str]) -> TeamUsage:
    known = {uuid: value for uuid in uuids if (value := facts.value(UTILIZATION, uuid)) is not None}
    priced = {uuid: price for uuid in known if (price := prices.get(uuid)) is not None}
    return TeamUsage(
        team,
        namespace,
        len(uuids),
        len(known),
        sum(known.values()),
        sum((1 - known[uuid]) * price.amount for uuid, price in priced.items()) if priced else None,
        next((price.currency for price in priced.values()), ""),
        any(price.estimated for price in priced.values()),
    )
