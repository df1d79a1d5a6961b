"""Recommendations to alerts, and when an alert resolves. Pure; alertmanager.py sends them.

Alertmanager identifies an alert by its labels, so no label may change while the alert fires.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation, stable_id
from gpu_advisor.evaluation.savings import savings_of
from gpu_advisor.notify.alert_owners import alerts_by_owner
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.view import PublishedRecommendation

#: An alert that is not re-sent resolves at `endsAt`. As in Prometheus, three missed evaluations must not resolve it.
ALERT_TTL_EVALUATIONS = 4

#: How long, in seconds, a resolved alert is re-sent, as in Prometheus: a lost request does not leave it firing.
RESOLVED_RESEND_SECONDS = 15 * 60


def build_alerts(
    issued: PublishedRecommendation,
    owners: Mapping[str, Sequence[GpuOwner]],
    before: Mapping[str, Alert],
    cluster: str,
    external_url: str,
    now: float,
    prices: Prices | None = None,
) -> Iterator[Alert]:
    """The alerts of a recommendation: one for each owner of its GPUs, who began when the owner came into it.

    `owners` are by GPU, `before` are the alerts of the last evaluation by id. With `prices`, each says what its GPUs
    save.
    """
    advice = issued.recommendation
    for group in alerts_by_owner(advice, owners):
        id_ = stable_id((issued.id, group.key)) if group.key else issued.id
        former = before.get(id_)
        started = issued.since if not group.key else former.started if former and former.resolved is None else now
        count = f"{len(group.gpus)} GPU{'s' * (len(group.gpus) != 1)} of {group.title}: " if group.title else ""
        yield Alert(
            id=id_,
            labels={
                "alertname": issued.alert_name,
                "severity": advice.severity,
                "cluster": cluster,
                "kind": advice.kind,
                "scope_kind": advice.scope.kind,
                "scope": advice.scope.name,
                "recommendation_id": issued.id,
                **group.labels,
            },
            annotations={
                "summary": count + advice.summary,
                "description": f"{advice.explanation} From {advice.current:g} to {advice.recommended:g} {advice.unit}.",
                "runbook_url": issued.runbook,
                **_savings(advice, group.gpus, prices),
            },
            started=started,
            url=f"{external_url.rstrip('/')}/recommendations/{issued.id}" if external_url else "",
            gpus=group.gpus,
        )


def _savings(advice: Recommendation, gpus: Sequence[str], prices: Prices | None) -> dict[str, str]:
    """Nothing if it is unknown."""
    found = savings_of(advice, gpus, prices) if prices else None
    return {} if found is None or found.money.value_per_hour is None else {"savings": str(found.money)}


def update_alerts(
    before: Iterable[Alert],
    firing: Iterable[Alert],
    unconfirmed: frozenset[str],
    now: float,
    missing: Sequence[Abstention] = (),
) -> tuple[Alert, ...]:
    """The alerts after an evaluation: firing, stale, and resolved ones that are still re-sent.

    `unconfirmed` are ids of active recommendations that this evaluation did not make, `missing` the abstentions for
    missing data: of a recommendation that goes on for others, the alert of an owner whose GPUs lack data is stale, too.
    """
    current = {alert.id: alert for alert in firing}
    goes_on = {alert.recommendation_id for alert in current.values()}
    for alert in before:
        if alert.id in current:
            continue
        stale = alert.recommendation_id in unconfirmed or (
            alert.recommendation_id in goes_on and any(_lacks_data(alert, abstention) for abstention in missing)
        )
        if stale and alert.resolved is None:
            current[alert.id] = alert
        else:
            over = alert if alert.resolved is not None else replace(alert, resolved=now)
            if over.resolved is not None and now - over.resolved <= RESOLVED_RESEND_SECONDS:
                current[alert.id] = over
    return tuple(current.values())


def _lacks_data(alert: Alert, abstention: Abstention) -> bool:
    concerned = not abstention.kinds or alert.labels.get("kind") in abstention.kinds
    return concerned and not set(abstention.gpus).isdisjoint(alert.gpus)


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
