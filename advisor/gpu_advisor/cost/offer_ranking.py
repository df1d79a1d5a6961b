"""Ranks offers by the cost per unit of a job's work, never by the hourly price. Pure.

A spot instance may be interrupted, and the work since the last checkpoint is repeated: with a ratio r of repeated work,
a job takes 1 + r times as long. Lost work grows with the checkpoint interval; Young, 1974
(https://doi.org/10.1145/361147.361115) gives the best one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from gpu_advisor.cost.catalogue import Catalogue
from gpu_advisor.cost.offer_throughput import OfferThroughput, WorkRate, offer_throughput
from gpu_advisor.cost.offers import GpuVariant, InstanceOffer, normalize_instance_type

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class JobRequirements:
    """A job, and the requirements on its `instances` instances of one type.

    `amount`: units of work (samples, tokens or GPU hours); without it, only the cost per million units is known.
    Empty `gpus`, `providers`, `regions` and `instance_types` allow all. `interruption_ratio`: share of the work that is
    repeated on spot instances. `budget`: for the whole job, in the catalogue's currency.
    """

    rates: tuple[WorkRate, ...]
    amount: float | None = None
    gpu_memory_gib: float = 0.0
    instances: int = 1
    min_gpus: int = 1
    max_gpus: int | None = None
    gpus: tuple[GpuVariant, ...] = ()
    providers: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    instance_types: frozenset[str] = frozenset()
    spot: bool = False
    interruption_ratio: float = 0.0
    budget: float | None = None
    deadline_hours: float | None = None
    scaling_ratio: float | None = None
    estimate: bool = False

    def allows_instance_type(self, offer: InstanceOffer) -> bool:
        """Whether its instance type is allowed; without `instance_types`, all are."""
        return not self.instance_types or normalize_instance_type(offer.instance_type) in {
            normalize_instance_type(each) for each in self.instance_types
        }


@dataclass(frozen=True, slots=True)
class RankedOffer:
    """An offer at one of its prices, with the requirements that it fails; feasible if none.

    `price_per_hour`: of all its instances, None for an unknown spot price. Hours and costs are None if the throughput
    (or the amount of work) is unknown.
    """

    offer: InstanceOffer
    spot: bool
    price_per_hour: float | None
    throughput: OfferThroughput
    hours: float | None
    cost: float | None
    cost_per_unit: float | None
    failed: tuple[str, ...]
    only_throughput: bool = False
    """Infeasible only because its throughput is unknown."""

    @property
    def feasible(self) -> bool:
        return not self.failed


@dataclass(frozen=True, slots=True)
class OfferRanking:
    """Feasible candidates by cost per unit of work, then the others in the catalogue's order."""

    candidates: tuple[RankedOffer, ...]

    @property
    def best(self) -> RankedOffer | None:
        return self.candidates[0] if self.candidates and self.candidates[0].feasible else None

    @property
    def feasible(self) -> tuple[RankedOffer, ...]:
        return tuple(each for each in self.candidates if each.feasible)

    @property
    def undetermined(self) -> bool:
        """No offer is known to be feasible, but one may be: its throughput is unknown."""
        return self.best is None and any(each.only_throughput for each in self.candidates)


def rank_offers(work: JobRequirements, catalogue: Catalogue, today: date) -> OfferRanking:
    """Evaluate every offer, on demand and, if allowed, as a spot instance."""
    found = [evaluate_offer(offer, spot, work, catalogue, today) for offer, spot in _offers_by_price(catalogue, work)]
    return OfferRanking((*sorted((each for each in found if each.feasible), key=_sort_key),
                   *(each for each in found if not each.feasible)))  # fmt: skip


def evaluate_offer(
    offer: InstanceOffer, spot: bool, work: JobRequirements, catalogue: Catalogue, today: date
) -> RankedOffer:
    """Evaluate one offer at one price for the job."""
    instance_price = offer.spot_price_per_hour if spot else offer.price_per_hour
    price = None if instance_price is None else instance_price * work.instances
    throughput = offer_throughput(offer, work.rates, work.scaling_ratio, work.estimate, work.instances)
    rework_factor = 1 + work.interruption_ratio if spot else 1.0
    hours = cost = per_unit = None
    if throughput.per_second is not None:
        hours_per_unit = rework_factor / throughput.per_second / 3600
        per_unit = None if price is None else price * hours_per_unit
        if work.amount is not None:
            hours = work.amount * hours_per_unit
            cost = None if price is None else price * hours
    failed = tuple(_failures(offer, price, work, catalogue, today, hours, cost))
    unknown = throughput.per_second is None
    return RankedOffer(
        offer, spot, price, throughput, hours, cost, per_unit, (*failed, throughput.basis) if unknown else failed,
        only_throughput=unknown and not failed,
    )  # fmt: skip


def _offers_by_price(catalogue: Catalogue, work: JobRequirements) -> Iterator[tuple[InstanceOffer, bool]]:
    for offer in catalogue.offers:
        yield offer, False
        if work.spot:
            yield offer, True


def _failures(
    offer: InstanceOffer, price: float | None, work: JobRequirements, catalogue: Catalogue, today: date,
    hours: float | None, cost: float | None,
) -> Iterator[str]:  # fmt: skip
    retirement = catalogue.retirement(offer.provider, offer.instance_type, today)
    if retirement:
        yield f"retired on {retirement.retired_on} ({retirement.source})"
    if work.providers and offer.provider not in work.providers:
        yield f"provider {offer.provider} is not allowed"
    if work.regions and offer.region not in work.regions:
        yield f"region {offer.region} is not allowed"
    if not work.allows_instance_type(offer):
        yield "instance type is not allowed"
    if work.gpus and not any(gpu.covers(offer.gpu) for gpu in work.gpus):
        yield f"GPU {offer.gpu} is not allowed"
    if offer.gpu_memory_gib < work.gpu_memory_gib:
        yield f"{offer.gpu_memory_gib:g} GiB per GPU, needs {work.gpu_memory_gib:g}"
    gpus = offer.gpu_count * work.instances
    if gpus < work.min_gpus:
        yield f"{gpus} GPUs, needs at least {work.min_gpus}"
    if work.max_gpus is not None and gpus > work.max_gpus:
        yield f"{gpus} GPUs, at most {work.max_gpus} allowed"
    if price is None:
        yield "spot price unknown"
    if work.deadline_hours is not None and hours is not None and hours > work.deadline_hours:
        yield f"takes {hours:.4g} h, the deadline is {work.deadline_hours:g} h"
    if work.budget is not None and cost is not None and cost > work.budget:
        yield f"costs {cost:.2f}, the budget is {work.budget:.2f}"


def _sort_key(each: RankedOffer) -> tuple[float, float, str, str, str, int, bool]:
    """By cost per unit, then throughput, then name, so that the result does not depend on the catalogue's order."""
    assert each.cost_per_unit is not None
    assert each.throughput.per_second is not None
    of, throughput = each.offer, each.throughput.per_second
    return each.cost_per_unit, -throughput, of.provider, of.region, of.instance_type, of.gpu_count, each.spot
