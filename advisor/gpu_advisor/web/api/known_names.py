"""Names in the filters of the API: one that is not known is an error, not an empty list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.state.view import View
from gpu_advisor.web.api.problem_details import ProblemError


def _kinds(view: View) -> set[str]:
    """Of this version, and of what an older one recommended."""
    return {
        *KINDS,
        *(each.recommendation.kind for each in view.issued),
        *(each.closed.tracked.kind for each in view.outcomes.recent),
    }


def _pools(view: View) -> set[str]:
    scopes = [
        *(each.recommendation.scope for each in view.issued),
        *(each.closed.tracked.scope for each in view.outcomes.recent),
    ]
    present = (state.pool.settings.name for state in view.evaluation.pools) if view.evaluation else ()
    return {*present, *(scope.name for scope in scopes if scope.kind == "pool")}


def _nodes(view: View) -> set[str]:
    facts = view.evaluation.facts if view.evaluation else None
    present = (*(gpu.node for gpu in facts.gpus), *(node.name for node in facts.nodes)) if facts else ()
    return {*present, *(node for each in view.issued for node in each.recommendation.nodes)}


def _items(view: View) -> set[str]:
    return {check.item for check in view.evaluation.checks} if view.evaluation else set()


def _jobs(view: View) -> set[str]:
    """Training jobs and owners, by any of their names."""
    facts = view.evaluation.facts if view.evaluation else None
    owners = (owner for each in facts.owners.values() for owner in each) if facts else ()
    scopes = (each.recommendation.scope for each in view.issued)
    return {
        *(name for owner in owners for name in owner.names),
        *(facts.reported_jobs.values() if facts else ()),
        *(scope.name for scope in scopes if scope.kind == "job"),
    }


#: Query parameter -> its known values.
_KNOWN: Mapping[str, Callable[[View], set[str]]] = {
    "kind": _kinds,
    "pool": _pools,
    "node": _nodes,
    "job": _jobs,
    "item": _items,
}


def require_known(view: View, query: Mapping[str, Any]) -> None:
    """Raises ProblemError. Before the first evaluation, only kinds are known."""
    for name, known_by in _KNOWN.items():
        value = query.get(name)
        if value is None or (view.evaluation is None and name != "kind"):
            continue
        known = known_by(view)
        if value not in known:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"{name}={value!r}: no such {name}{hint(value, known)}")
