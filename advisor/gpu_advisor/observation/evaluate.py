"""One evaluation, start to end: read the source, build the facts, decide. Nothing is remembered."""

from __future__ import annotations

from dataclasses import replace

from gpu_advisor.calibration.loading import curves_from_metrics, shelf
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.gc_pause import gc_disabled
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.observation import demand, utilization_history
from gpu_advisor.observation.build import build_facts
from gpu_advisor.observation.compile import compile_by_exporter, step_utilization
from gpu_advisor.observation.identity import build_gpus
from gpu_advisor.observation.queries import active_dialects, identity_queries, read_inventory
from gpu_advisor.promql.expressions import union
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.exporters.detection import (
    GpuInventory,
    inventory_queries,
    merge_identities,
)
from gpu_advisor.sources.exporters.mapping import mappings
from gpu_advisor.sources.query_plan import plan_queries

#: While a target is silent, it is also asked who was there so long ago (seconds): the GPUs behind an exporter that
#: died must not drop out of their pool with the idle window. One that is silent for a day is taken for gone.
SILENT_TARGET_LOOKBACK_SECONDS = (3600, 6 * 3600, 24 * 3600)


#: Identity queries in one pack: of most families there is nothing to read.
IDENTITY_LEAVES_PER_QUERY = 8


@gc_disabled()
def evaluate(source: Source, settings: Settings, at: float) -> Evaluation:
    """Read and decide at time `at` (seconds since 1970). Raises SourceError: a half answer decides nothing."""
    first = plan_queries(identity_queries(settings), IDENTITY_LEAVES_PER_QUERY)
    answers = first.read(source, at)
    queries = len(first.combined)
    inventory = read_inventory(answers)
    remembered = SILENT_TARGET_LOOKBACK_SECONDS if any(up == 0 for up in answers["targets"].values()) else ()
    for ago in remembered:
        former = plan_queries(inventory_queries(mappings()), IDENTITY_LEAVES_PER_QUERY)
        seen = merge_identities(mappings(), former.read(source, at - ago))
        queries += len(former.combined)
        inventory = replace(inventory, recent=tuple(dict.fromkeys((*inventory.recent, *seen))))
    speaking = active_dialects(answers, inventory)
    families = compile_by_exporter(speaking, settings)
    expressions = {name: union(*parts.values()) for name, parts in families.items()}
    second = plan_queries(expressions)
    values = second.read(source, at)
    queries += len(second.combined)
    facts = build_facts({**answers, **values}, inventory, families, settings, at)
    demands = demand.read_demand_signals(source, settings.pools, at, settings.evaluation)
    published = curves_from_metrics(answers["profile_memory"], answers["profile_throughput"])
    facts = replace(facts, demand_signals=demands, profiles=shelf(settings.profiles_dir, published))
    members = _serving_pool_uuids(facts, inventory, settings)
    stepwise = step_utilization(speaking, settings.evaluation)
    if members and stepwise is not None:
        everybody = [dict(labels).get("uuid", "") for labels in (*inventory.present, *inventory.recent)]
        found = utilization_history.read_pool_histories(source, members, everybody, stepwise, at, settings.evaluation)
        facts = replace(
            facts,
            pool_histories=found.histories,
            pool_work_expressions=utilization_history.pool_work_expressions(members, stepwise),
        )
        queries += found.queries
    return decide(facts, settings, queries=queries + len(demands))


def _serving_pool_uuids(facts: Facts, inventory: GpuInventory, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The GPUs of each serving pool, those that left it lately as well: the pool's past is theirs, too."""
    if all(pool.kind != "serving" for pool in settings.pools):
        return {}
    now = {gpu.uuid for gpu in facts.gpus}
    gone = build_gpus(GpuInventory(present=inventory.recent), {}, {}, {}, facts.nodes)
    found = assign_pools([*facts.gpus, *(gpu for gpu in gone if gpu.uuid not in now)], settings.pools)
    there = {pool.settings.name for pool in assign_pools(facts.gpus, settings.pools) if pool.gpus}
    return {
        pool.settings.name: pool.uuids
        for pool in found
        if pool.settings.kind == "serving" and pool.settings.name in there
    }
