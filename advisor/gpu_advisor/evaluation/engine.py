"""One evaluation, start to end: read the source, build the facts, check, decide. Nothing is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_advisor.evaluation import checks
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import POLICIES, calibrated_batch_size, scale_pool
from gpu_advisor.evaluation.pools import Pool, PoolUsage, assign_pools, measure_usage
from gpu_advisor.evaluation.recommendation import Abstention, Check, Recommendation
from gpu_advisor.settings import Settings


@dataclass(frozen=True, slots=True)
class PoolState:
    pool: Pool
    usage: PoolUsage


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that one evaluation concluded."""

    at: float
    facts: Facts
    pools: tuple[PoolState, ...]
    checks: tuple[Check, ...]
    recommendations: tuple[Recommendation, ...]
    abstentions: tuple[Abstention, ...]
    queries: int = field(default=0)

    @property
    def desired_replicas(self) -> tuple[tuple[str, int], ...]:
        """Replicas that each serving pool should have; a pool that is abstained on is not in it."""
        abstained = {word.scope for word in self.abstentions if word.subject == scale_pool.SUBJECT}
        advised = {word.scope: word for word in self.recommendations if word.kind in scale_pool.KINDS}
        wanted: list[tuple[str, int]] = []
        for pool in (state.pool for state in self.pools):
            if pool.settings.kind == "serving" and pool.gpus and pool.scope not in abstained:
                advice = advised.get(pool.scope)
                present = len(pool.gpus) // pool.settings.gpus_per_replica
                wanted.append((pool.settings.name, int(advice.recommended) if advice else present))
        return tuple(wanted)


def decide(facts: Facts, settings: Settings, queries: int = 0) -> Evaluation:
    """Facts -> conclusions. Pure."""
    pools = assign_pools(facts.gpus, settings.pools)
    conclusions = [word for policy in POLICIES for pool in pools for word in policy(facts, settings, pool)]
    abstentions = [word for word in conclusions if isinstance(word, Abstention)]
    if not facts.gpus:
        abstentions.append(checks.explain_no_gpus(facts))
    abstentions += calibrated_batch_size.unreadable_profiles(facts, settings.cluster)
    return Evaluation(
        at=facts.at,
        facts=facts,
        pools=tuple(PoolState(pool, measure_usage(facts, pool)) for pool in pools),
        checks=checks.run_checklist(facts, settings, pools),
        recommendations=tuple(word for word in conclusions if isinstance(word, Recommendation)),
        abstentions=tuple(abstentions),
        queries=queries,
    )
