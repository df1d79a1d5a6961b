"""Recommendations to alerts, and when an alert resolves. Pure; alertmanager.py sends them.

Alertmanager identifies an alert by its labels, so no label may change while the alert fires.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.view import PublishedRecommendation

#: An alert that is not re-sent resolves at `endsAt`. As in Prometheus, three missed evaluations must not resolve it.
ALERT_TTL_EVALUATIONS = 4

#: How long, in seconds, a resolved alert is re-sent, as in Prometheus: a lost request does not leave it firing.
RESOLVED_RESEND_SECONDS = 15 * 60


def build_alert(issued: PublishedRecommendation, cluster: str, external_url: str) -> Alert:
    advice = issued.recommendation
    return Alert(
        id=issued.id,
        labels={
            "alertname": issued.alert_name,
            "severity": advice.severity,
            "cluster": cluster,
            "kind": advice.kind,
            "scope_kind": advice.scope.kind,
            "scope": advice.scope.name,
            "recommendation_id": issued.id,
        },
        annotations={
            "summary": advice.summary,
            "description": f"{advice.explanation} From {advice.current:g} to {advice.recommended:g} {advice.unit}.",
            "runbook_url": issued.runbook,
        },
        started=issued.since,
        url=f"{external_url.rstrip('/')}/recommendations/{issued.id}" if external_url else "",
    )


def update_alerts(
    before: Iterable[Alert], firing: Iterable[Alert], held: frozenset[str], now: float
) -> tuple[Alert, ...]:
    """The alerts after an evaluation: firing, stale (`held`), and resolved ones that are still re-sent."""
    current = {alert.id: alert for alert in firing}
    for alert in before:
        if alert.id in current:
            continue
        if alert.id in held and alert.resolved is None:
            current[alert.id] = alert
        else:
            over = alert if alert.resolved is not None else replace(alert, resolved=now)
            if over.resolved is not None and now - over.resolved <= RESOLVED_RESEND_SECONDS:
                current[alert.id] = over
    return tuple(current.values())


def postable_alerts(alerts: Iterable[Alert], now: float, interval_seconds: float) -> list[dict[str, Any]]:
    """The body of POST /api/v2/alerts (Alertmanager's OpenAPI: postableAlerts)."""
    ends = now + ALERT_TTL_EVALUATIONS * interval_seconds
    return [
        {
            "labels": dict(alert.labels),
            "annotations": dict(alert.annotations),
            # Alertmanager rejects endsAt before startsAt, which a clock set back would produce.
            "startsAt": format_rfc3339(min(alert.started, now if alert.resolved is None else alert.resolved)),
            "endsAt": format_rfc3339(ends if alert.resolved is None else alert.resolved),
            **({"generatorURL": alert.url} if alert.url else {}),
        }
        for alert in alerts
    ]
