"""The decision of one evaluation: facts -> checks, recommendations and abstentions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpu_advisor.evaluation.agreement import agree, merge
from gpu_advisor.evaluation.checks import run_checklist
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import without_lost
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.policies import POLICIES, calibrated_batch_size, scale_pool
from gpu_advisor.evaluation.pools import Pool, PoolUsage, assign_pools, measure_usage, with_inferred_kinds
from gpu_advisor.evaluation.prices import Prices, fleet_prices, model_prices
from gpu_advisor.evaluation.recommendation import Abstention, Check, Recommendation
from gpu_advisor.evaluation.savings import MoneySummary, summarize, urgency, with_savings
from gpu_advisor.evaluation.scaling.headroom import TunedHeadroom
from gpu_advisor.evaluation.serving.decision_table import SIZE_KINDS
from gpu_advisor.evaluation.serving.groups import serving_groups
from gpu_advisor.evaluation.serving.headroom import with_group_headroom
from gpu_advisor.evaluation.serving.recommend import (
    ServedPool,
    conclude,
    pools_by_gpu,
    served_pools,
    several_models,
    sized_by_requests,
)
from gpu_advisor.evaluation.unknown_checks import explain_no_gpus
from gpu_advisor.settings import Settings


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool, and the headroom that is tuned to its SLO."""

    pool: Pool
    usage: PoolUsage
    headroom: TunedHeadroom | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one evaluation; the most urgent recommendation is the first."""

    at: float
    facts: Facts
    pools: tuple[PoolState, ...]
    checks: tuple[Check, ...]
    recommendations: tuple[Recommendation, ...]
    abstentions: tuple[Abstention, ...]
    queries: int = field(default=0)
    prices: Prices = field(default_factory=lambda: Prices({}, "USD"))
    served: tuple[ServedPool, ...] = ()

    @property
    def pools_counted_by_servers(self) -> frozenset[str]:
        """Names of the pools whose replicas are inference servers; those of all others are groups of GPUs."""
        return sized_by_requests(self.served)

    @property
    def replicas(self) -> Mapping[str, int]:
        """Present replicas by pool. A replica is what serves alone: `gpus_per_replica` GPUs, or an inference server.

        As many as its GPUs make, lost ones included, since a workload counts them still; of a pool that is counted by
        servers, those that report.
        """
        by_requests = self.pools_counted_by_servers
        serving = Counter[str]()
        for one in self.served:
            if one.pool.settings.name in by_requests:
                serving[one.pool.settings.name] += len(one.group.replicas)
        of_gpus = {each.pool.settings.name: each.pool.replicas for each in self.pools}
        return of_gpus | serving

    @property
    def desired_replicas(self) -> tuple[tuple[str, int], ...]:
        """Replicas that each pool set to serving should have, without pools that the advisor abstains on.

        Without a recommendation, as many as it has; at least as many with one to grow, whose GPUs may be lost.
        """
        abstained = {each.scope for each in self.abstentions if each.subject == scale_pool.SUBJECT}
        advised = {each.scope: each for each in self.recommendations if each.kind in (*scale_pool.KINDS, *SIZE_KINDS)}
        present = self.replicas
        replicas: list[tuple[str, int]] = []
        for pool in (state.pool for state in self.pools):
            name = pool.settings.name
            is_set = pool.settings.kind == "serving" and pool.inference is None
            if is_set and (pool.gpus or present[name]) and pool.scope not in abstained:
                advice = advised.get(pool.scope)
                wanted = int(advice.recommended) if advice else present[name]
                replicas.append((name, max(wanted, present[name]) if advice and advice.direction == "up" else wanted))
        return tuple(replicas)

    @property
    def model_prices(self) -> Mapping[str, GpuPrice]:
        """Prices by the driver's name of the model."""
        return model_prices(self.facts, self.prices.by_gpu)

    def summarize(self, advice: Sequence[Recommendation]) -> MoneySummary:
        """What these recommendations, current or stale, are worth together."""
        return summarize(advice, self.facts, [state.pool for state in self.pools], self.prices)


def decide(facts: Facts, settings: Settings, queries: int = 0) -> Evaluation:
    """Facts -> conclusions. Pure."""
    groups = serving_groups(facts.serving, facts.at)
    assigned = assign_pools(facts.gpus, settings.pools, pools_by_gpu(groups, settings.pools))
    pools = scale_pool.with_headroom(facts, settings, with_inferred_kinds(facts, assigned, settings.pools))
    served = with_group_headroom(served_pools(groups, pools, settings), settings, facts.at)
    tuned = {one.pool.settings.name: one.pool for one in served}
    pools = tuple(tuned.get(pool.settings.name, pool) if pool.gpus else pool for pool in pools)
    by_requests = sized_by_requests(served)
    prices = fleet_prices(facts, settings.cost)
    conclusions = [
        (each, pool)
        for policy in POLICIES
        for pool in pools
        if policy is not scale_pool.recommend or pool.settings.name not in by_requests
        for each in policy(facts, settings, pool)
    ]
    conclusions += [(each, one.pool) for one in served for each in conclude(facts, settings, one)]
    abstentions = [each for each, _ in conclusions if isinstance(each, Abstention)]
    abstentions += several_models(served)
    found = [(each, pool) for each, pool in conclusions if isinstance(each, Recommendation)]
    pool_of = {each.scope: pool for each, pool in found}
    advice = [with_savings(each, pool_of[each.scope], prices) for each in merge(each for each, _ in found)]
    if not facts.gpus:
        abstentions.append(explain_no_gpus(facts))
    abstentions += calibrated_batch_size.unreadable_profiles(facts, settings.cluster)
    return Evaluation(
        at=facts.at,
        facts=facts,
        pools=tuple(_pool_state(facts, pool) for pool in pools),
        checks=run_checklist(facts, settings, pools, prices),
        recommendations=tuple(sorted(agree(advice), key=lambda each: urgency(each, each.id(settings.cluster)))),
        abstentions=tuple(abstentions),
        queries=queries,
        prices=prices,
        served=served,
    )


def _pool_state(facts: Facts, pool: Pool) -> PoolState:
    tuned = pool.headroom if isinstance(pool.headroom, TunedHeadroom) else None
    return PoolState(pool, measure_usage(facts, without_lost(facts, pool.gpus)), tuned)
