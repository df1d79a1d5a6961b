"""The last day's history of the pools that have an SLO: their headroom is tuned by replaying it.

Completed steps never change, so each is read once: a whole day at the first evaluation, in one query for all pools,
and later only what the regular history has anyway. Losing the cache costs a query, no decision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.history import PoolSample, step_bounds
from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS
from gpu_advisor.observation.utilization_history import PoolHistories, history_query, read_range
from gpu_advisor.promql.expressions import Expression
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.base import Source


@dataclass(frozen=True, slots=True)
class _ReadSteps:
    """What was read of a pool with these GPUs, from `first` (Unix time) on."""

    uuids: frozenset[str]
    step_seconds: int
    first: float
    samples: tuple[PoolSample, ...]

    def covers(self, other: _ReadSteps, until: float) -> bool:
        """Whether nothing is missing between the other's first step and `until`."""
        return (
            (self.uuids, self.step_seconds) == (other.uuids, other.step_seconds)
            and self.first <= other.first
            and bool(self.samples)
            and self.samples[-1].at >= until
        )


@dataclass(slots=True)
class SloHistoryCache:
    """Completed steps by pool. For one thread."""

    _pools: dict[str, _ReadSteps] = field(default_factory=dict)

    def read(
        self,
        source: Source,
        pools: Mapping[str, Collection[str]],
        recent: PoolHistories,
        all_uuids: Collection[str],
        utilization: Expression,
        at: float,
        evaluation: EvaluationSettings,
    ) -> PoolHistories:
        """The last day of each of `pools`, and an hour, oldest step first; `recent` is their regular history.

        At most one query. Raises SourceError.
        """
        step = evaluation.step_seconds
        recent_first, last = step_bounds(at, evaluation)
        first = min(recent_first, last - (READ_SECONDS // step - 1) * step)
        wanted = {name: _ReadSteps(frozenset(uuids), step, first, ()) for name, uuids in pools.items()}
        before = recent_first - step
        missing = {
            name: pools[name]
            for name, asked in wanted.items()
            if name not in self._pools or not self._pools[name].covers(asked, before)
        }
        older = {
            name: () if name in missing else tuple(each for each in self._pools[name].samples if each.at <= before)
            for name in wanted
        }
        if missing and first <= before:
            older |= read_range(source, history_query(missing, all_uuids, utilization), first, before, step)
        self._pools = {
            name: _ReadSteps(asked.uuids, step, first, _since(first, (*older[name], *recent.get(name, ()))))
            for name, asked in wanted.items()
        }
        return {name: each.samples for name, each in self._pools.items()}


def _since(first: float, samples: tuple[PoolSample, ...]) -> tuple[PoolSample, ...]:
    return tuple(each for each in samples if each.at >= first)
