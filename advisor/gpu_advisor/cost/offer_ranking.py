"""The cheapest offer that does a job: by what a unit of its work costs, never by the price of an hour. Pure.

A spot instance is taken away at times, and what was done since the last checkpoint is done again: with a ratio r of
work done twice, a job takes 1 + r times as long. Work lost before it is saved grows with the time between checkpoints;
Young, 1974 (https://doi.org/10.1145/361147.361115) says how to choose that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from gpu_advisor.cost.catalogue import Catalogue
from gpu_advisor.cost.offer_throughput import OfferThroughput, WorkRate, speed
from gpu_advisor.cost.offers import GpuVariant, InstanceOffer, normalize_instance_type

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class JobRequirements:
    """A job, and what is asked of the machines it runs on: so many `instances` of one type.

    `amount` in units of work (samples, tokens or GPU hours); without it there is a cost for a million units only.
    Empty `gpus`, `providers`, `regions` and `instance_types` allow all. `interruption_ratio`: of the work, done twice
    on spot instances. `budget` is money for the whole job, in the catalogue's currency.
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

    def names(self, offer: InstanceOffer) -> bool:
        """Whether it is one of the instance types asked for; without any, all are."""
        return not self.instance_types or normalize_instance_type(offer.instance_type) in {
            normalize_instance_type(each) for each in self.instance_types
        }


@dataclass(frozen=True, slots=True)
class RankedOffer:
    """An offer at one of its prices, with all that it failed on; nothing failed: it can do the job.

    `price_per_hour` is of all its instances, and None for a spot price that is not known. Hours and costs are None
    where throughput (or the amount of work) is not known.
    """

    offer: InstanceOffer
    spot: bool
    price_per_hour: float | None
    speed: OfferThroughput
    hours: float | None
    cost: float | None
    cost_per_unit: float | None
    failed: tuple[str, ...]
    only_throughput: bool = False
    """It failed on nothing but that its throughput is not known."""

    @property
    def feasible(self) -> bool:
        return not self.failed


@dataclass(frozen=True, slots=True)
class OfferRanking:
    """Feasible candidates from the cheapest work on, then the others in the catalogue's order."""

    candidates: tuple[RankedOffer, ...]

    @property
    def best(self) -> RankedOffer | None:
        return self.candidates[0] if self.candidates and self.candidates[0].feasible else None

    @property
    def feasible(self) -> tuple[RankedOffer, ...]:
        return tuple(each for each in self.candidates if each.feasible)

    @property
    def cannot_tell(self) -> bool:
        """Nothing is feasible, but something might be, if its throughput were known."""
        return self.best is None and any(each.only_throughput for each in self.candidates)


def rank_offers(work: JobRequirements, catalogue: Catalogue, today: date) -> OfferRanking:
    """Every offer judged, on demand and, where allowed, as a spot instance."""
    found = [evaluate_offer(offer, spot, work, catalogue, today) for offer, spot in _offers_by_price(catalogue, work)]
    return OfferRanking((*sorted((each for each in found if each.feasible), key=_sort_key),
                   *(each for each in found if not each.feasible)))  # fmt: skip


def evaluate_offer(
    offer: InstanceOffer, spot: bool, work: JobRequirements, catalogue: Catalogue, today: date
) -> RankedOffer:
    """One offer at one price against the job."""
    each = offer.spot_price_per_hour if spot else offer.price_per_hour
    price = None if each is None else each * work.instances
    known = speed(offer, work.rates, work.scaling_ratio, work.estimate, work.instances)
    rework_factor = 1 + work.interruption_ratio if spot else 1.0
    hours = cost = per_unit = None
    if known.per_second is not None:
        hours_per_unit = rework_factor / known.per_second / 3600
        per_unit = None if price is None else price * hours_per_unit
        if work.amount is not None:
            hours = work.amount * hours_per_unit
            cost = None if price is None else price * hours
    failed = tuple(_failures(offer, price, work, catalogue, today, hours, cost))
    unknown = known.per_second is None
    return RankedOffer(
        offer, spot, price, known, hours, cost, per_unit, (*failed, known.basis) if unknown else failed,
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
    gone = catalogue.retirement(offer.provider, offer.instance_type, today)
    if gone:
        yield f"retired on {gone.retired_on} ({gone.source})"
    if work.providers and offer.provider not in work.providers:
        yield f"provider {offer.provider} is not among those asked for"
    if work.regions and offer.region not in work.regions:
        yield f"region {offer.region} is not among those asked for"
    if not work.names(offer):
        yield "not among the instance types asked for"
    if work.gpus and not any(gpu.covers(offer.gpu) for gpu in work.gpus):
        yield f"GPU {offer.gpu} is not among those asked for"
    if offer.gpu_memory_gib < work.gpu_memory_gib:
        yield f"{offer.gpu_memory_gib:g} GiB a GPU, {work.gpu_memory_gib:g} are needed"
    gpus = offer.gpu_count * work.instances
    if gpus < work.min_gpus:
        yield f"{gpus} GPUs, at least {work.min_gpus} are needed"
    if work.max_gpus is not None and gpus > work.max_gpus:
        yield f"{gpus} GPUs, at most {work.max_gpus} are wanted"
    if price is None:
        yield "spot price unknown"
    if work.deadline_hours is not None and hours is not None and hours > work.deadline_hours:
        yield f"takes {hours:.4g} h, the deadline is {work.deadline_hours:g} h"
    if work.budget is not None and cost is not None and cost > work.budget:
        yield f"costs {cost:.2f}, the budget is {work.budget:.2f}"


def _sort_key(each: RankedOffer) -> tuple[float, float, str, str, str, int, bool]:
    """By cost of work; equals by speed, then by name, so that the answer does not depend on the catalogue's order."""
    assert each.cost_per_unit is not None
    assert each.speed.per_second is not None
    of = each.offer
    return each.cost_per_unit, -each.speed.per_second, of.provider, of.region, of.instance_type, of.gpu_count, each.spot
