"""The advisor's own metrics: its health, its conclusions, and what autoscalers follow. One catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gpu_advisor import __version__
from gpu_advisor.documents.serialize import all_abstentions
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.scaling.hpa import round_past_tolerance
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.state.outcomes import Outcomes
from gpu_advisor.state.view import PublishedRecommendation, View

#: Up to this many GPUs each has its checks, and the recommendations about it, as series of its own.
MAX_GPUS_WITH_SERIES = 1000

#: name -> (type, help, labels)
METRIC_FAMILIES: dict[str, tuple[Literal["gauge", "counter"], str, tuple[str, ...]]] = {
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
        "gauge", "A recommendation given now, always 1. Its alert and its runbook have the name in the label alert.",
        ("id", "kind", "scope_kind", "scope", "severity", "alert"),
    ),
    "gpu_advisor_recommendation_gpu_info": (
        "gauge", "A GPU that a recommendation is about, always 1; for fleets up to 1,000 GPUs.", ("id", "uuid"),
    ),
    "gpu_advisor_recommendation_gpus": ("gauge", "How many GPUs a recommendation is about.", ("id",)),
    "gpu_advisor_recommendation_cost_change_per_hour": (
        "gauge", "What a recommendation changes the cost by, negative if it saves; absent without prices.",
        ("id",),
    ),
    "gpu_advisor_recommendation_since_timestamp_seconds": (
        "gauge", "Since when the recommendation has been given, in seconds since 1970.", ("id",),
    ),
    "gpu_advisor_recommendation_snoozed": (
        "gauge", "1 for a recommendation that somebody snoozed.", ("id",),
    ),
    "gpu_advisor_checks": (
        "gauge", "Checklist items by status; per GPU there are single ones for fleets up to 1,000 GPUs.",
        ("item", "scope_kind", "status"),
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
    "gpu_advisor_replicas": (
        "gauge", "Replicas of a pool that are there: whole groups of gpus_per_replica GPUs.", ("pool",),
    ),
    "gpu_advisor_hpa_replicas": (
        "gauge",
        "Desired replicas for a HorizontalPodAutoscaler: a growth that its tolerance of 10 % would overlook is rounded "
        "up to the least that it acts upon; absent while the advisor abstains.",
        ("pool",),
    ),
    "gpu_advisor_outcomes_total": (
        "counter", "Recommendations that ended, by what became of them.", ("kind", "outcome"),
    ),
    "gpu_advisor_projections_compared_total": (
        "counter", "Recommendations that were applied as advised and whose projected utilization was compared.",
        ("kind",),
    ),
    "gpu_advisor_projection_error_ratio_total": (
        "counter", "Sum of the absolute differences of observed and projected utilization over these.", ("kind",),
    ),
    "gpu_advisor_gpu_price_per_hour": ("gauge", "Price of a GPU model, as the settings have it.", ("name",)),
    "gpu_advisor_alertmanager_up": ("gauge", "1 if the Alertmanager took the last alerts.", ("alertmanager",)),
    "gpu_advisor_alerts_sent_total": ("counter", "Alerts that the Alertmanager took.", ("alertmanager",)),
}  # fmt: skip

Sample = tuple[str, tuple[str, ...], float]


class MetricsExposition:
    """The text of /metrics. What is made of the view is made once a view: of a large fleet, it is nearly all."""

    def __init__(self) -> None:
        self._cache: tuple[View, bytes] | None = None

    def of(self, view: View, alertmanagers: tuple[AlertmanagerStatus, ...]) -> bytes:
        cached = self._cache
        if cached is None or cached[0] is not view:
            cached = self._cache = (
                view,
                _text([*_health(view), *_recommendation_samples(view), *_outcomes(view.outcomes)]),
            )
        return cached[1] + _text([*_alertmanager_samples(alertmanagers)])


def _text(rows: list[Sample]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Collector(rows))
    return generate_latest(registry)


class _Collector:
    def __init__(self, rows: list[Sample]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, labels, value in self._rows:
            if name not in families:
                type_, help_, label_names = METRIC_FAMILIES[name]
                make = CounterMetricFamily if type_ == "counter" else GaugeMetricFamily
                families[name] = make(name, help_, labels=label_names)
            families[name].add_metric(labels, value)
        yield from families.values()


def _health(view: View) -> Iterator[Sample]:
    yield "gpu_advisor_build_info", (__version__,), 1
    yield "gpu_advisor_source_up", (view.source.name,), view.source.up
    yield "gpu_advisor_stale", (), view.stale
    yield "gpu_advisor_evaluations_total", (), view.evaluations
    for name, price in view.prices:
        yield "gpu_advisor_gpu_price_per_hour", (name,), price
    for kind, count in view.failures:
        yield "gpu_advisor_evaluation_failures_total", (kind,), count
    if view.evaluation is not None:
        yield "gpu_advisor_simulated", (), view.evaluation.facts.simulated
        yield "gpu_advisor_evaluation_queries", (), view.evaluation.queries
        yield "gpu_advisor_evaluation_last_success_timestamp_seconds", (), view.evaluation.at
    if view.duration_seconds is not None:
        yield "gpu_advisor_evaluation_duration_seconds", (), view.duration_seconds


def _recommendation_samples(view: View) -> Iterator[Sample]:
    single = view.evaluation is not None and len(view.evaluation.facts.gpus) <= MAX_GPUS_WITH_SERIES
    for issued in view.issued:
        yield from _recommendation(issued, single)
    for abstention_labels in sorted(
        {(a.reason.value, a.subject, a.scope.kind, a.scope.name) for a in all_abstentions(view)}
    ):
        yield "gpu_advisor_abstention_info", abstention_labels, 1
    if view.evaluation is None:
        return
    yield from _checks(view.evaluation)
    yield from _pools(view)


def _recommendation(issued: PublishedRecommendation, single: bool) -> Iterator[Sample]:
    advice, id_ = issued.recommendation, (issued.id,)
    labels = (advice.kind, advice.scope.kind, advice.scope.name, advice.severity, issued.alert_name)
    yield "gpu_advisor_recommendation_info", (*id_, *labels), 1
    yield "gpu_advisor_recommendation_since_timestamp_seconds", id_, issued.since
    yield "gpu_advisor_recommendation_gpus", id_, len(advice.gpus)
    if advice.projection.cost_change_per_hour is not None:
        yield "gpu_advisor_recommendation_cost_change_per_hour", id_, advice.projection.cost_change_per_hour
    if issued.snoozed:
        yield "gpu_advisor_recommendation_snoozed", id_, 1
    for uuid in sorted(set(advice.gpus)) if single else ():
        yield "gpu_advisor_recommendation_gpu_info", (*id_, uuid), 1


def _checks(evaluation: Evaluation) -> Iterator[Sample]:
    """Four series a GPU are no burden for a thousand GPUs; beyond that, /checks has them and the counts are here."""
    counts = Counter((each.item, each.scope.kind, each.status.value) for each in evaluation.checks)
    for labels, count in sorted(counts.items()):
        yield "gpu_advisor_checks", labels, count
    single = len(evaluation.facts.gpus) <= MAX_GPUS_WITH_SERIES
    for check in evaluation.checks:
        if single or check.scope.kind != "gpu":
            labels3 = (check.item, check.scope.kind, check.scope.name)
            yield "gpu_advisor_check_status", (*labels3, check.status.value), 1
            if check.value is not None and check.item != "cost":
                yield "gpu_advisor_check_value_ratio", labels3, check.value


def _outcomes(outcomes: Outcomes) -> Iterator[Sample]:
    for (kind, result), count in sorted(outcomes.counts.items()):
        yield "gpu_advisor_outcomes_total", (kind, result), count
    for kind, (number, total) in sorted(outcomes.errors.items()):
        yield "gpu_advisor_projections_compared_total", (kind,), number
        yield "gpu_advisor_projection_error_ratio_total", (kind,), total


def _pools(view: View) -> Iterator[Sample]:
    if view.evaluation is None:
        return
    for state in view.evaluation.pools:
        name, numbers = state.pool.settings.name, state.numbers
        counts = (("capacity", numbers.capacity), ("allocated", numbers.allocated), ("busy", numbers.busy))
        for what, count in counts:
            if count is not None:
                yield "gpu_advisor_pool_gpus", (name, what), count
    present = {
        state.pool.settings.name: len(state.pool.gpus) // state.pool.settings.gpus_per_replica
        for state in view.evaluation.pools
        if state.pool.settings.kind != "undecided"
    }
    for name, replicas in present.items():
        yield "gpu_advisor_replicas", (name,), replicas
    if not view.stale:
        for name, replicas in view.evaluation.desired_replicas:
            yield "gpu_advisor_desired_replicas", (name,), replicas
            yield "gpu_advisor_hpa_replicas", (name,), round_past_tolerance(replicas, present.get(name, 0))


def _alertmanager_samples(alertmanagers: tuple[AlertmanagerStatus, ...]) -> Iterator[Sample]:
    for state in alertmanagers:
        if state.up is not None:
            yield "gpu_advisor_alertmanager_up", (state.url,), state.up
        yield "gpu_advisor_alerts_sent_total", (state.url,), state.sent
