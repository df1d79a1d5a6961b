"""What recommendations are worth, their order, and the sums by owner, team, pool and node. Pure.

A GPU that several recommendations name loses at least as much as the worst says, and at most all of them together, but
never more than all of its time: no sum counts a GPU twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Literal

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.money import UNKNOWN, Interval, Money
from gpu_advisor.evaluation.owners import NO_OWNER, GpuOwner
from gpu_advisor.evaluation.policies import lost_gpu
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import Recommendation, Savings, Waste
from gpu_advisor.rendering.natural_order import natural

SEVERITY_ORDER = {"critical": 0, "warning": 1, "info": 2}

#: Units of recommendations whose numbers are sizes of a pool.
SIZE_UNITS = frozenset({"GPUs", "replicas", "gangs"})

OwnerGroupBy = Literal["owner", "team", "namespace", "user"]
GroupBy = Literal[OwnerGroupBy, "pool", "node"]
NO_TEAM, NO_NAMESPACE, NO_USER = "no team", "no namespace", "no user"


def with_savings(advice: Recommendation, pool: Pool, prices: Prices) -> Recommendation:
    """The recommendation with its worth, and with the change of cost if it changes the size of a pool."""
    change = _size_change(advice, pool)
    if change and not advice.waste:
        return _with_size_change(advice, change, prices)
    advice = _with_projected_waste(advice)
    saves = advice.waste if advice.saves is None else advice.saves
    shares = _shares([(advice, saves)])
    if not shares:  # nothing, or GPUs that are unknown, as of a server that is joined to none
        return advice
    return _with_cost_change(replace(advice, savings=prices.worth(shares)), -1 if change else 0)


def _size_change(advice: Recommendation, pool: Pool) -> int:
    """How many GPUs it adds to its pool; negative: releases."""
    if advice.unit not in SIZE_UNITS or advice.direction == "change":
        return 0
    of_one = 1 if advice.unit == "GPUs" else pool.settings.gpus_per_replica
    return round((advice.recommended - advice.current) * of_one)


def _with_size_change(advice: Recommendation, change: int, prices: Prices) -> Recommendation:
    money = prices.worth_of_any(abs(change), advice.gpus)
    if change > 0:
        projection = replace(advice.projection, cost_change_per_hour=money.value_per_hour)
        return replace(advice, projection=projection) if money.bound == "exact" else advice
    share = min(1.0, -change / len(advice.gpus)) if advice.gpus else 0.0
    found = replace(advice, waste=(Waste((), share, share),), savings=Savings(Interval.exactly(-change), money))
    return _with_cost_change(found, -1)


def _with_cost_change(advice: Recommendation, sign: int) -> Recommendation:
    if not sign or advice.savings is None or advice.savings.money.value_per_hour is None:
        return advice
    change = sign * advice.savings.money.value_per_hour
    return replace(advice, projection=replace(advice.projection, cost_change_per_hour=change))


def _with_projected_waste(advice: Recommendation) -> Recommendation:
    """A GPU whose throughput is projected to be r times as high does 1 / r of its possible work.

    Of a server, at most: its requests may not need all of it.
    """
    bounds = advice.projection.intervals.get("throughput_ratio")
    gain = bounds[1] if bounds else advice.projection.throughput_ratio if advice.kind == "batch_size" else None
    if advice.waste or gain is None or gain <= 1:
        return advice
    lost = 1 - 1 / gain
    return replace(advice, waste=(Waste((), 0.0 if bounds else lost, lost),))


def savings_of(advice: Recommendation, uuids: Collection[str], prices: Prices) -> Savings | None:
    """What a recommendation saves of some of its GPUs, such as those of one owner; None if it has no measure."""
    saves = advice.waste if advice.saves is None else advice.saves
    if set(uuids) >= set(advice.gpus) or not saves:
        return advice.savings
    return prices.worth({uuid: share for uuid, share in _shares([(advice, saves)]).items() if uuid in uuids})


def bounded_savings(advice: Recommendation, prices: Prices) -> Savings | None:
    """As `summarize` counts it, so that rows add up: what nothing else bounds is at most all of the GPUs' time."""
    saves = advice.waste if advice.saves is None else advice.saves
    return prices.worth(_in_sums(_shares([(advice, saves)]))) if advice.savings and saves else advice.savings


def savings_together(advice: Sequence[Recommendation], prices: Prices) -> Savings | None:
    """What several save, as `summarize` counts it; None if none has a measure."""
    found = [(each, each.waste if each.saves is None else each.saves) for each in advice if each.savings]
    return prices.worth(_in_sums(_shares(found))) if any(saves for _, saves in found) else None


def urgency(advice: Recommendation, id_: str) -> tuple[int, bool, float, float, str, str]:
    """The key of every list of recommendations: severity, lost GPUs first, then money, GPUs, scope and id.

    GPU 9 comes before GPU 10.
    """
    money = advice.savings.money.value_per_hour if advice.savings else None
    gpus = advice.savings.gpus.value if advice.savings else None
    scope = natural(str(advice.scope))
    return SEVERITY_ORDER[advice.severity], advice.kind != lost_gpu.KIND, -(money or 0.0), -(gpus or 0.0), scope, id_


@dataclass(frozen=True, slots=True)
class WasteGroup:
    """What the GPUs of one owner, team, pool or node lose."""

    name: str
    worth: Savings


@dataclass(frozen=True, slots=True)
class MoneySummary:
    """Of several recommendations together: what they save, and what is lost now, in all and by group, most first."""

    savings: Savings
    waste: Savings
    by: Mapping[GroupBy, tuple[WasteGroup, ...]]


def summarize(advice: Sequence[Recommendation], facts: Facts, pools: Iterable[Pool], prices: Prices) -> MoneySummary:
    """Of those that have a measure. Without any, the sums are unknown, unless nothing is to be saved."""
    lost = _in_sums(_shares((each, each.waste) for each in advice))
    saved = _in_sums(_shares((each, each.waste if each.saves is None else each.saves) for each in advice))
    names = _group_names(facts, pools)
    unmeasured = not lost and any(not _only_grows(each) for each in advice)
    unknown = Savings(UNKNOWN, Money(UNKNOWN, prices.currency))
    return MoneySummary(
        unknown if unmeasured else prices.worth(saved),
        unknown if unmeasured else prices.worth(lost),
        {by: _groups(lost, name, prices) for by, name in names.items()},
    )


def _only_grows(advice: Recommendation) -> bool:
    """It costs, and recovers nothing."""
    return advice.unit in SIZE_UNITS and advice.direction == "up"


def _shares(found: Iterable[tuple[Recommendation, Iterable[Waste]]]) -> dict[str, Interval]:
    """By GPU: at least the largest share, at most their sum."""
    shares: dict[str, Interval] = {}
    for advice, wastes in found:
        for waste in wastes:
            for uuid in waste.gpus or advice.gpus:
                known = shares.get(uuid)
                shares[uuid] = waste.share if known is None else Interval(
                    max(known.low, waste.low), min(1.0, fsum((_bounded(known), _bounded(waste.share))))
                )  # fmt: skip
    return shares


def _bounded(share: Interval) -> float:
    """No GPU loses more than all of its time."""
    return 1.0 if share.high is None else share.high


def _in_sums(shares: Mapping[str, Interval]) -> dict[str, Interval]:
    """A share that nothing bounds leaves a sum with an upper bound: all of that GPU's time."""
    return {uuid: Interval(share.low, _bounded(share)) for uuid, share in shares.items()}


def _groups(lost: Mapping[str, Interval], name: Callable[[str], str], prices: Prices) -> tuple[WasteGroup, ...]:
    by_name: dict[str, dict[str, Interval]] = {}
    for uuid, share in lost.items():
        by_name.setdefault(name(uuid), {})[uuid] = share
    groups = (WasteGroup(group, prices.worth(shares)) for group, shares in by_name.items())
    return tuple(sorted(groups, key=_most_first))


def _most_first(group: WasteGroup) -> tuple[float, float, str]:
    return -(group.worth.money.value_per_hour or 0.0), -(group.worth.gpus.value or 0.0), group.name


#: The name of an owner's group, and of the group of GPUs without one.
_OWNER_GROUPS: Mapping[OwnerGroupBy, tuple[Callable[[GpuOwner], str], str]] = {
    "owner": (str, NO_OWNER),
    "team": (lambda owner: owner.team, NO_TEAM),
    "namespace": (lambda owner: owner.namespace, NO_NAMESPACE),
    "user": (lambda owner: owner.user, NO_USER),
}


def owner_group(owners: Iterable[GpuOwner], by: OwnerGroupBy) -> str:
    """The group of a GPU with these owners. Owners that share a GPU are one group: nobody knows their parts."""
    name, none = _OWNER_GROUPS[by]
    return " and ".join(sorted({name(each) or none for each in owners})) or none


def _group_names(facts: Facts, pools: Iterable[Pool]) -> dict[GroupBy, Callable[[str], str]]:
    """The name of each GPU's group."""
    pool_of = {gpu.uuid: pool.settings.name for pool in pools for gpu in pool.devices}
    node_of = {gpu.uuid: gpu.node for gpu in facts.gpus}

    def of_owners(by: OwnerGroupBy) -> Callable[[str], str]:
        return lambda uuid: owner_group(facts.owners.get(uuid, ()), by)

    return {
        "owner": of_owners("owner"),
        "team": of_owners("team"),
        "namespace": of_owners("namespace"),
        "user": of_owners("user"),
        "pool": lambda uuid: pool_of.get(uuid, ""),
        "node": lambda uuid: node_of.get(uuid, ""),
    }
