"""The size that a recommendation is about: its change shows whether the recommendation was applied. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import without_lost
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.evaluation.signals import JOB_BATCH_SIZE


@dataclass(frozen=True, slots=True)
class PoolSize:
    """All of a pool, and what of it works: without lost GPUs."""

    total: float
    working: float

    def change_since(self, before: PoolSize) -> float:
        """By how much somebody resized the pool.

        A GPU that is lost or repaired changes only what works, a lost one that is returned only the total: neither is
        a resize.
        """
        total, working = self.total - before.total, self.working - before.working
        return 0.0 if total * working <= 0 else min(total, working, key=abs)


NO_POOL = PoolSize(0.0, 0.0)


def pool_sizes(evaluation: Evaluation, pool: Pool) -> Mapping[str, PoolSize]:
    """A pool's size by the units of recommendations. Replicas are inference servers where the pool is counted by them,
    else groups of GPUs, as a training pool's gangs are.
    """
    working, per_replica = len(without_lost(evaluation.facts, pool.gpus)), pool.settings.gpus_per_replica
    groups = PoolSize(float(pool.replicas), float(working // per_replica))
    servers = float(evaluation.replicas.get(pool.settings.name, 0))
    by_servers = pool.settings.name in evaluation.pools_counted_by_servers
    return {
        "GPUs": PoolSize(float(len(pool.gpus)), float(working)),
        "gangs": groups,
        "replicas": PoolSize(servers, servers) if by_servers else groups,
    }


def _reported_batch_size(_scope: Scope, gpus: Sequence[str], facts: Facts) -> float | None:
    """Of ranks that agree."""
    sizes = {size for uuid in gpus if (size := facts.value(JOB_BATCH_SIZE, uuid)) is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _leased_gpus(scope: Scope, _gpus: Sequence[str], facts: Facts) -> float:
    return float(sum(1 for lease in facts.leases.values() if lease.id == scope.lease))


#: What shows the size of other things than pools, by the unit of the recommendation.
_REPORTED: Mapping[str, Callable[[Scope, Sequence[str], Facts], float | None]] = {
    "samples": _reported_batch_size,
    "GPUs of the lease": _leased_gpus,
}


def reported_size(unit: str, scope: Scope, gpus: Sequence[str], facts: Facts) -> float | None:
    """The size that a job or a lease has now; None if nothing shows it."""
    size = _REPORTED.get(unit)
    return None if size is None else size(scope, gpus, facts)
