"""A mapping restricted to the targets of its exporter, and the expressions it gives."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    AggregateOp,
    Expression,
    Filter,
    Function,
    Matcher,
    Ratio,
    Reduction,
    Selector,
    Sum,
    restrict_to_values,
    union,
)
from gpu_advisor.sources.exporters.mapping import (
    ExporterMapping,
    GaugeSum,
    MetricSelector,
    Quantity,
    QuantityOf,
    label_matchers,
)

_GAUGE_FUNCTIONS: dict[Reduction, Function] = {
    "last": "last", "mean": "mean", "min": "min", "max": "max", "quantile": "quantile",
}  # fmt: skip

#: Floating-point tolerance of a whole number.
ROUNDING = 1e-9

#: Windows from this length on are read from recorded series if present: a day has too many raw samples.
LONG_WINDOW_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True)
class ExporterDialect:
    """One exporter family on its targets.

    `target_matchers` keep other programs' series of the same names out, and copies of this one's. `interval_seconds` is
    the scrape interval, if known: data coverage is the number of samples times the interval. `successive`: a thing may
    have several series in a window, one after the other, and a mean is over the samples of all. `cluster_label` is part
    of what identifies a thing, unless empty. `things`, if any, restricts results to these values of the mapping's
    first identifying label.
    """

    mapping: ExporterMapping
    target_matchers: tuple[Matcher, ...] = ()
    interval_seconds: float | None = None
    successive: bool = True
    cluster_label: str = ""
    things: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.mapping.name

    @property
    def by(self) -> tuple[str, ...]:
        """The labels that identify a GPU or node in results."""
        return self._with_cluster(self.mapping.by)

    def _with_cluster(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return (self.cluster_label, *labels) if self.cluster_label else labels

    def expression(
        self, quantity: str, reduction: Reduction, window_seconds: int | None, q: float | None = None
    ) -> Expression | None:
        """The expression of this reduction of a quantity, or None if the exporter does not support it."""
        built = [
            expression
            for form in self.mapping.definitions(quantity)
            if (expression := self._quantity_expression(form, reduction, window_seconds, q)) is not None
        ]
        if not built:
            return None
        found = union(*built)
        return restrict_to_values(found, self.mapping.by[0], self.things) if self.things else found

    def _quantity_expression(
        self, quantity: Quantity, reduction: Reduction, window_seconds: int | None, q: float | None
    ) -> Expression | None:
        by = self._with_cluster(quantity.each) if quantity.each else self.by
        inner = _ExpressionBuilder(self, quantity, by, window_seconds, q).build(reduction)
        return Aggregate("max", self.by, inner) if inner is not None and quantity.each else inner

    def selector(
        self,
        metric: MetricSelector,
        by: tuple[str, ...],
        function: Function,
        window_seconds: int | None,
        q: float | None,
        of: QuantityOf = "gpu",
    ) -> Expression:
        """A selector restricted to the targets, with the labels in `by` under canonical names."""
        where = self.mapping.where if of == "gpu" else {}
        conditions = (*self.target_matchers, *label_matchers(where), *label_matchers(metric.match))
        selector = Selector(metric.metric, function, window_seconds, q, conditions)
        return self.mapping.relabel(selector, by, of, metric.labels)


@dataclass(frozen=True, slots=True)
class _ExpressionBuilder:
    dialect: ExporterDialect
    quantity: Quantity
    by: tuple[str, ...]
    window_seconds: int | None
    q: float | None

    def build(self, reduction: Reduction) -> Expression | None:
        for form in (self._share, self._level, self._gauge, self._total, self._counter, self._rate_gauge, self._rollup):
            built = form(reduction)
            if built is not None:
                return built
        return None

    def _share(self, reduction: Reduction) -> Expression | None:
        share = self.quantity.share
        if share is None or isinstance(share.whole, GaugeSum) or reduction not in ("mean", "coverage", "samples"):
            return None
        if reduction in ("coverage", "samples"):
            return self._counted(share.whole, reduction)
        # Not rate: VictoriaMetrics divides it by the time that has samples, so that rates of series that succeed one
        # another do not add up.
        part, whole = self._reduce("sum", share.part, "increase"), self._reduce("sum", share.whole, "increase")
        return _complement(Ratio(part, whole), share.complement)

    def _level(self, reduction: Reduction) -> Expression | None:
        level = self.quantity.level
        if level is None or reduction not in _GAUGE_FUNCTIONS:
            return None
        # The maximum of "1 - x" is at the minimum of x.
        swapped: dict[Function, Function] = {"min": "max", "max": "min"} if level.complement else {}
        function = swapped.get(_GAUGE_FUNCTIONS[reduction], _GAUGE_FUNCTIONS[reduction])
        q = 1 - self.q if level.complement and self.q is not None else self.q
        whole = level.whole
        now = self._sum_of(whole, "last") if isinstance(whole, GaugeSum) else self._gauge_over_time(whole, "last")
        return _complement(Ratio(self._gauge_over_time(level.part, function, q), now), level.complement)

    def _gauge(self, reduction: Reduction) -> Expression | None:
        gauge = self.quantity.gauge
        if gauge is None:
            return None
        if reduction in ("coverage", "samples"):
            return self._counted(gauge, reduction)
        if reduction not in _GAUGE_FUNCTIONS:
            return None
        return _scale(self._gauge_over_time(gauge, _GAUGE_FUNCTIONS[reduction], self.q), gauge.scale)

    def _total(self, reduction: Reduction) -> Expression | None:
        total = self.quantity.total
        # Not for min and max: the maximum of a sum is not the sum of maxima.
        if total is None or (reduction != "last" and reduction != "mean"):
            return None
        return self._sum_of(total, reduction)

    def _sum_of(self, total: GaugeSum, function: Function) -> Expression:
        terms = tuple(self._gauge_over_time(metric, function) for metric in total.sum)
        return _scale(Sum(terms), total.scale)

    def _counted(self, metric: MetricSelector, reduction: Reduction) -> Expression | None:
        """The number of samples in the window, or for coverage, the share of the window they represent."""
        count = self._reduce("sum" if self.dialect.successive else "max", metric, "count")
        if reduction == "samples":
            return count
        if self.dialect.interval_seconds is None or self.window_seconds is None:
            return None
        # Of a window that is no multiple of the interval, a whole number of scrapes: at two minutes, five have two or
        # three. A window with closed edges may have one more.
        scrapes = max(1, int(self.window_seconds / self.dialect.interval_seconds + ROUNDING))
        return Affine(count, 1 / scrapes, upper=1.0)

    def _counter(self, reduction: Reduction) -> Expression | None:
        counter = self.quantity.counter
        if counter is None or (reduction != "rate" and reduction != "increase"):
            return None
        top = _scale(self._reduce("sum", counter, reduction), counter.scale)
        return Ratio(top, self._gauge_over_time(counter.per, "last")) if counter.per else top

    def _rate_gauge(self, reduction: Reduction) -> Expression | None:
        speed = self.quantity.speed
        if speed is None or reduction != "rate":
            return None
        return _scale(self._gauge_over_time(speed, "mean"), speed.scale)

    def _rollup(self, reduction: Reduction) -> Expression | None:
        rollup = self.quantity.rollup
        if rollup is None or self.window_seconds is None or self.window_seconds < LONG_WINDOW_SECONDS:
            return None
        if reduction in ("mean", "min", "max"):
            return self._reduce("max", MetricSelector(metric=rollup.mean), _GAUGE_FUNCTIONS[reduction])
        if reduction != "coverage" or rollup.coverage is None:
            return None
        observed_steps = self._reduce("max", MetricSelector(metric=rollup.coverage), "sum")
        return Affine(observed_steps, rollup.step_seconds / self.window_seconds, upper=1.0)

    def _gauge_over_time(self, metric: MetricSelector, function: Function, q: float | None = None) -> Expression:
        """A gauge of each thing; its mean is over the samples of all its series, which are disjoint in time.

        A reduction over readings that mean no value, which are huge, is left out.
        """
        found: Expression
        if function == "mean" and self.dialect.successive:
            found = Ratio(self._reduce("sum", metric, "sum"), self._reduce("sum", metric, "count"))
        else:
            found = self._reduce("min" if function == "min" else "max", metric, function, q)
        limit = self.dialect.mapping.limit(metric)
        return found if limit is None else Filter(found, "<", limit)

    def _reduce(
        self, op: AggregateOp, metric: MetricSelector, function: Function, q: float | None = None
    ) -> Expression:
        window = None if function == "last" else self.window_seconds
        return Aggregate(op, self.by, self.dialect.selector(metric, self.by, function, window, q, self.quantity.of))


def _scale(operand: Expression, scale: float) -> Expression:
    return operand if scale == 1 else Affine(operand, scale)


def _complement(operand: Expression, complement: bool) -> Expression:
    return Affine(operand, -1.0, 1.0) if complement else operand
