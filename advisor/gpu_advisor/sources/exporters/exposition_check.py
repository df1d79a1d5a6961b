"""What mappings make of one saved /metrics page: its GPUs and nodes, their values, and what no mapping uses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_advisor.promql.expressions import Expression, Labels, Reduction, Selector, metrics_of
from gpu_advisor.sources.algebra import MutableVector, evaluate_expression
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import RowReader
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_advisor.sources.exporters.unmapped import is_gpu_metric
from gpu_advisor.sources.matchers import compile_matchers

#: A page is one scrape: reductions that read gauges, in this order, over any window.
_REDUCTIONS: tuple[Reduction, ...] = ("last", "mean", "rate")
_ANY_WINDOW_SECONDS = 300

#: Series by metric.
Page = Mapping[str, Mapping[Labels, float]]


@dataclass(frozen=True, slots=True)
class MappedThing:
    """A GPU or node. `values` are by quantity, in the advisor's units; `counters` are those that need two scrapes."""

    identity: Mapping[str, str]
    values: Mapping[str, float]
    counters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MappedPage:
    """A mapping applied to a page. `missing` are its quantities without a value, `unused` GPU metrics it does not read.

    `unidentified` is the number of identity series in which all labels that could identify have placeholders; `shared`
    are identities of several GPUs, by their numbers.
    """

    mapping: ExporterMapping
    things: tuple[MappedThing, ...]
    missing: tuple[str, ...] = ()
    unidentified: int = 0
    shared: tuple[str, ...] = ()
    used_metrics: frozenset[str] = field(default_factory=frozenset)


def apply_mappings(mappings: Iterable[ExporterMapping], page: Page) -> tuple[MappedPage, ...]:
    """The mappings that find something on the page: the preferred one of each scope, as a target counts for one."""
    found: dict[str, MappedPage] = {}
    for mapping in mappings:
        if not mapping.companion and mapping.scope not in found:
            each = apply_mapping(mapping, page)
            if each.things or each.unidentified:
                found[mapping.scope] = each
    return tuple(found.values())


def unused_metrics(found: Sequence[MappedPage], page: Page) -> tuple[str, ...]:
    """Metrics of the page that look like a GPU's and that no mapping reads."""
    used = {metric for each in found for metric in each.used_metrics}
    return tuple(sorted(metric for metric in page if metric not in used and is_gpu_metric(metric)))


def apply_mapping(mapping: ExporterMapping, page: Page) -> MappedPage:
    """One mapping applied to a page."""
    identifier = mapping.by[0]
    rows = RowReader(mapping).read(sorted(_evaluate(mapping.identity_expression(), page)))
    identities: dict[str, Mapping[str, str]] = {}
    numbers: dict[str, set[str]] = {}
    for row in rows:
        if row.get(identifier):
            identities.setdefault(row[identifier], row)
            numbers.setdefault(row[identifier], set()).add(row.get("index", ""))
    dialect = ExporterDialect(mapping)
    values: dict[str, dict[str, float]] = {name: {} for name in identities}
    counters: dict[str, set[str]] = {name: set() for name in identities}
    used: set[str] = set(mapping.identity.metrics)
    missing = []
    for quantity in mapping.quantities:
        read, expressions = _read_quantity(dialect, quantity, page)
        used |= {metric for expression in expressions for metric in metrics_of(expression)}
        counted = _things_with_series(expressions, page, identifier) - read.keys()
        for name in identities:
            if name in read:
                values[name][quantity] = read[name]
            elif name in counted:
                counters[name].add(quantity)
        if not any(name in read or name in counted for name in identities):
            missing.append(quantity)
    things = tuple(MappedThing(identities[name], values[name], frozenset(counters[name])) for name in identities)
    return MappedPage(
        mapping,
        things,
        tuple(missing),
        sum(1 for row in rows if not row.get(identifier)),
        tuple(name for name, indexes in numbers.items() if len(indexes) > 1),
        frozenset(used),
    )


def _read_quantity(dialect: ExporterDialect, quantity: str, page: Page) -> tuple[dict[str, float], list[Expression]]:
    """Values by GPU or node from the first reduction that has any, and the expressions of all."""
    expressions = []
    found: dict[str, float] = {}
    for reduction in _REDUCTIONS:
        window = None if reduction == "last" else _ANY_WINDOW_SECONDS
        expression = dialect.expression(quantity, reduction, window)
        if expression is not None:
            expressions.append(expression)
            for labels, value in _evaluate(expression, page).items():
                found.setdefault(dict(labels).get(dialect.mapping.by[0], ""), value)
    return found, expressions


def _things_with_series(expressions: Iterable[Expression], page: Page, identifier: str) -> set[str]:
    """The GPUs and nodes that a leaf of the expressions has a series for, as a counter has in a single scrape."""
    found: set[str] = set()
    for expression in expressions:
        for labels in _evaluate(expression, page, counters_as_gauges=True):
            found.add(dict(labels).get(identifier, ""))
    return found


def _evaluate(expression: Expression, page: Page, *, counters_as_gauges: bool = False) -> MutableVector:
    def lookup(part: Expression) -> MutableVector | None:
        if not isinstance(part, Selector):
            return None
        if part.function in ("rate", "increase") and not counters_as_gauges:
            return {}
        matches = compile_matchers(part.matchers)
        series = page.get(part.metric, {})
        return {
            labels: 1.0 if part.function == "count" else value
            for labels, value in series.items()
            if matches(dict(labels))
        }

    return evaluate_expression(expression, lookup)
