"""Conditions with dead bands, in a four-valued logic.

A condition holds from one threshold on and fails from another; between the two it is borderline, and without data it is
missing. So a value that fluctuates around a threshold does not make recommendations flap, and missing data decides
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


#: Looked up some hundred times per GPU: module names halve the cost of the enum attributes.
_YES, _NO, _BORDERLINE, _MISSING = Truth.YES, Truth.NO, Truth.BORDERLINE, Truth.MISSING


@dataclass(frozen=True, slots=True)
class ThresholdCondition:
    """One feature against a threshold: the condition holds from `holds_from` on, and fails from `fails_from` on."""

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
    """Holds if one of the conditions does; fails if all of them do."""

    of: tuple[ThresholdCondition, ...]

    def truth(self, features: Features) -> Truth:
        found = [condition.truth(features) for condition in self.of]
        return next((truth for truth in (Truth.YES, Truth.BORDERLINE, Truth.MISSING) if truth in found), Truth.NO)

    def parts(self) -> tuple[ThresholdCondition, ...]:
        return self.of


@dataclass(frozen=True, slots=True)
class UnlessCondition:
    """Fails if `other` holds; a missing value counts as no objection."""

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
    """Fails if one condition fails; else missing if one is missing; else borderline if one is."""
    worst = _YES
    for condition in conditions:
        truth = condition.truth(features)
        if truth is _NO:
            return truth
        if truth is not _YES and worst is not _MISSING:
            worst = truth
    return worst
