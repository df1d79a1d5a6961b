"""Conditions with dead bands, in a logic that knows what it does not know.

A condition holds from one threshold on and fails from another; between the two, and where the value is missing, it
does neither. So a value that wanders about a threshold does not make advice come and go, and missing data decides
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Features = Mapping[str, float | None]


class Truth(Enum):
    YES = "yes"
    NO = "no"
    BORDERLINE = "borderline"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class At:
    """One feature against a threshold: `yes` is where the condition begins to hold, `no` where it is seen to fail."""

    feature: str
    side: Literal["above", "below"]
    yes: float
    no: float

    def __post_init__(self) -> None:
        if (self.yes < self.no) == (self.side == "above"):
            raise ValueError(f"{self.feature}: {self.no} is on the wrong side of {self.yes}")

    def truth(self, features: Features) -> Truth:
        value = features[self.feature]
        if value is None:
            return Truth.MISSING
        if self.side == "above":
            return Truth.YES if value >= self.yes else Truth.NO if value <= self.no else Truth.BORDERLINE
        return Truth.YES if value <= self.yes else Truth.NO if value >= self.no else Truth.BORDERLINE

    def parts(self) -> tuple[At, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds if one of them does; fails if all of them do."""

    of: tuple[At, ...]

    def truth(self, features: Features) -> Truth:
        found = [condition.truth(features) for condition in self.of]
        return next((truth for truth in (Truth.YES, Truth.BORDERLINE, Truth.MISSING) if truth in found), Truth.NO)

    def parts(self) -> tuple[At, ...]:
        return self.of


Condition = At | AnyOf


def above(feature: str, yes: float, no: float) -> At:
    return At(feature, "above", yes, no)


def below(feature: str, yes: float, no: float) -> At:
    return At(feature, "below", yes, no)


def either(*conditions: At) -> AnyOf:
    return AnyOf(conditions)


def all_of(conditions: tuple[Condition, ...], features: Features) -> Truth:
    """Fails if one of them does; else not told if one cannot be; else borderline if one is."""
    worst = Truth.YES
    for condition in conditions:
        truth = condition.truth(features)
        if truth is Truth.NO:
            return truth
        if truth is Truth.MISSING or (truth is Truth.BORDERLINE and worst is Truth.YES):
            worst = truth
    return worst
