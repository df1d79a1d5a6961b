"""Amounts that are known within bounds, and money per hour. Pure.

A bound is part of the amount: the sum over GPUs of which one has no price is "at least", a loss that may have other
causes as well is "at most". What is unknown widens the interval; it is never a zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: A month in hours: 365 x 24 / 12.
HOURS_PER_MONTH = 730

Bound = Literal["exact", "at_least", "at_most"]

BOUND_WORDS: dict[Bound, str] = {"exact": "", "at_least": "at least ", "at_most": "at most "}

#: Relative width below which an interval is one number.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A number between `low` and `high`, both at least 0. `high` is None if nothing bounds it."""

    low: float = 0.0
    high: float | None = None

    @staticmethod
    def exactly(value: float) -> Interval:
        return Interval(value, value)

    @staticmethod
    def at_most(value: float) -> Interval:
        return Interval(0.0, value)

    def __add__(self, other: Interval) -> Interval:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Interval(self.low + other.low, high)

    def times(self, factor: float) -> Interval:
        return Interval(self.low * factor, None if self.high is None else self.high * factor)

    @property
    def bound(self) -> Bound | None:
        """How `value` is to be read; None if nothing is known."""
        if self.high is None:
            return "at_least" if self.low > 0 else None
        return "exact" if self.high - self.low <= _ROUNDING * self.high else "at_most"

    @property
    def value(self) -> float | None:
        """The one number to show with its bound; None if nothing is known."""
        if self.high is not None:
            return self.high
        return self.low if self.low > 0 else None


NOTHING = Interval.exactly(0.0)
UNKNOWN = Interval()


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """Price of a GPU-hour. An estimate comes from list prices of the dates `oldest` to `newest` (as in 2026-09-20)."""

    amount: float
    currency: str
    estimated: bool = False
    oldest: str = ""
    newest: str = ""


@dataclass(frozen=True, slots=True)
class Money:
    """Money per hour. `estimated`: some of it is at list prices of the dates `oldest` to `newest`."""

    per_hour: Interval
    currency: str
    estimated: bool = False
    oldest: str = ""
    newest: str = ""

    @property
    def bound(self) -> Bound | None:
        return self.per_hour.bound

    @property
    def value_per_hour(self) -> float | None:
        return self.per_hour.value

    @property
    def value_per_month(self) -> float | None:
        value = self.per_hour.value
        return None if value is None else value * HOURS_PER_MONTH

    @property
    def basis(self) -> str:
        """`estimate, list prices of 2026-09-20`; empty for prices of the settings."""
        if not self.estimated:
            return ""
        dates = self.oldest if self.oldest == self.newest else f"{self.oldest} to {self.newest}"
        return f"estimate, list prices of {dates}"

    def __str__(self) -> str:
        """`at least 2.50 USD per hour (1,825 USD per month; estimate, list prices of 2026-09-20)`."""
        if self.value_per_hour is None or self.value_per_month is None or self.bound is None:
            return "unknown"
        basis = f"; {self.basis}" if self.basis else ""
        return (
            f"{BOUND_WORDS[self.bound]}{self.value_per_hour:,.2f} {self.currency} per hour "
            f"({self.value_per_month:,.0f} {self.currency} per month{basis})"
        )


def price_of(gpus: Interval, price: GpuPrice) -> Money:
    """Of so many GPUs."""
    return Money(gpus.times(price.amount), price.currency, price.estimated, price.oldest, price.newest)


def unpriced(gpus: Interval, currency: str) -> Money:
    """Of GPUs without a price: unknown, unless there are none."""
    return Money(NOTHING if gpus.high == 0 else UNKNOWN, currency)


def total(parts: Iterable[Money], currency: str) -> Money:
    """The sum; all parts are in `currency`."""
    per_hour, dated = NOTHING, []
    for part in parts:
        per_hour = per_hour + part.per_hour
        if part.estimated and part.per_hour.value:
            dated.append(part)
    if not dated:
        return Money(per_hour, currency)
    return Money(per_hour, currency, True, min(each.oldest for each in dated), max(each.newest for each in dated))
