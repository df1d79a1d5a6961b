"""One evaluation: read the source, build the facts, decide. Stateless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from gpu_advisor.calibration.loading import curves_from_metrics, load_profile_index
from gpu_advisor.cost.list_prices import shipped_list_prices
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import Lease
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.observation import activity, demand, utilization_history
from gpu_advisor.observation.build import build_facts
from gpu_advisor.observation.compile import compile_by_exporter, discarded_readings, limited_readings, step_utilization
from gpu_advisor.observation.controllers import controller_selectors, with_controllers
from gpu_advisor.observation.gc_pause import rare_gc
from gpu_advisor.observation.identity import build_gpus
from gpu_advisor.observation.owners import date_owners, pod_start_selector
from gpu_advisor.observation.queries import (
    SCRAPES,
    active_dialects,
    cluster_label,
    identity_queries,
    mappings_of,
    read_inventory,
    recent_identities,
    source_matchers,
    windows_of,
)
from gpu_advisor.observation.series import SeriesReader
from gpu_advisor.observation.serving import read_serving
from gpu_advisor.observation.slo_history import SloHistoryCache
from gpu_advisor.observation.unmapped import read_unmapped_exporters
from gpu_advisor.promql.expressions import Expression, Vector, union, with_matchers
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import PromqlSource, QueryLanguageSource, Source, SourceError
from gpu_advisor.sources.exporters.detection import GpuInventory, inventory_queries, merge_identities, present_exporters
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.query_plan import plan_queries

#: While a target is down, the inventory from this long ago (seconds) is read too: the GPUs of a dead exporter must not
#: leave their pool after the idle window. After a day they count as removed.
DOWN_TARGET_LOOKBACK_SECONDS = (3600, 6 * 3600, 24 * 3600)

POD_STARTS = "pod_starts"

#: Identity expressions in one query: most families have no series.
IDENTITY_LEAVES_PER_QUERY = 32


@rare_gc()
def evaluate(
    source: Source,
    settings: Settings,
    at: float,
    slo_histories: SloHistoryCache | None = None,
    leases: Mapping[str, Lease] | None = None,
) -> Evaluation:
    """Read and decide at time `at` (Unix time). Raises SourceError: partial data decides nothing.

    `slo_histories` saves queries: what one evaluation read of completed steps, the next need not. `leases` are those of
    this advisor, by GPU.
    """
    first = plan_queries(identity_queries(settings), IDENTITY_LEAVES_PER_QUERY)
    results = first.read(source, at)
    queries = len(first.combined)
    label, matchers = cluster_label(settings), source_matchers(settings)
    mappings = mappings_of(settings)
    inventory = read_inventory(results, label, mappings)
    lookbacks = DOWN_TARGET_LOOKBACK_SECONDS if any(up == 0 for up in results["targets"].values()) else ()
    for ago in lookbacks:
        identities_then = {name: with_matchers(query, matchers) for name, query in inventory_queries(mappings).items()}
        former = plan_queries(identities_then, IDENTITY_LEAVES_PER_QUERY)
        identities = merge_identities(mappings, former.read(source, at - ago), label)
        queries += len(former.combined)
        inventory = replace(inventory, recent=tuple(dict.fromkeys((*inventory.recent, *identities))))
    reader = SeriesReader(source, at, windows_of(settings.evaluation), matchers, label)
    observed = reader.observe(mappings, recent_identities(results), results[SCRAPES])
    queries += observed.queries
    present = present_exporters(mappings_of(settings), inventory)

    @cache
    def find_dialects(window_seconds: int | None) -> tuple[ExporterDialect, ...]:
        return active_dialects(results, present, observed, settings, window_seconds)

    families = compile_by_exporter(find_dialects, settings)
    expressions = {name: union(*parts.values()) for name, parts in families.items()}
    limited = limited_readings(expressions)
    second = plan_queries({**expressions, **{key: part.operand for key, part in limited.items()}})
    values = second.read(source, at)
    queries += len(second.combined)
    left_out = discarded_readings(limited, values)
    facts = build_facts({**results, **values}, inventory, families, settings, at, observed, left_out)
    if isinstance(source, QueryLanguageSource):
        facts = replace(facts, language=source.query_language())
    if isinstance(source, PromqlSource):
        facts = replace(facts, unmapped_exporters=read_unmapped_exporters(source, inventory, mappings_of(settings), at))
        queries += 1
    demand_signals = demand.read_demand_signals(source, settings.pools, at, settings.evaluation)
    published = curves_from_metrics(results["profile_memory"], results["profile_throughput"])
    facts = replace(facts, demand_signals=demand_signals, profiles=load_profile_index(settings.profiles_dir, published))
    facts = replace(facts, list_prices=shipped_list_prices(), leases=_by_uuid(leases or {}, facts))
    facts = replace(facts, serving=read_serving(source, facts, at, matchers, label))
    queries += facts.serving.queries
    members = _serving_pool_uuids(facts, inventory, settings)
    # The history of a pool reaches back as far as no selection is known: the longest is the best guess.
    dialects = find_dialects(settings.evaluation.idle_window_seconds)
    stepwise = step_utilization(dialects, settings.evaluation.step_seconds)
    candidates = activity.idle_candidates(facts, settings)
    utilization = step_utilization(dialects, activity.STEP_SECONDS, overlapping=True)
    if candidates and utilization is not None:
        owners = [owner for uuid in candidates for owner in facts.owners.get(uuid, ())]
        pods = {POD_STARTS: pod_start_selector(owners), **controller_selectors(owners)}
        selectors = {name: with_matchers(each, matchers) for name, each in pods.items() if each is not None}
        if selectors:
            of_pods = _read_if_accepted(source, selectors, at)
            dated = date_owners(facts.owners, of_pods.get(POD_STARTS, {}))
            facts = replace(facts, owners=with_controllers(dated, of_pods))
        found_activity = activity.read_activity(
            source, utilization, {uuid: facts.uuid_label(uuid) for uuid in candidates}, at
        )
        facts = replace(facts, activity=found_activity or {}, activity_step_seconds=activity.STEP_SECONDS)
        queries += 2 + len(selectors)
    if members and stepwise is not None:
        all_uuids = [dict(labels).get("uuid", "") for labels in (*inventory.present, *inventory.recent)]
        found = utilization_history.read_pool_histories(source, members, all_uuids, stepwise, at, settings.evaluation)
        facts = replace(
            facts,
            pool_histories=found.histories,
            pool_work_expressions=utilization_history.pool_work_expressions(members, stepwise),
        )
        queries += found.queries
        tuned = {
            pool.name: members[pool.name]
            for pool in settings.pools
            if pool.unserved_ratio is not None and pool.name in members
        }
        if tuned:
            cache_of_steps = slo_histories or SloHistoryCache()
            day = cache_of_steps.read(source, tuned, found.histories, all_uuids, stepwise, at, settings.evaluation)
            facts = replace(facts, slo_histories=day.histories)
            queries += day.queries
    return decide(facts, settings, queries=queries + len(demand_signals))


def _read_if_accepted(source: Source, selectors: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
    """Nothing if the source refuses the query, as for its length: what it reads is not needed for the rest."""
    try:
        return source.instant(selectors, at)
    except SourceError as error:
        if error.kind not in demand.QUERY_ERROR_KINDS:
            raise
        return {}


def _by_uuid(leases: Mapping[str, Lease], facts: Facts) -> dict[str, Lease]:
    """An inventory file may list GPUs without uuid: their leases are on NODE/INDEX."""
    uuids = {f"{gpu.node}/{gpu.index}": gpu.uuid for gpu in facts.gpus} if leases else {}
    return {uuids.get(key, key): lease for key, lease in leases.items()}


def _serving_pool_uuids(facts: Facts, inventory: GpuInventory, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The GPUs of each serving pool, including those that left recently: they are part of its history."""
    if all(pool.kind != "serving" for pool in settings.pools):
        return {}
    present = {gpu.uuid for gpu in facts.gpus}
    former = build_gpus(GpuInventory(present=inventory.recent), {}, {}, {}, facts.nodes)
    found = assign_pools([*facts.gpus, *(gpu for gpu in former if gpu.uuid not in present)], settings.pools)
    non_empty = {pool.settings.name for pool in assign_pools(facts.gpus, settings.pools) if pool.gpus}
    return {
        pool.settings.name: pool.uuids
        for pool in found
        if pool.settings.kind == "serving" and pool.settings.name in non_empty
    }
