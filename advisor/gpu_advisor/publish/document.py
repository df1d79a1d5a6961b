"""The view as plain data, the one shape that the API, the command line and the page's scripts see.

Ratios are 0..1, times are RFC 3339 in UTC, and what is not known is null, never zero.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from gpu_advisor.checks import FLEET
from gpu_advisor.engine import PoolState
from gpu_advisor.recommendation import Abstention, Check, Evidence, Reason, Scope
from gpu_advisor.view import Issued, SourceState, View

Document = dict[str, Any]

#: Checks of nodes are part of /recommendations for fleets up to this size; beyond it, ask /checks.
MOST_NODE_CHECKS = 64

CSV_COLUMNS = (
    "id", "kind", "severity", "scope_kind", "scope", "current", "recommended", "unit", "diagnosis", "confidence",
    "since", "held", "projected_utilization_ratio", "cost_change_per_hour", "summary",
)  # fmt: skip


def timestamp(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def scope(of: Scope) -> Document:
    return {"kind": of.kind, "name": of.name, "label": str(of)}


def evidence(of: Evidence) -> Document:
    return {
        "signal": of.signal,
        "about": of.about,
        "statistic": of.statistic,
        "window_seconds": of.window_seconds,
        "value": of.value,
        "unit": of.unit,
        "threshold": of.threshold,
        "samples": of.samples,
        "coverage_ratio": of.coverage,
        "promql": of.promql,
    }


def recommendation(issued: Issued) -> Document:
    of = issued.recommendation
    return {
        "id": issued.id,
        "kind": of.kind,
        "direction": of.direction,
        "scope": scope(of.scope),
        "severity": of.severity,
        "summary": of.summary,
        "current": of.current,
        "recommended": of.recommended,
        "unit": of.unit,
        "diagnosis": of.diagnosis,
        "explanation": of.explanation,
        "confidence": of.confidence,
        "since": timestamp(issued.since),
        "held": issued.held,
        "projection": {
            "utilization_ratio": of.projection.utilization_ratio,
            "memory_ratio": of.projection.memory_ratio,
            "throughput_ratio": of.projection.throughput_ratio,
            "cost_change_per_hour": of.projection.cost_change_per_hour,
        },
        "evidence": [evidence(each) for each in of.evidence],
        "rejected": [{"action": each.action, "why_not": each.why_not} for each in of.rejected],
        "apply": list(of.apply),
        "runbook": issued.runbook,
        "gpus": list(of.gpus),
        "nodes": list(of.nodes),
    }


def abstention(of: Abstention) -> Document:
    return {"reason": of.reason.value, "subject": of.subject, "scope": scope(of.scope), "message": of.message}


def check(of: Check) -> Document:
    return {
        "item": of.item,
        "title": of.title,
        "scope": scope(of.scope),
        "status": of.status.value,
        "severity": of.severity,
        "value": of.value,
        "low": of.low,
        "high": of.high,
        "missed_by": of.missed_by,
        "reason": of.reason.value if of.reason else None,
        "message": of.message,
        "evidence": [evidence(each) for each in of.evidence],
    }


def pool(state: PoolState) -> Document:
    settings, numbers = state.pool.settings, state.numbers
    return {
        "name": settings.name,
        "kind": settings.kind,
        "capacity_gpus": numbers.capacity,
        "allocated_gpus": numbers.allocated,
        "busy_gpus": numbers.busy,
    }


def source(of: SourceState) -> Document:
    return {
        "name": of.name,
        "address": of.address,
        "up": of.up,
        "error": of.error or None,
        "message": of.message,
        "last_success": timestamp(of.last_success),
    }


def header(view: View) -> Document:
    """What every answer begins with: of when it is, and whether it can be believed."""
    evaluation = view.evaluation
    return {
        "cluster": view.cluster,
        "at": timestamp(evaluation.at) if evaluation else None,
        "stale": view.stale,
        "simulated": evaluation.facts.simulated if evaluation else None,
        "source": source(view.source),
    }


def recommendations(view: View, chosen: Sequence[Issued], page: int, per_page: int) -> Document:
    """One page of the chosen recommendations, and what frames them."""
    evaluation = view.evaluation
    first = (page - 1) * per_page
    return {
        **header(view),
        "total": len(chosen),
        "page": page,
        "per_page": per_page,
        "recommendations": [recommendation(each) for each in chosen[first : first + per_page]],
        "abstentions": [abstention(each) for each in abstentions(view)],
        "pools": [pool(state) for state in evaluation.pools] if evaluation else [],
        "checks": {
            "counts": dict(Counter(each.status.value for each in evaluation.checks)) if evaluation else {},
            "items": [check(each) for each in _leading_checks(view)],
        },
    }


def abstentions(view: View) -> tuple[Abstention, ...]:
    """Those of the evaluation, and the source's own."""
    said = view.evaluation.abstentions if view.evaluation else ()
    if view.source.up:
        return said
    reason = Reason.STALE if view.evaluation else Reason.NO_DATA
    return (Abstention(reason, "source", FLEET, view.source.message), *said)


def _leading_checks(view: View) -> list[Check]:
    if view.evaluation is None:
        return []
    small = len(view.evaluation.facts.nodes) <= MOST_NODE_CHECKS
    kinds = {"fleet", "pool", "node"} if small else {"fleet", "pool"}
    return [each for each in view.evaluation.checks if each.scope.kind in kinds]


def as_csv(chosen: Iterable[Issued]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180; a lone \r in a field is quoted only so
    writer.writerow(CSV_COLUMNS)
    for issued in chosen:
        of = issued.recommendation
        row: tuple[object, ...] = (
            issued.id, of.kind, of.severity, of.scope.kind, _inert(of.scope.name), of.current, of.recommended,
            of.unit, of.diagnosis, of.confidence, timestamp(issued.since), str(issued.held).lower(),
            of.projection.utilization_ratio, of.projection.cost_change_per_hour, _inert(of.summary),
        )  # fmt: skip
        writer.writerow(row)
    return out.getvalue()


def _inert(text: str) -> str:
    """Text that a spreadsheet would take for a formula is marked as text (OWASP: CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
