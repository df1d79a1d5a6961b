"""PromQL for the fleet's numbers, to reproduce them in Prometheus. Pure.

Each is a subquery over the steps of the period, pinned to its end. They are for people: the report itself reads plain
ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpu_advisor.evaluation.pools import ALLOCATED_MEMORY_RATIO
from gpu_advisor.promql.compiler import format_duration, to_promql
from gpu_advisor.promql.expressions import Expression
from gpu_advisor.report import series
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.schema import QueryDocument
from gpu_advisor.report.usage import IDLE_MIN_COVERAGE, IDLE_RATIO

FLEET = "/groups/0"


def fleet_queries(past: FleetHistory) -> list[QueryDocument]:
    """Queries of the numbers that are known."""
    text = {part: f"({to_promql(expression)})" for part, expression in past.expressions.items()}
    return list(_queries(text, past.period)) if _has(past.expressions, series.UTILIZATION) else []


def _has(expressions: Mapping[str, Expression], *parts: str) -> bool:
    return all(part in expressions for part in parts)


def _queries(text: Mapping[str, str], period: ReportPeriod) -> Iterator[QueryDocument]:
    utilization = text[series.UTILIZATION]
    # A step with a single sample has coverage, and no mean: it is in no sum.
    seen = f"(clamp_max({text[series.COVERAGE]}, 1) and {utilization})"
    seen_hours, busy_hours = _hours(f"{seen}", period), _hours(f"{utilization} * {seen}", period)
    yield _query("GPU utilization", "gpu_utilization_ratio", f"{busy_hours} / ({seen_hours})")
    yield _query("observed GPU-hours", "gpu_hours/observed", seen_hours)
    yield _query("busy GPU-hours", "gpu_hours/busy", busy_hours)
    yield _query("unused GPU-hours", "gpu_hours/unused", f"{seen_hours} - {busy_hours}")
    if series.MEMORY not in text:
        return
    memory, step = text[series.MEMORY], _over(period)
    yield _query(
        "GPU memory", "gpu_memory_ratio", f"sum(sum_over_time({memory}{step})) / sum(count_over_time({memory}{step}))"
    )
    holding = f"({memory} > bool {ALLOCATED_MEMORY_RATIO})"
    yield _query("GPU-hours with memory allocated", "gpu_hours/memory_allocated", _hours(f"{seen} * {holding}", period))
    mean = text.get(series.IDLE_UTILIZATION, utilization)
    coverage = text.get(series.IDLE_COVERAGE, text[series.COVERAGE])
    idle = f"({mean} < bool {IDLE_RATIO}) * ({coverage} >= bool {IDLE_MIN_COVERAGE})"
    yield _query(
        "GPU-hours idle with memory allocated",
        "gpu_hours/idle_allocated",
        _hours(f"{seen} * {idle} * {holding}", period),
    )


def _query(about: str, path: str, promql: str) -> QueryDocument:
    return {"about": about, "path": f"{FLEET}/{path}", "promql": promql}


def _hours(expression: str, period: ReportPeriod) -> str:
    return f"{period.step_hours!r} * sum(sum_over_time(({expression}){_over(period)}))"


def _over(period: ReportPeriod) -> str:
    """All steps of the period and none before. A little shorter, as the left end of a window may be inclusive."""
    window = period.points * period.step_seconds - 1
    return f"[{format_duration(window)}:{format_duration(period.step_seconds)}] @ {period.end:.3f}"
