"""List prices of single GPUs: what the catalogue's on-demand offers cost per GPU. Pure, but for `shipped_list_prices`.

An estimate where no price is set: the median over all offers of exactly that GPU, with the rest of the instance in
it. The median, since a GPU's price differs by a factor of three between providers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median
from types import MappingProxyType

from gpu_advisor.cost.offers import ON_PREMISE, GpuVariant, InstanceOffer

#: Of all prices in the shipped catalogue.
CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class ListPrice:
    """Price of a GPU-hour. `oldest` and `newest` are the dates of its offers, as in 2026-09-20."""

    amount: float
    currency: str
    oldest: str
    newest: str
    offers: int
    providers: tuple[str, ...]


def list_prices(offers: Iterable[InstanceOffer]) -> Mapping[GpuVariant, ListPrice]:
    """Per type and memory size. Parts of a card and on-premise machines are left out."""
    found: dict[GpuVariant, list[InstanceOffer]] = {}
    for offer in offers:
        if offer.provider != ON_PREMISE and offer.card_ratio == 1.0:
            found.setdefault(offer.gpu, []).append(offer)
    return MappingProxyType({gpu: _list_price(each) for gpu, each in sorted(found.items(), key=lambda e: str(e[0]))})


def _list_price(offers: list[InstanceOffer]) -> ListPrice:
    return ListPrice(
        amount=round(median(each.price_per_hour / each.gpu_count for each in offers), 4),
        currency=CURRENCY,
        oldest=min(each.dated for each in offers).isoformat(),
        newest=max(each.dated for each in offers).isoformat(),
        offers=len(offers),
        providers=tuple(sorted({each.provider for each in offers})),
    )


@cache
def shipped_list_prices() -> Mapping[GpuVariant, ListPrice]:
    """Of the catalogue in the package, read once: without types that were retired by the day of its newest price."""
    from gpu_advisor.cost.catalogue import builtin_catalogue

    catalogue = builtin_catalogue()
    known_on = max(offer.dated for offer in catalogue.offers)
    return list_prices(
        offer
        for offer in catalogue.offers
        if catalogue.retirement(offer.provider, offer.instance_type, known_on) is None
    )
