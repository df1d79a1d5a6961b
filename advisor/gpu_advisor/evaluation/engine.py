"""The decision of one evaluation: facts -> checks, recommendations and abstentions. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_advisor.evaluation import checks
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import without_lost
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
    """The result of one evaluation."""

    at: float
    facts: Facts
    pools: tuple[PoolState, ...]
    checks: tuple[Check, ...]
    recommendations: tuple[Recommendation, ...]
    abstentions: tuple[Abstention, ...]
    queries: int = field(default=0)

    @property
    def desired_replicas(self) -> tuple[tuple[str, int], ...]:
        """Replicas that each serving pool should have, without pools that the advisor abstains on."""
        abstained = {each.scope for each in self.abstentions if each.subject == scale_pool.SUBJECT}
        advised = {each.scope: each for each in self.recommendations if each.kind in scale_pool.KINDS}
        replicas: list[tuple[str, int]] = []
        for pool in (state.pool for state in self.pools):
            if pool.settings.kind == "serving" and pool.gpus and pool.scope not in abstained:
                advice = advised.get(pool.scope)
                present = len(without_lost(self.facts, pool.gpus)) // pool.settings.gpus_per_replica
                replicas.append((pool.settings.name, int(advice.recommended) if advice else present))
        return tuple(replicas)


def decide(facts: Facts, settings: Settings, queries: int = 0) -> Evaluation:
    """Facts -> conclusions. Pure."""
    pools = assign_pools(facts.gpus, settings.pools)
    conclusions = [each for policy in POLICIES for pool in pools for each in policy(facts, settings, pool)]
    abstentions = [each for each in conclusions if isinstance(each, Abstention)]
    if not facts.gpus:
        abstentions.append(checks.explain_no_gpus(facts))
    abstentions += calibrated_batch_size.unreadable_profiles(facts, settings.cluster)
    return Evaluation(
        at=facts.at,
        facts=facts,
        pools=tuple(PoolState(pool, measure_usage(facts, without_lost(facts, pool.gpus))) for pool in pools),
        checks=checks.run_checklist(facts, settings, pools),
        recommendations=tuple(each for each in conclusions if isinstance(each, Recommendation)),
        abstentions=tuple(abstentions),
        queries=queries,
    )
