"""Recommendations and checks as CSV, for scripts and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from gpu_advisor.documents.savings import savings_fields
from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.evaluation.recommendation import Check
from gpu_advisor.rendering.escaping import escape_formula
from gpu_advisor.state.view import PublishedRecommendation

RECOMMENDATION_COLUMNS = (
    "id", "kind", "severity", "scope_kind", "scope", "current", "recommended", "unit", "diagnosis", "confidence",
    "since", "held", "projected_utilization_ratio", "cost_change_per_hour", "summary",
    "savings_per_hour", "savings_per_month", "savings_bound", "currency", "estimated",
)  # fmt: skip

CHECK_COLUMNS = (
    "item", "scope_kind", "scope", "status", "severity", "value", "low", "high", "missed_by", "reason", "message",
)  # fmt: skip


def recommendations_csv(chosen: Iterable[PublishedRecommendation]) -> str:
    return _csv(RECOMMENDATION_COLUMNS, map(_row, chosen))


def checks_csv(chosen: Iterable[Check]) -> str:
    rows = (
        (
            each.item, each.scope.kind, escape_formula(each.scope.name), each.status.value, each.severity, each.value,
            each.low, each.high, each.missed_by, each.reason.value if each.reason else None,
            escape_formula(each.message),
        )
        for each in chosen
    )  # fmt: skip
    return _csv(CHECK_COLUMNS, rows)


def _row(issued: PublishedRecommendation) -> tuple[object, ...]:
    of, worth = issued.recommendation, savings_fields(issued.recommendation.savings)
    return (
            issued.id, of.kind, of.severity, of.scope.kind, escape_formula(of.scope.name), of.current, of.recommended,
            of.unit, of.diagnosis, of.confidence, format_rfc3339(issued.since), str(issued.stale).lower(),
            of.projection.utilization_ratio, of.projection.cost_change_per_hour, escape_formula(of.summary),
            worth["savings_per_hour"], worth["savings_per_month"], worth["savings_bound"], worth["currency"],
            None if worth["estimated"] is None else str(worth["estimated"]).lower(),
        )  # fmt: skip


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180; with "\n", a lone \r in a field is not quoted
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()
