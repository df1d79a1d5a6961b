"""Expressions for a report's numbers: recorded series, or the exporters' own over the same windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from gpu_advisor.promql.expressions import Affine, Expression, Reduction, ScopeName, Selector, union
from gpu_advisor.report.period import HOUR
from gpu_advisor.sources.exporters.dialect import ExporterDialect

#: The label that distinguishes the parts of a combined query. No exporter has it.
PART_LABEL = "gpu_advisor_part"

UTILIZATION, COVERAGE, MEMORY, CPU = "utilization", "coverage", "memory", "cpu"

#: The same over the half hour before, if a step is shorter: they decide whether a GPU is idle.
IDLE_UTILIZATION, IDLE_COVERAGE = "idle_utilization", "idle_coverage"
IDLE_SECONDS = 1800

#: Counted or extrapolated, these may slightly exceed 1; they are clamped where used.
COVERAGE_PARTS = frozenset({COVERAGE, IDLE_COVERAGE})

#: Part -> quantity of the mappings, and its reduction over a step.
_QUANTITIES: Mapping[str, tuple[str, Reduction]] = {
    UTILIZATION: ("gpu_utilization", "mean"),
    COVERAGE: ("gpu_utilization", "coverage"),
    MEMORY: ("gpu_memory_used", "mean"),
    IDLE_UTILIZATION: ("gpu_utilization", "mean"),
    IDLE_COVERAGE: ("gpu_utilization", "coverage"),
    CPU: ("node_cpu", "mean"),
}

_HALF_HOUR: Mapping[str, Expression] = {
    UTILIZATION: Selector("gpu:utilization_ratio:mean30m"),
    COVERAGE: Selector("gpu:utilization_coverage_ratio:mean30m"),
}


def gpu_parts(step_seconds: int) -> tuple[str, ...]:
    idle = (IDLE_UTILIZATION, IDLE_COVERAGE) if step_seconds < IDLE_SECONDS else ()
    return (UTILIZATION, COVERAGE, MEMORY, *idle)


def recorded(step_seconds: int) -> dict[str, Expression]:
    """Series of the recording rules. A series that is a mean over a step is read unchanged."""
    memory = Selector("gpu:memory_used_ratio:last", "mean", step_seconds)
    if step_seconds < IDLE_SECONDS:
        mean = Selector("gpu:utilization_ratio:mean5m")
        return {
            UTILIZATION: mean,
            COVERAGE: _one_where_present(mean),  # a GPU with a mean was observed, as on the dashboards
            MEMORY: memory,
            IDLE_UTILIZATION: _HALF_HOUR[UTILIZATION],
            IDLE_COVERAGE: _HALF_HOUR[COVERAGE],
        }
    if step_seconds < HOUR:
        return {**_HALF_HOUR, MEMORY: memory}
    hourly = {
        UTILIZATION: "gpu:utilization_ratio:mean1h",
        COVERAGE: "gpu:utilization_coverage_ratio:mean1h",
        MEMORY: "gpu:memory_used_ratio:mean1h",
    }
    return {part: Selector(name, "mean", step_seconds) for part, name in hourly.items()}


#: For nodes there is no hourly series; the mean over 5 minutes is recorded at each evaluation of the rules.
def recorded_cpu_expression(step_seconds: int) -> Expression:
    return Selector("node:cpu_ratio:mean5m", "mean", step_seconds)


def raw(
    parts: Sequence[str], dialects: Sequence[ExporterDialect], scope: ScopeName, step_seconds: int
) -> dict[str, Expression]:
    """The exporters' own series by part, without parts that no exporter reports."""
    found: dict[str, Expression] = {}
    for part in parts:
        each = [
            expression
            for dialect in dialects
            if dialect.mapping.scope == scope and (expression := _expression(part, dialect, step_seconds)) is not None
        ]
        if each:
            found[part] = union(*each)
    return found


def _expression(part: str, dialect: ExporterDialect, step_seconds: int) -> Expression | None:
    quantity, reduction = _QUANTITIES[part]
    length = IDLE_SECONDS if part in (IDLE_UTILIZATION, IDLE_COVERAGE) else step_seconds
    window = max(length, ceil(2.5 * (dialect.interval_seconds or 0)))  # a rate needs two scrapes
    found = dialect.expression(quantity, reduction, window)
    if found is None and reduction == "coverage":  # without coverage, a value counts as observed
        mean = dialect.expression(quantity, "mean", window)
        return None if mean is None else _one_where_present(mean)
    return found


def _one_where_present(mean: Expression) -> Expression:
    return Affine(mean, 0.0, 1.0)
