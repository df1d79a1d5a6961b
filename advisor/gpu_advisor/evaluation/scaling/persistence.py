"""How much of a burst outlasts a replica's start-up, learned from the pool's own past.

A burst is the demand above the level. Some pools' bursts last for a minute, others' for a quarter of an hour: only the
latter are worth a new replica. The persistence is the coefficient (0..1) of a regression of the demand above the level
on the burst one start-up before; recent steps weigh more. It is 0 until there is evidence (RIDGE), so that a pool
without bursts is sized by its level alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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

    @property
    def least_bursts(self) -> list[float]:
        return _bursts(self.lower, self.high)

    @property
    def most_bursts(self) -> list[float]:
        return _bursts(self.upper, self.low)


def _bursts(values: Sequence[float], levels: Sequence[float]) -> list[float]:
    return [value - level if value > level else 0.0 for value, level in zip(values, levels, strict=True)]


def faded_sums(values: Sequence[float], fade: float, window_steps: int, initial: float = 0.0) -> list[float]:
    """At each step, the sum of the values up to it, at most `window_steps` back, in which each step leaves `fade`."""
    if len(values) > window_steps:
        expired = fade**window_steps
        rest = (value - expired * old for value, old in zip(values[window_steps:], values, strict=False))
        values = [*values[:window_steps], *rest]
    return list(accumulate(values, lambda total, value: total * fade + value, initial=initial))[1:]


def running_persistence(bounds: DemandBounds, ahead_steps: int, fade: float, window_steps: int) -> list[float]:
    """The persistence known at each step, from at most `window_steps` back; with incomplete data, an upper bound.

    `fade` is what is left of a step's weight after one step.
    """
    most = bounds.most_bursts
    least = most if bounds.exact else bounds.least_bursts
    unknown = [0.0] * min(ahead_steps, len(most))
    above = [value - level for value, level in zip(bounds.upper[ahead_steps:], bounds.low, strict=False)]
    products = [(x if y > 0 else z) * y for x, y, z in zip(most, above, least, strict=False)]
    squares = [z * z for z in least[: len(above)]]
    return [
        min(1.0, max(0.0, product) / (max(0.0, square) + RIDGE))
        for product, square in zip(
            faded_sums(unknown + products, fade, window_steps),
            faded_sums(unknown + squares, fade, window_steps),
            strict=True,
        )
    ]
