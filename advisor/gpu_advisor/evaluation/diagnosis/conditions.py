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


#: Looked up some hundred times a GPU: as names of their own they cost half.
_YES, _NO, _BORDERLINE, _MISSING = Truth.YES, Truth.NO, Truth.BORDERLINE, Truth.MISSING


@dataclass(frozen=True, slots=True)
class ThresholdCondition:
    """One feature against a threshold: `yes` is where the condition begins to hold, `no` where it is seen to fail."""

    feature: str
    side: Literal["above", "below"]
    holds_from: float
    fails_from: float

    def __post_init__(self) -> None:
        if (self.holds_from < self.fails_from) == (self.side == "above"):
            raise ValueError(f"{self.feature}: {self.fails_from} is on the wrong side of {self.holds_from}")

    def truth(self, features: Features) -> Truth:
        value = features[self.feature]
        if value is None:
            return _MISSING
        if self.side == "above":
            return _YES if value >= self.holds_from else _NO if value <= self.fails_from else _BORDERLINE
        return _YES if value <= self.holds_from else _NO if value >= self.fails_from else _BORDERLINE

    def parts(self) -> tuple[ThresholdCondition, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds if one of them does; fails if all of them do."""

    of: tuple[ThresholdCondition, ...]

    def truth(self, features: Features) -> Truth:
        found = [condition.truth(features) for condition in self.of]
        return next((truth for truth in (Truth.YES, Truth.BORDERLINE, Truth.MISSING) if truth in found), Truth.NO)

    def parts(self) -> tuple[ThresholdCondition, ...]:
        return self.of


@dataclass(frozen=True, slots=True)
class UnlessCondition:
    """Fails where the other one holds; what is missing speaks against nothing."""

    other: ThresholdCondition

    def truth(self, features: Features) -> Truth:
        found = self.other.truth(features)
        return _NO if found is _YES else _BORDERLINE if found is _BORDERLINE else _YES

    def parts(self) -> tuple[ThresholdCondition, ...]:
        return (self.other,)


Condition = ThresholdCondition | AnyOf | UnlessCondition


def above(feature: str, holds_from: float, fails_from: float) -> ThresholdCondition:
    return ThresholdCondition(feature, "above", holds_from, fails_from)


def below(feature: str, holds_from: float, fails_from: float) -> ThresholdCondition:
    return ThresholdCondition(feature, "below", holds_from, fails_from)


def any_of(*conditions: ThresholdCondition) -> AnyOf:
    return AnyOf(conditions)


def unless(other: ThresholdCondition) -> UnlessCondition:
    return UnlessCondition(other)


def all_of(conditions: tuple[Condition, ...], features: Features) -> Truth:
    """Fails if one of them does; else not told if one cannot be; else borderline if one is."""
    worst = _YES
    for condition in conditions:
        truth = condition.truth(features)
        if truth is _NO:
            return truth
        if truth is not _YES and worst is not _MISSING:
            worst = truth
    return worst
