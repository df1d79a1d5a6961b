"""Mapping files: how the signals' quantities are spelled by one family of exporters.

A quantity has up to four forms, and a signal's reduction picks the form that gives it best:

    share   two counters, part of whole: the mean over any window is exact        (busy seconds of observed seconds)
    level   two gauges, part of whole                                             (memory used of memory total)
    gauge   one gauge, with a scale                                               (percent to ratio)
    counter one counter, perhaps per a gauge                                      (bytes per link speed)

`by` are the labels that name the thing measured; `each`, if given, are finer labels (a disk, a link), of which the
highest value counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from gpu_advisor.expressions import Affine, Aggregate, Expression, Function, Matcher, Ratio, Select

Reduction = Literal["last", "mean", "min", "max", "quantile", "rate", "increase", "coverage", "samples"]
ScopeName = Literal["gpu", "node"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Strict):
    metric: str
    match: dict[str, str] = Field(default_factory=dict)

    def select(self, function: Function, window_seconds: int | None, q: float | None = None) -> Select:
        matchers = tuple(Matcher(label, "=", value) for label, value in sorted(self.match.items()))
        return Select(self.metric, function, window_seconds, q, matchers)


class Gauge(Metric):
    scale: float = 1.0


class Part(_Strict):
    part: Metric
    whole: Metric
    complement: bool = False


class Counter(Metric):
    per: Metric | None = None


class Quantity(_Strict):
    each: tuple[str, ...] = ()
    share: Part | None = None
    level: Part | None = None
    gauge: Gauge | None = None
    counter: Counter | None = None


class Mapping(_Strict):
    name: str
    scope: ScopeName
    by: tuple[str, ...]
    quantities: dict[str, Quantity]

    def expression(
        self, quantity: str, reduction: Reduction, window_seconds: int | None, q: float | None = None
    ) -> Expression | None:
        """The expression of this reduction of a quantity, or None if the exporter has nothing that gives it."""
        found = self.quantities.get(quantity)
        if found is None:
            return None
        forms = _Forms(found, found.each or self.by, window_seconds, q)
        inner = forms.build(reduction)
        return Aggregate("max", self.by, inner) if inner is not None and found.each else inner


@dataclass(frozen=True, slots=True)
class _Forms:
    quantity: Quantity
    by: tuple[str, ...]
    window_seconds: int | None
    q: float | None

    def build(self, reduction: Reduction) -> Expression | None:
        for form in (self._share, self._level, self._gauge, self._counter):
            built = form(reduction)
            if built is not None:
                return built
        return None

    def _share(self, reduction: Reduction) -> Expression | None:
        share = self.quantity.share
        if share is None or reduction not in ("mean", "coverage", "samples"):
            return None
        whole = self._sum(share.whole.select("rate", self.window_seconds))
        if reduction == "coverage":  # seconds observed per second; the extrapolation of rate leaves out what is missing
            return whole
        if reduction == "samples":
            return Aggregate("sum", self.by, share.whole.select("count", self.window_seconds))
        return _complement(Ratio(self._sum(share.part.select("rate", self.window_seconds)), whole), share.complement)

    def _level(self, reduction: Reduction) -> Expression | None:
        level = self.quantity.level
        if level is None or reduction not in ("last", "mean", "min", "max", "quantile"):
            return None
        # Of "1 - x" the highest is where x is lowest.
        swapped = {"min": "max", "max": "min"} if level.complement else {}
        function: Function = swapped.get(reduction, reduction)  # type: ignore[assignment]
        q = 1 - self.q if level.complement and self.q is not None else self.q
        part = self._max(level.part.select(function, self.window_seconds, q))
        return _complement(Ratio(part, self._max(level.whole.select("last", None))), level.complement)

    def _gauge(self, reduction: Reduction) -> Expression | None:
        gauge = self.quantity.gauge
        if gauge is None or reduction not in ("last", "mean", "min", "max", "quantile"):
            return None
        selected = self._max(gauge.select(reduction, self.window_seconds, self.q))
        return selected if gauge.scale == 1 else Affine(selected, gauge.scale)

    def _counter(self, reduction: Reduction) -> Expression | None:
        counter = self.quantity.counter
        if counter is None or reduction not in ("rate", "increase"):
            return None
        top = self._sum(counter.select(reduction, self.window_seconds))
        return Ratio(top, self._max(counter.per.select("last", None))) if counter.per else top

    # An exporter's restart may leave two series of one thing in a window: counters add up, gauges must not.
    def _sum(self, of: Expression) -> Expression:
        return Aggregate("sum", self.by, of)

    def _max(self, of: Expression) -> Expression:
        return Aggregate("max", self.by, of)


def _complement(of: Expression, wanted: bool) -> Expression:
    return Affine(of, -1.0, 1.0) if wanted else of


@cache
def mappings() -> tuple[Mapping, ...]:
    """All mapping files, by name of the file."""
    return tuple(Mapping.model_validate(yaml.safe_load(text)) for text in _files())


def _files() -> Iterator[str]:
    folder = resources.files("gpu_advisor.sources") / "mappings"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            yield file.read_text(encoding="utf-8")
