"""What goes on being true between two evaluations. Pure.

Advice ends when the data says that its cause is over, never because data is missing: then it is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.engine import Evaluation
from gpu_advisor.recommendation import Reason, Scope

#: Abstentions that say "I cannot see", as opposed to "I see that I cannot tell".
BLIND = frozenset({Reason.NO_DATA, Reason.STALE, Reason.INSUFFICIENT_HISTORY, Reason.CONFLICTING})


@dataclass(frozen=True, slots=True)
class Given:
    """Advice that was given and has not ended: since when (seconds since 1970), on what, and on which GPUs."""

    since: float
    kind: str
    scope: Scope
    gpus: frozenset[str] = frozenset()


def is_held(given: Given, evaluation: Evaluation) -> bool:
    """Whether advice that the evaluation did not repeat goes on, because the evaluation is blind just there."""
    blind = [word for word in evaluation.abstentions if word.reason in BLIND]
    if any(word.scope == given.scope and (not word.gpus or given.gpus & set(word.gpus)) for word in blind):
        return True
    if any(state.pool.scope == given.scope for state in evaluation.pools):
        return False
    # The scope itself is gone from the data: taken away on purpose, or out of sight?
    return bool(evaluation.facts.silent_targets) or any(word.scope.kind == "fleet" for word in blind)


def held_ids(active: Mapping[str, Given], repeated: frozenset[str], evaluation: Evaluation) -> frozenset[str]:
    """Ids of the active advice that neither came again nor ended."""
    return frozenset(id_ for id_, given in active.items() if id_ not in repeated and is_held(given, evaluation))
