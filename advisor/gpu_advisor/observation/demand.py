"""Demand signals: how much work a pool has, by the PromQL that its settings name.

One broken query must not take the other pools with it: a signal that cannot be read is a reason, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpu_advisor.evaluation.history import DemandSignal, step_bounds
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.settings import EvaluationSettings, PoolSettings
from gpu_advisor.sources.base import PromqlSource, Source, SourceError, SourceErrorKind

#: Errors that are about the query, not about the source as a whole.
QUERY_ERROR_KINDS = frozenset({SourceErrorKind.QUERY_ERROR, SourceErrorKind.BAD_RESPONSE, SourceErrorKind.PARTIAL})


def read_demand_signals(
    source: Source, pools: Iterable[PoolSettings], at: float, evaluation: EvaluationSettings
) -> dict[str, DemandSignal]:
    """The demand signals by pool. One query each. Raises SourceError where the source itself fails."""
    return {pool.name: _read_pool(source, pool, at, evaluation) for pool in pools if pool.demand}


def _read_pool(source: Source, pool: PoolSettings, at: float, evaluation: EvaluationSettings) -> DemandSignal:
    assert pool.demand is not None
    promql = pool.demand.promql
    about = f"the demand signal of pool {pool.name}, {promql!r},"
    if not isinstance(source, PromqlSource):
        return DemandSignal(promql, reason=Reason.UNSUPPORTED, message=f"{about} needs a Prometheus as source")
    try:
        found = source.range_promql(promql, *step_bounds(at, evaluation), evaluation.step_seconds)
    except SourceError as error:
        if error.kind not in QUERY_ERROR_KINDS:
            raise
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=f"{about} is refused: {error}")
    if not found:
        return DemandSignal(
            promql, reason=Reason.NO_DATA, message=f"{about} gives nothing: see if its target is scraped"
        )
    if len(found) > 1:
        message = f"{about} gives {len(found)} series instead of one number: put sum() around it"
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=message)
    (trail,) = found.values()
    if any(value < 0 for _, value in trail):
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=f"{about} is negative, which no demand can be")
    return DemandSignal(promql, trail)
