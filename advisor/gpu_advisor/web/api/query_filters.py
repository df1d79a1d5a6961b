"""Filters a view's recommendations, checks, abstentions and outcomes by query parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from gpu_advisor.documents import serialize
from gpu_advisor.evaluation.recommendation import Abstention, Check, Scope
from gpu_advisor.state.outcomes import Outcome
from gpu_advisor.state.view import PublishedRecommendation, View
from gpu_advisor.web.api.problem_details import ProblemError

#: Query parameter -> whether a recommendation matches it. `pool` and `job` are handled below: they need their GPUs.
_FILTERS: dict[str, Callable[[PublishedRecommendation, str], bool]] = {
    "kind": lambda issued, value: issued.recommendation.kind == value,
    "severity": lambda issued, value: issued.recommendation.severity == value,
    "node": lambda issued, value: value in issued.recommendation.nodes,
}


def filter_recommendations(view: View, query: Mapping[str, Any]) -> list[PublishedRecommendation]:
    wanted = {name: query[name] for name in _FILTERS if query[name] is not None}
    matches = list(view.issued)
    for name, value in wanted.items():
        matches = [each for each in matches if _FILTERS[name](each, value)]
    for name, find_gpus in (("pool", _members), ("job", _gpus_of_job)):
        value = query[name]
        if value is not None:
            gpus = find_gpus(view, value)
            matches = [
                each
                for each in matches
                if _is(each.recommendation.scope, name, value) or not gpus.isdisjoint(each.recommendation.gpus)
            ]
    return matches


def find_recommendation(view: View, id_: str) -> PublishedRecommendation:
    """Raises ProblemError if no such recommendation is active."""
    for issued in view.issued:
        if issued.id == id_:
            return issued
    raise ProblemError(HTTPStatus.NOT_FOUND, f"no active recommendation {id_!r}: see GET /recommendations")


def kind_of_recommendation(view: View, id_: str) -> str:
    """Of an active recommendation, or of one with a recent outcome. Raises ProblemError if there is none."""
    for outcome in reversed(view.outcomes.recent):
        if outcome.closed.tracked.id == id_:
            return outcome.closed.tracked.kind
    return find_recommendation(view, id_).recommendation.kind


def filter_checks(view: View, query: Mapping[str, Any]) -> list[Check]:
    wanted = (query["item"], query["status"], query["scope_kind"], query["scope"])
    return [
        check
        for check in (view.evaluation.checks if view.evaluation else ())
        if all(
            value is None or value == has
            for value, has in zip(
                wanted, (check.item, check.status.value, check.scope.kind, check.scope.name), strict=True
            )
        )
    ]


def filter_abstentions(view: View, query: Mapping[str, Any]) -> list[Abstention]:
    return [
        each
        for each in serialize.all_abstentions(view)
        if query["reason"] in (None, each.reason.value) and query["subject"] in (None, each.subject)
    ]


def filter_outcomes(view: View, query: Mapping[str, Any]) -> list[Outcome]:
    """Newest first."""
    return [
        each
        for each in reversed(view.outcomes.recent)
        if query["kind"] in (None, each.closed.tracked.kind)
        and (query["pool"] is None or _is(each.closed.tracked.scope, "pool", query["pool"]))
    ]


def _is(scope: Scope, kind: str, name: str) -> bool:
    return scope.kind == kind and scope.name == name


def _members(view: View, pool: str) -> frozenset[str]:
    pools = view.evaluation.pools if view.evaluation else ()
    return frozenset(gpu.uuid for each in pools if each.pool.settings.name == pool for gpu in each.pool.devices)


def _gpus_of_job(view: View, job: str) -> frozenset[str]:
    """The GPUs of a training job or owner, by any of its names."""
    if view.evaluation is None:
        return frozenset()
    facts = view.evaluation.facts
    reported = {uuid for uuid, name in facts.reported_jobs.items() if name == job}
    owned = {uuid for uuid, owners in facts.owners.items() if any(job in owner.names for owner in owners)}
    return frozenset(reported | owned)
