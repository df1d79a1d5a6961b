"""How much of a burst outlasts a replica's start-up, learned from the pool's own past.

A burst is the demand above the level. Some pools' bursts last for a minute, others' for a quarter of an hour: only the
latter are worth a new replica. The persistence is the coefficient (0..1) of a regression of the demand above the level
on the burst one start-up before; recent steps weigh more. It is 0 until there is evidence (RIDGE), so that a pool
without bursts is sized by its level alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Evidence against persistence beforehand (ridge regression), in squared replicas.
RIDGE = 20.0


@dataclass(frozen=True, slots=True)
class DemandBounds:
    """Bounds of the demand by step, and of its level. Complete data has equal bounds."""

    upper: Sequence[float]
    lower: Sequence[float]
    high: Sequence[float]  # of the level
    low: Sequence[float]

    @property
    def exact(self) -> bool:
        return self.upper is self.lower


def burst_bounds(bounds: DemandBounds, index: int) -> tuple[float, float]:
    """The least and the largest burst that a step may have had."""
    return (
        max(0.0, bounds.lower[index] - bounds.high[index]),
        max(0.0, bounds.upper[index] - bounds.low[index]),
    )


def running_persistence(bounds: DemandBounds, ahead_steps: int, fade: float, window_steps: int) -> list[float]:
    """The persistence known at each step, from at most `window_steps` back; with incomplete data, an upper bound.

    `fade` is what is left of a step's weight after one step.
    """
    expired = fade**window_steps
    products: list[tuple[float, float]] = []
    product = square = 0.0
    found: list[float] = []
    for index, value in enumerate(bounds.upper):
        product, square = product * fade, square * fade
        if index >= ahead_steps:
            start = index - ahead_steps
            least, most = burst_bounds(bounds, start)
            above = value - bounds.low[start]
            products.append(((most if above > 0 else least) * above, least * least))
            product, square = product + products[-1][0], square + products[-1][1]
            if len(products) > window_steps:
                oldest = products[-1 - window_steps]
                product, square = product - expired * oldest[0], square - expired * oldest[1]
        found.append(min(1.0, max(0.0, product) / (max(0.0, square) + RIDGE)))
    return found
