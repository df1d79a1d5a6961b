"""What each GPU costs per hour: by the settings' prices, else estimated at list prices, else unknown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from gpu_advisor.cost.list_prices import ListPrice
from gpu_advisor.cost.offers import GpuVariant
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.money import NOTHING, GpuPrice, Interval, Money, price_of, total, unpriced
from gpu_advisor.evaluation.recommendation import Savings
from gpu_advisor.evaluation.signals import MEMORY_TOTAL
from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB, form_factor, nominal_gb, parse_gpu_type
from gpu_advisor.settings import CostSettings


@dataclass(frozen=True)
class PriceList:
    """Prices of GPU models. `list_prices` are per type and memory size."""

    cost: CostSettings
    list_prices: Mapping[GpuVariant, ListPrice]

    def price(self, name: str, memory_bytes: float | None = None) -> GpuPrice | None:
        """Of a GPU by the driver's name and, if known, its memory. None if it is unknown or ambiguous."""
        gpu = _describe(name, memory_bytes)
        amounts = self._set_prices(gpu)
        if amounts:
            return GpuPrice(min(amounts), self.cost.currency) if len(amounts) == 1 else None
        listed = self.list_prices.get(gpu.variant) if self.cost.list_prices else None
        if listed is None or listed.currency != self.cost.currency:
            return None  # no exchange rate is made up
        return GpuPrice(listed.amount, listed.currency, True, listed.oldest, listed.newest)

    def _set_prices(self, gpu: _Model) -> frozenset[float]:
        """The prices of the most specific names that cover a GPU. Several: its name does not say which of them."""
        exact = self.cost.gpu_price_per_hour.get(gpu.name)
        if exact is not None:
            return frozenset((exact,))
        matching = [(each.details, amount) for each, amount in self._set if each.covers(gpu)]
        most = max((details for details, _ in matching), default=0)
        return frozenset(amount for details, amount in matching if details == most)

    @cached_property
    def _set(self) -> tuple[tuple[_Model, float], ...]:
        return tuple((_describe(name), amount) for name, amount in self.cost.gpu_price_per_hour.items())


@dataclass(frozen=True, slots=True)
class _Model:
    """What a name says of a GPU; memory in GB, None if unknown."""

    name: str
    type: str
    stated_gb: float | None
    form: str
    variant: GpuVariant

    @property
    def details(self) -> int:
        return (self.stated_gb is not None) + bool(self.form)

    def covers(self, gpu: _Model) -> bool:
        """Whether a price under this name is one of this GPU."""
        return (
            self.type == gpu.type
            and (self.stated_gb is None or self.stated_gb == gpu.variant.memory_gb)
            and (not self.form or not gpu.form or self.form == gpu.form)
        )


def _describe(name: str, memory_bytes: float | None = None) -> _Model:
    found, sizes = parse_gpu_type(name), GPU_MEMORY_GIB.get(parse_gpu_type(name).name, ())
    reported = None if memory_bytes is None else nominal_gb(found.name, memory_bytes)
    if found.memory_gb is not None:
        size: float | None = found.memory_gb
    elif len(sizes) == 1:
        size = float(sizes[0])
    else:
        size = reported if reported in sizes else None
    return _Model(name, found.name, found.memory_gb, form_factor(name), GpuVariant(found.name, size))


def billable(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs that are paid for: a slice is paid with its board, if that is among them."""
    known = tuple(gpus)
    boards = {gpu.uuid for gpu in known}
    return tuple(gpu for gpu in known if not gpu.mig_profile or gpu.parent not in boards)


def model_prices(facts: Facts, prices: Mapping[str, GpuPrice]) -> Mapping[str, GpuPrice]:
    """By the driver's name, of models whose GPUs all have one price."""
    by_name: dict[str, set[GpuPrice | None]] = {}
    for gpu in facts.gpus:
        if not gpu.mig_profile:
            by_name.setdefault(gpu.name, set()).add(prices.get(gpu.uuid))
    return {
        name: price
        for name, found in sorted(by_name.items())
        if len(found) == 1 and (price := next(iter(found))) is not None
    }


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by GPU uuid, all in one currency; a GPU that is not in it has an unknown price."""

    by_gpu: Mapping[str, GpuPrice]
    currency: str

    def worth(self, shares: Mapping[str, Interval]) -> Savings:
        """So much of each GPU, and its price."""
        gpus, sums = NOTHING, dict[GpuPrice | None, Interval]()
        for uuid, share in shares.items():
            gpus = gpus + share
            price = self.by_gpu.get(uuid)
            sums[price] = sums.get(price, NOTHING) + share
        return Savings(gpus, self._total(sums))

    def cost(self, uuids: Iterable[str]) -> Money:
        """Of these GPUs, each whole."""
        counts = Counter(map(self.by_gpu.get, uuids))
        return self._total({price: Interval.exactly(float(count)) for price, count in counts.items()})

    def _total(self, sums: Mapping[GpuPrice | None, Interval]) -> Money:
        """Of so many GPUs of each price."""
        parts = (unpriced(sum_, self.currency) if price is None else price_of(sum_, price)
                 for price, sum_ in sums.items())  # fmt: skip
        return total(parts, self.currency)

    def worth_of_any(self, count: int, uuids: Sequence[str]) -> Money:
        """Of `count` of these GPUs: which of them is not known."""
        found = sorted({price for uuid in uuids if (price := self.by_gpu.get(uuid))}, key=lambda price: price.amount)
        if not found:
            return unpriced(Interval.exactly(count), self.currency)
        unknown = sum(1 for uuid in uuids if uuid not in self.by_gpu)
        cheapest = price_of(Interval.exactly(max(0, count - unknown)), found[0]).per_hour.low
        dearest = None if unknown else count * found[-1].amount
        return replace(total((price_of(Interval.exactly(1), each) for each in found), self.currency),
                       per_hour=Interval(cheapest, dearest))  # fmt: skip


def fleet_prices(facts: Facts, cost: CostSettings) -> Prices:
    """Of each GPU whose price is known. A MIG slice has no price of its own."""
    prices = PriceList(cost, facts.list_prices)
    by_model: dict[tuple[str, float | None], GpuPrice | None] = {}
    found: dict[str, GpuPrice] = {}
    for gpu in facts.gpus:
        model = gpu.name, facts.value(MEMORY_TOTAL, gpu.uuid)
        if model not in by_model:
            by_model[model] = prices.price(*model)
        price = by_model[model]
        if price is not None and not gpu.mig_profile:
            found[gpu.uuid] = price
    return Prices(found, cost.currency)
