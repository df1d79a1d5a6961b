"""The advisor's own metrics: its health, its conclusions, and what autoscalers follow. One catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gpu_advisor import __version__
from gpu_advisor.publish.alertmanager import AlertmanagerState
from gpu_advisor.publish.document import abstentions
from gpu_advisor.view import View

#: name -> (type, help, labels)
CATALOGUE: dict[str, tuple[Literal["gauge", "counter"], str, tuple[str, ...]]] = {
    "gpu_advisor_build_info": ("gauge", "Version of the advisor, always 1.", ("version",)),
    "gpu_advisor_source_up": ("gauge", "1 if the data source answered the last evaluation.", ("source",)),
    "gpu_advisor_stale": ("gauge", "1 while the last good answer is served because the source does not answer.", ()),
    "gpu_advisor_simulated": ("gauge", "1 if the fleet is simulated.", ()),
    "gpu_advisor_evaluation_last_success_timestamp_seconds": (
        "gauge", "When an evaluation last succeeded, in seconds since 1970.", (),
    ),
    "gpu_advisor_evaluation_duration_seconds": ("gauge", "How long the last successful evaluation took.", ()),
    "gpu_advisor_evaluation_queries": ("gauge", "Queries of the last evaluation; independent of the fleet's size.", ()),
    "gpu_advisor_evaluations_total": ("counter", "Evaluations that succeeded.", ()),
    "gpu_advisor_evaluation_failures_total": (
        "counter", "Evaluations that failed, by kind of failure; ledger: succeeded, but not remembered.", ("kind",),
    ),
    "gpu_advisor_recommendation_info": (
        "gauge", "A recommendation given now, always 1.", ("id", "kind", "scope_kind", "scope", "severity"),
    ),
    "gpu_advisor_recommendation_since_timestamp_seconds": (
        "gauge", "Since when the recommendation has been given, in seconds since 1970.", ("id",),
    ),
    "gpu_advisor_check_status": (
        "gauge", "Status of a checklist item, always 1.", ("item", "scope_kind", "scope", "status"),
    ),
    "gpu_advisor_check_value_ratio": ("gauge", "Value of a checklist item.", ("item", "scope_kind", "scope")),
    "gpu_advisor_abstention_info": (
        "gauge", "What the advisor cannot tell and why, always 1.", ("reason", "subject", "scope_kind", "scope"),
    ),
    "gpu_advisor_pool_gpus": ("gauge", "GPUs of a pool: capacity, allocated and busy.", ("pool", "state")),
    "gpu_advisor_desired_replicas": (
        "gauge", "Replicas that a serving pool should have; absent while the advisor abstains.", ("pool",),
    ),
    "gpu_advisor_alertmanager_up": ("gauge", "1 if the Alertmanager took the last alerts.", ("alertmanager",)),
    "gpu_advisor_alerts_sent_total": ("counter", "Alerts that the Alertmanager took.", ("alertmanager",)),
}  # fmt: skip

Row = tuple[str, tuple[str, ...], float]


def exposition(view: View, alertmanagers: tuple[AlertmanagerState, ...]) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry()
    registry.register(_Collector([*_health(view), *_conclusions(view), *_senders(alertmanagers)]))
    return generate_latest(registry)


class _Collector:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, labels, value in self._rows:
            if name not in families:
                type_, help_, label_names = CATALOGUE[name]
                make = CounterMetricFamily if type_ == "counter" else GaugeMetricFamily
                families[name] = make(name, help_, labels=label_names)
            families[name].add_metric(labels, value)
        yield from families.values()


def _health(view: View) -> Iterator[Row]:
    yield "gpu_advisor_build_info", (__version__,), 1
    yield "gpu_advisor_source_up", (view.source.name,), view.source.up
    yield "gpu_advisor_stale", (), view.stale
    yield "gpu_advisor_evaluations_total", (), view.evaluations
    for kind, count in view.failures:
        yield "gpu_advisor_evaluation_failures_total", (kind,), count
    if view.evaluation is not None:
        yield "gpu_advisor_simulated", (), view.evaluation.facts.simulated
        yield "gpu_advisor_evaluation_queries", (), view.evaluation.queries
        yield "gpu_advisor_evaluation_last_success_timestamp_seconds", (), view.evaluation.at
    if view.duration_seconds is not None:
        yield "gpu_advisor_evaluation_duration_seconds", (), view.duration_seconds


def _conclusions(view: View) -> Iterator[Row]:
    for issued in view.issued:
        scope = issued.recommendation.scope
        labels = (issued.id, issued.recommendation.kind, scope.kind, scope.name, issued.recommendation.severity)
        yield "gpu_advisor_recommendation_info", labels, 1
        yield "gpu_advisor_recommendation_since_timestamp_seconds", (issued.id,), issued.since
    for said in sorted({(a.reason.value, a.subject, a.scope.kind, a.scope.name) for a in abstentions(view)}):
        yield "gpu_advisor_abstention_info", said, 1
    if view.evaluation is None:
        return
    for check in view.evaluation.checks:
        labels3 = (check.item, check.scope.kind, check.scope.name)
        yield "gpu_advisor_check_status", (*labels3, check.status.value), 1
        if check.value is not None and check.item != "cost":
            yield "gpu_advisor_check_value_ratio", labels3, check.value
    yield from _pools(view)


def _pools(view: View) -> Iterator[Row]:
    if view.evaluation is None:
        return
    for state in view.evaluation.pools:
        name, numbers = state.pool.settings.name, state.numbers
        counts = (("capacity", numbers.capacity), ("allocated", numbers.allocated), ("busy", numbers.busy))
        for what, count in counts:
            if count is not None:
                yield "gpu_advisor_pool_gpus", (name, what), count
    if not view.stale:
        for name, replicas in view.evaluation.desired_replicas:
            yield "gpu_advisor_desired_replicas", (name,), replicas


def _senders(alertmanagers: tuple[AlertmanagerState, ...]) -> Iterator[Row]:
    for state in alertmanagers:
        if state.up is not None:
            yield "gpu_advisor_alertmanager_up", (state.url,), state.up
        yield "gpu_advisor_alerts_sent_total", (state.url,), state.sent
