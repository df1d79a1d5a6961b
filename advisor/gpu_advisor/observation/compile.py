"""Signals -> expressions over the exporters that are present. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.promql.expressions import Expression, Filter, Labels, Vector, subexpressions, union
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import RECORDED_SERIES


def compile_signals(found: Sequence[ExporterDialect], settings: Settings) -> dict[str, Expression]:
    """Each signal's expression over all exporter families that support it; per GPU, the first family wins."""
    return {name: union(*parts.values()) for name, parts in compile_by_exporter(lambda _: found, settings).items()}


def compile_by_exporter(
    find_dialects: Callable[[int | None], Sequence[ExporterDialect]], settings: Settings
) -> dict[str, dict[str, Expression]]:
    """Expressions by signal and exporter family, in order of precedence. Dialects are by window (seconds).

    If recorded series cover a long window, its raw samples are not read.
    """
    compiled: dict[str, dict[str, Expression]] = {}
    for signal in signals.SIGNALS:
        parts: dict[str, Expression] = {}
        for dialect in find_dialects(signal.window_seconds(settings.evaluation)):
            expression = None
            if dialect.mapping.scope == signal.scope:
                expression = compile_signal(signal, dialect, settings.evaluation)
            if expression is not None:
                before = (parts[dialect.name],) if dialect.name in parts else ()
                parts[dialect.name] = union(*before, expression)
                if dialect.name == RECORDED_SERIES:
                    break
        if parts:
            compiled[signal.name] = parts
    return compiled


def limited_readings(expressions: Mapping[str, Expression]) -> dict[str, Filter]:
    """The parts of expressions that leave out readings which mean no value, by signal and number."""
    return {
        f"{name}/{number}": part
        for name, expression in expressions.items()
        for number, part in enumerate(dict.fromkeys(_filters(expression)))
    }


def discarded_readings(limited: Mapping[str, Filter], values: Mapping[str, Vector]) -> dict[str, dict[Labels, float]]:
    """The readings left out, by signal. `values` has those of the parts' operands."""
    found: dict[str, dict[Labels, float]] = {}
    for key, part in limited.items():
        for labels, value in values[key].items():
            if not value < part.limit:  # NaN as well
                found.setdefault(key.rpartition("/")[0], {})[labels] = value
    return found


def _filters(expression: Expression) -> Iterator[Filter]:
    if isinstance(expression, Filter):
        yield expression
    for part in subexpressions(expression):
        yield from _filters(part)


def step_utilization(
    found: Sequence[ExporterDialect], step_seconds: int, *, overlapping: bool = False
) -> Expression | None:
    """Utilization over one step of a history, and over two scrapes at least: a rate needs two samples.

    An increase reaches from the first to the last sample of its window, so what happens between two windows is in
    neither. `overlapping` windows begin a scrape earlier.
    """
    parts: list[Expression] = []
    for dialect in found:
        if dialect.mapping.scope == signals.UTILIZATION.scope and dialect.name != RECORDED_SERIES:
            interval = dialect.interval_seconds or 0
            window = max(step_seconds + (ceil(1.1 * interval) if overlapping else 0), ceil(2.5 * interval))
            expression = dialect.expression(signals.UTILIZATION.quantity, signals.UTILIZATION.reduction, window)
            parts += [expression] if expression is not None else []
    return union(*parts) if parts else None


def compile_signal(signal: Signal, dialect: ExporterDialect, settings: EvaluationSettings) -> Expression | None:
    """The expression of a signal, or None if this exporter does not support it."""
    return dialect.expression(signal.quantity, signal.reduction, signal.window_seconds(settings))
