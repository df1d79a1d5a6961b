"""What goes on being true between two evaluations. Pure.

Advice ends when the data says that its cause is over, never because data is missing: then it is held.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpu_advisor.engine import Evaluation
from gpu_advisor.recommendation import Reason, Scope

#: Abstentions that say "I cannot see", as opposed to "I see that I cannot tell".
BLIND = frozenset({Reason.NO_DATA, Reason.STALE, Reason.INSUFFICIENT_HISTORY, Reason.CONFLICTING})


def is_held(scope: Scope, evaluation: Evaluation) -> bool:
    """Whether advice on this scope, not repeated by the evaluation, goes on: because that is blind there."""
    blind = [word.scope for word in evaluation.abstentions if word.reason in BLIND]
    if any(scope.kind == seen.kind and scope.name == seen.name for seen in blind):
        return True
    if any(state.pool.scope == scope for state in evaluation.pools):
        return False
    # The scope itself is gone from the data: taken away on purpose, or out of sight?
    return bool(evaluation.facts.silent_targets) or any(seen.kind == "fleet" for seen in blind)


def held_ids(active: Iterable[tuple[str, Scope]], repeated: frozenset[str], evaluation: Evaluation) -> frozenset[str]:
    """Ids of the active advice that neither came again nor ended."""
    return frozenset(id_ for id_, scope in active if id_ not in repeated and is_held(scope, evaluation))
