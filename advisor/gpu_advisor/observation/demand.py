"""Demand signals: how much work a pool has, by a PromQL query from its settings.

One broken query must not affect other pools: it becomes a reason for that pool, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpu_advisor.evaluation.history import DemandSignal, step_bounds
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS
from gpu_advisor.settings import EvaluationSettings, PoolSettings
from gpu_advisor.sources.base import PromqlSource, Source, SourceError


def read_demand_signals(
    source: Source, pools: Iterable[PoolSettings], at: float, evaluation: EvaluationSettings
) -> dict[str, DemandSignal]:
    """The demand signals by pool, one query each. Raises SourceError if the source itself fails."""
    return {pool.name: _read_pool(source, pool, at, evaluation) for pool in pools if pool.demand}


def _bounds(pool: PoolSettings, at: float, evaluation: EvaluationSettings) -> tuple[float, float]:
    """The first and the last step to read: a day where the headroom is tuned."""
    seconds = max(evaluation.history_seconds, 0 if pool.unserved_ratio is None else READ_SECONDS)
    return step_bounds(at, evaluation.model_copy(update={"history_seconds": seconds}))


def _read_pool(source: Source, pool: PoolSettings, at: float, evaluation: EvaluationSettings) -> DemandSignal:
    assert pool.demand is not None
    promql = pool.demand.promql
    prefix = f"demand signal of pool {pool.name}, {promql!r},"
    if not isinstance(source, PromqlSource):
        return DemandSignal(promql, reason=Reason.UNSUPPORTED, message=f"{prefix} needs a Prometheus as source")
    try:
        found = source.range_promql(promql, *_bounds(pool, at, evaluation), evaluation.step_seconds)
    except SourceError as error:
        if not error.is_of_query:
            raise
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=f"{prefix} failed: {error}")
    if not found:
        return DemandSignal(
            promql, reason=Reason.NO_DATA, message=f"{prefix} returns no data: check that its target is scraped"
        )
    if len(found) > 1:
        message = f"{prefix} returns {len(found)} series instead of one: wrap it in sum()"
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=message)
    (series,) = found.values()
    if any(value < 0 for _, value in series):
        return DemandSignal(promql, reason=Reason.CONFLICTING, message=f"{prefix} is negative: fix the query")
    return DemandSignal(promql, series)
