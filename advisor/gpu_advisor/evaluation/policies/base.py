"""The interface of a policy: one function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation
from gpu_advisor.settings import Settings


class Policy(Protocol):
    """A pure function: no clock, no network, no globals. The live engine and every replay run the same code."""

    def __call__(self, facts: Facts, settings: Settings, pool: Pool, /) -> Iterable[Recommendation | Abstention]: ...


def cost_change(settings: Settings, pool: Pool, change_gpus: int) -> float | None:
    """Cost per hour of this many more GPUs (negative: fewer); None unless all GPUs of the pool have one price."""
    prices = {settings.cost.gpu_price_per_hour.get(gpu.name) for gpu in pool.gpus}
    price = prices.pop() if len(prices) == 1 else None
    return None if price is None else price * change_gpus
