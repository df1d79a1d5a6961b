"""The advisor's own metrics: health, recommendations, checks, and replica counts for autoscalers. One catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from gpu_advisor import __version__
from gpu_advisor.documents.serialize import all_abstentions
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.money import Money
from gpu_advisor.evaluation.policies import idle_lease
from gpu_advisor.evaluation.scaling.hpa import round_past_tolerance
from gpu_advisor.evaluation.serving.cost import cost_per_million_tokens
from gpu_advisor.evaluation.serving.features import missed_ratio
from gpu_advisor.evaluation.team_usage import team_usage
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.state.feedback import count_verdicts
from gpu_advisor.state.outcomes import Outcomes
from gpu_advisor.state.view import PublishedRecommendation, View

#: Fleets up to this size have series per GPU; larger ones have counts, and GPUs in /checks.
MAX_GPUS_WITH_SERIES = 1000

MAX_LEASES_WITH_SERIES = 1000

#: Teams and namespaces with series of their own: those with the most GPUs.
MAX_TEAMS_WITH_SERIES = 1000

#: name -> (type, help, labels)
METRIC_FAMILIES: dict[str, tuple[Literal["gauge", "counter", "summary"], str, tuple[str, ...]]] = {
    "gpu_advisor_build_info": ("gauge", "Version of the advisor, always 1.", ("version",)),
    "gpu_advisor_source_up": ("gauge", "1 if the last evaluation could query the data source.", ("source",)),
    "gpu_advisor_stale": (
        "gauge",
        "1 while the last good evaluation is served because the source is down or no evaluation finishes. "
        "Measurements and replica counts are absent meanwhile.",
        (),
    ),
    "gpu_advisor_damaged_state_file_info": (
        "gauge", "A state file that was damaged and moved aside at the start, always 1.", ("file", "moved_to"),
    ),
    "gpu_advisor_simulated": ("gauge", "1 if the fleet is simulated.", ()),
    "gpu_advisor_evaluation_last_success_timestamp_seconds": ("gauge", "Time of the last successful evaluation.", ()),
    "gpu_advisor_evaluation_duration_seconds": ("gauge", "Duration of the last successful evaluation.", ()),
    "gpu_advisor_evaluation_interval_seconds": ("gauge", "Interval between evaluations, as set.", ()),
    "gpu_advisor_evaluation_queries": ("gauge", "Queries of the last evaluation; independent of the fleet's size.", ()),
    "gpu_advisor_evaluations_total": ("counter", "Evaluations that succeeded.", ()),
    "gpu_advisor_evaluation_failures_total": (
        "counter", "Failed evaluations by kind of failure; ledger: succeeded, but could not be stored.", ("kind",),
    ),
    "gpu_advisor_recommendation_info": (
        "gauge", "An active recommendation, always 1. The label alert names its alert and its runbook.",
        ("id", "kind", "scope_kind", "scope", "severity", "alert"),
    ),
    "gpu_advisor_recommendation_gpu_info": (
        "gauge", "A GPU of a recommendation, always 1; for fleets of up to 1,000 GPUs.", ("id", "uuid"),
    ),
    "gpu_advisor_recommendation_gpus": ("gauge", "Number of GPUs that a recommendation affects.", ("id",)),
    "gpu_advisor_recommendation_cost_change_per_hour": (
        "gauge", "Projected change of cost per hour, negative if the recommendation saves; absent without prices.",
        ("id",),
    ),
    "gpu_advisor_recommendation_since_timestamp_seconds": (
        "gauge", "Time since which the recommendation has been active.", ("id",),
    ),
    "gpu_advisor_recommendation_snoozed": ("gauge", "1 for a snoozed recommendation.", ("id",)),
    "gpu_advisor_checks": (
        "gauge", "Number of checks by status. Fleets of up to 1,000 GPUs have a series per GPU as well.",
        ("item", "scope_kind", "status"),
    ),
    "gpu_advisor_check_status": (
        "gauge", "Status of a check, always 1.", ("item", "scope_kind", "scope", "status"),
    ),
    "gpu_advisor_check_value_ratio": ("gauge", "Value of a check.", ("item", "scope_kind", "scope")),
    "gpu_advisor_abstention_info": (
        "gauge", "A conclusion that the advisor abstains from, and the reason, always 1.",
        ("reason", "subject", "scope_kind", "scope"),
    ),
    "gpu_advisor_pool_gpus": ("gauge", "GPUs of a pool: capacity, allocated and busy.", ("pool", "state")),
    "gpu_advisor_desired_replicas": (
        "gauge", "Replicas that a serving pool should have; absent while the advisor abstains.", ("pool",),
    ),
    "gpu_advisor_replicas": (
        "gauge",
        "Current replicas of a pool: whole groups of gpus_per_replica GPUs; of a pool sized by requests, the inference "
        "servers that report.",
        ("pool",),
    ),
    "gpu_advisor_serving_missed_ratio": (
        "gauge", "Share of the requests to a model that miss a latency objective of its pool.", ("pool", "model"),
    ),
    "gpu_advisor_serving_cost_per_million_tokens": (
        "gauge", "Cost of the GPUs of a model's servers per million generated tokens; absent if a price is unknown.",
        ("pool", "model", "currency"),
    ),
    "gpu_advisor_hpa_replicas": (
        "gauge",
        "Desired replicas for a HorizontalPodAutoscaler: growth within its tolerance of 10 % is rounded up to the "
        "smallest that it acts on; absent while the advisor abstains.",
        ("pool",),
    ),
    "gpu_advisor_outcomes_total": ("counter", "Resolved recommendations by outcome.", ("kind", "outcome")),
    "gpu_advisor_feedback": ("gauge", "Recommendations that people accepted or dismissed.", ("kind", "verdict")),
    "gpu_advisor_projection_error_ratio": (
        "summary", "Absolute difference of observed and projected utilization, of recommendations applied as advised.",
        ("kind",),
    ),
    "gpu_advisor_gpu_price_per_hour": (
        "gauge", "Price of a GPU model: from the settings, or estimated at list prices.",
        ("name", "currency", "estimated"),
    ),
    "gpu_advisor_recommendation_savings_per_hour": (
        "gauge", "What a recommendation saves or recovers; the bound is exact, at_least or at_most.",
        ("id", "currency", "estimated", "bound"),
    ),
    "gpu_advisor_savings_per_hour": (
        "gauge", "What all recommendations that are not snoozed save together; no GPU counts twice.",
        ("currency", "estimated", "bound"),
    ),
    "gpu_advisor_waste_per_hour": (
        "gauge", "What the GPUs of a pool lose now, as far as recommendations measure it.",
        ("pool", "currency", "estimated", "bound"),
    ),
    "gpu_advisor_team_gpus": (
        "gauge",
        "GPUs by team and namespace: all, those whose utilization is known (measured), and the sum of it (busy).",
        ("team", "namespace", "state"),
    ),
    "gpu_advisor_team_unused_cost_per_hour": (
        "gauge", "Price of what the measured GPUs of a team and namespace leave unused; absent without a price.",
        ("team", "namespace", "currency", "estimated"),
    ),
    "gpu_advisor_leases": ("gauge", "Leases of this advisor on GPUs.", ()),
    "gpu_advisor_lease_gpus": ("gauge", "GPUs of a lease; for up to 1,000 leases.", ("lease",)),
    "gpu_advisor_lease_idle_gpus": ("gauge", "GPUs of a lease that are reported to its lessee as idle.", ("lease",)),
    "gpu_advisor_lease_made_timestamp_seconds": ("gauge", "Time at which a lease was made.", ("lease",)),
    "gpu_advisor_lease_expires_timestamp_seconds": (
        "gauge", "Time at which a lease ends, unless it is renewed.", ("lease",),
    ),
    "gpu_advisor_alertmanager_up": ("gauge", "1 if the Alertmanager accepted the last request.", ("alertmanager",)),
    "gpu_advisor_alerts_sent_total": ("counter", "Alerts that the Alertmanager accepted.", ("alertmanager",)),
}  # fmt: skip


#: Measurements of the present. Alerts and autoscalers rest on them, so a stale view has none; its recommendations stay,
#: as their alerts do.
WITHHELD_WHILE_STALE = frozenset(
    {
        "gpu_advisor_checks",
        "gpu_advisor_check_status",
        "gpu_advisor_check_value_ratio",
        "gpu_advisor_pool_gpus",
        "gpu_advisor_replicas",
        "gpu_advisor_desired_replicas",
        "gpu_advisor_hpa_replicas",
        "gpu_advisor_serving_missed_ratio",
        "gpu_advisor_serving_cost_per_million_tokens",
        "gpu_advisor_waste_per_hour",
        "gpu_advisor_team_gpus",
        "gpu_advisor_team_unused_cost_per_hour",
        "gpu_advisor_lease_idle_gpus",
    }
)


class SummaryValue(NamedTuple):
    observations: int
    total: float


Sample = tuple[str, tuple[str, ...], float | SummaryValue]


class MetricsExposition:
    """The text of /metrics. The part made from the view is cached per view: on a large fleet it is nearly all."""

    def __init__(self) -> None:
        self._cache: tuple[View, bytes] | None = None

    def render(self, view: View, alertmanagers: tuple[AlertmanagerStatus, ...]) -> bytes:
        cached = self._cache
        if cached is None or cached[0] is not view:
            rows = (*_health(view), *_recommendation_samples(view), *_outcomes(view.outcomes), *_feedback(view))
            withheld = WITHHELD_WHILE_STALE if view.stale else ()
            cached = self._cache = (view, _text([row for row in rows if row[0] not in withheld]))
        return cached[1] + _text([*_alertmanager_samples(alertmanagers)])


def _text(rows: list[Sample]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Collector(rows))
    return generate_latest(registry)


class _Collector:
    def __init__(self, rows: list[Sample]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Any] = {}
        for name, labels, value in self._rows:
            family = families.get(name)
            if family is None:
                type_, help_, label_names = METRIC_FAMILIES[name]
                family = families[name] = _FAMILY_TYPES[type_](name, help_, labels=label_names)
            if isinstance(value, SummaryValue):
                family.add_metric(labels, *value)
            else:
                family.add_metric(labels, value)
        yield from families.values()


_FAMILY_TYPES: dict[str, type[Any]] = {
    "gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "summary": SummaryMetricFamily,
}  # fmt: skip


def _health(view: View) -> Iterator[Sample]:
    yield "gpu_advisor_build_info", (__version__,), 1
    yield "gpu_advisor_source_up", (view.source.name,), view.source.up
    yield "gpu_advisor_stale", (), view.stale
    yield "gpu_advisor_evaluations_total", (), view.evaluations
    if view.interval_seconds is not None:
        yield "gpu_advisor_evaluation_interval_seconds", (), view.interval_seconds
    for each in view.damaged:
        yield "gpu_advisor_damaged_state_file_info", (each.name, each.moved_to), 1
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
    yield from _pools(view.evaluation)
    yield from _money(view, view.evaluation)
    yield from _serving(view.evaluation)
    yield from _teams(view.evaluation)
    yield from _leases(view.evaluation)


def _recommendation(issued: PublishedRecommendation, single: bool) -> Iterator[Sample]:
    advice, id_ = issued.recommendation, (issued.id,)
    labels = (advice.kind, advice.scope.kind, advice.scope.name, advice.severity, issued.alert_name)
    yield "gpu_advisor_recommendation_info", (*id_, *labels), 1
    yield "gpu_advisor_recommendation_since_timestamp_seconds", id_, issued.since
    yield "gpu_advisor_recommendation_gpus", id_, len(advice.gpus)
    if advice.projection.cost_change_per_hour is not None:
        yield "gpu_advisor_recommendation_cost_change_per_hour", id_, advice.projection.cost_change_per_hour
    if advice.savings is not None:
        yield from _amount("gpu_advisor_recommendation_savings_per_hour", id_, advice.savings.money)
    if issued.snoozed:
        yield "gpu_advisor_recommendation_snoozed", id_, 1
    for uuid in sorted(set(advice.gpus)) if single else ():
        yield "gpu_advisor_recommendation_gpu_info", (*id_, uuid), 1


def _money(view: View, evaluation: Evaluation) -> Iterator[Sample]:
    for name, price in evaluation.model_prices.items():
        yield "gpu_advisor_gpu_price_per_hour", (name, price.currency, _flag(price.estimated)), price.amount
    found = evaluation.summarize([each.recommendation for each in view.issued if not each.snoozed])
    yield from _amount("gpu_advisor_savings_per_hour", (), found.savings.money)
    for group in found.by["pool"]:
        yield from _amount("gpu_advisor_waste_per_hour", (group.name,), group.worth.money)


def _teams(evaluation: Evaluation) -> Iterator[Sample]:
    found = team_usage(evaluation.facts, evaluation.prices.by_gpu)
    for each in sorted(found, key=lambda usage: -usage.gpus)[:MAX_TEAMS_WITH_SERIES]:
        labels = each.team, each.namespace
        yield "gpu_advisor_team_gpus", (*labels, "all"), each.gpus
        yield "gpu_advisor_team_gpus", (*labels, "measured"), each.measured
        if each.measured:
            yield "gpu_advisor_team_gpus", (*labels, "busy"), each.busy
        if each.unused_cost_per_hour is not None:
            money = (each.currency, _flag(each.estimated))
            yield "gpu_advisor_team_unused_cost_per_hour", (*labels, *money), each.unused_cost_per_hour


def _leases(evaluation: Evaluation) -> Iterator[Sample]:
    by_gpu = evaluation.facts.leases
    counts = Counter(by_gpu.values())
    advice = (each for each in evaluation.recommendations if each.kind == idle_lease.KIND)
    idle = Counter(by_gpu[uuid] for each in advice for uuid in each.gpus if uuid in by_gpu)
    yield "gpu_advisor_leases", (), len(counts)
    for lease in sorted(counts)[:MAX_LEASES_WITH_SERIES]:
        yield "gpu_advisor_lease_gpus", (lease.id,), counts[lease]
        yield "gpu_advisor_lease_idle_gpus", (lease.id,), idle[lease]
        yield "gpu_advisor_lease_made_timestamp_seconds", (lease.id,), lease.made
        yield "gpu_advisor_lease_expires_timestamp_seconds", (lease.id,), lease.expires


def _amount(name: str, labels: tuple[str, ...], money: Money) -> Iterator[Sample]:
    """Nothing if it is unknown."""
    if money.value_per_hour is not None and money.bound is not None:
        yield name, (*labels, money.currency, _flag(money.estimated), money.bound), money.value_per_hour


def _flag(value: bool) -> str:
    return str(value).lower()


def _checks(evaluation: Evaluation) -> Iterator[Sample]:
    """Counts for every fleet; series per GPU (four each) up to MAX_GPUS_WITH_SERIES."""
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
    for kind, (count, total) in sorted(outcomes.errors.items()):
        yield "gpu_advisor_projection_error_ratio", (kind,), SummaryValue(count, total)


def _feedback(view: View) -> Iterator[Sample]:
    for labels, count in sorted(count_verdicts(view.feedback).items()):
        yield "gpu_advisor_feedback", labels, count


def _pools(evaluation: Evaluation) -> Iterator[Sample]:
    for state in evaluation.pools:
        name, numbers = state.pool.settings.name, state.usage
        counts = (("capacity", numbers.capacity), ("allocated", numbers.allocated), ("busy", numbers.busy))
        for gpu_state, count in counts:
            if count is not None:
                yield "gpu_advisor_pool_gpus", (name, gpu_state), count
    present = evaluation.replicas
    for pool in (state.pool for state in evaluation.pools):
        if pool.settings.kind != "undecided":
            yield "gpu_advisor_replicas", (pool.settings.name,), present[pool.settings.name]
    for name, replicas in evaluation.desired_replicas:
        yield "gpu_advisor_desired_replicas", (name,), replicas
        yield "gpu_advisor_hpa_replicas", (name,), round_past_tolerance(replicas, present[name])


def _serving(evaluation: Evaluation) -> Iterator[Sample]:
    for one in evaluation.served:
        labels = (one.pool.settings.name, one.group.model)
        missed = missed_ratio(one.group, one.objectives)
        if missed is not None:
            yield "gpu_advisor_serving_missed_ratio", labels, missed
        cost = cost_per_million_tokens(one.group, evaluation.prices)
        if cost is not None:
            amount, currency = cost
            yield "gpu_advisor_serving_cost_per_million_tokens", (*labels, currency), amount


def _alertmanager_samples(alertmanagers: tuple[AlertmanagerStatus, ...]) -> Iterator[Sample]:
    for state in alertmanagers:
        if state.up is not None:
            yield "gpu_advisor_alertmanager_up", (state.url,), state.up
        yield "gpu_advisor_alerts_sent_total", (state.url,), state.sent
