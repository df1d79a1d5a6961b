"""One evaluation: read the source, build the facts, decide. Stateless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from gpu_advisor.calibration.loading import curves_from_metrics, load_profile_index
from gpu_advisor.cost.list_prices import shipped_list_prices
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import Lease
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.serving.recommend import joined_pools
from gpu_advisor.observation import activity, demand, utilization_history
from gpu_advisor.observation.build import build_facts
from gpu_advisor.observation.compile import compile_by_exporter, discarded_readings, limited_readings, step_utilization
from gpu_advisor.observation.controllers import controller_selectors, with_controllers
from gpu_advisor.observation.gc_pause import rare_gc
from gpu_advisor.observation.identity import build_gpus, complete_jobs
from gpu_advisor.observation.owners import date_owners, pod_start_selectors
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
from gpu_advisor.observation.series import ObservedSeries, SeriesReader
from gpu_advisor.observation.serving import read_serving
from gpu_advisor.observation.serving_day import ServingDayCache
from gpu_advisor.observation.slo_history import SloHistoryCache
from gpu_advisor.observation.unmapped import read_unmapped_exporters
from gpu_advisor.promql.expressions import Expression, Vector, none_of_values, union, with_matchers
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import PromqlSource, Source, SourceError
from gpu_advisor.sources.counting import count_queries
from gpu_advisor.sources.exporters.detection import (
    CanonicalRows,
    GpuInventory,
    PresentExporter,
    canonical_targets,
    inventory_queries,
    merge_identities,
    present_exporters,
)
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.prometheus.range_cache import RangeCache
from gpu_advisor.sources.query_plan import plan_queries

#: While a target is down, the inventory from this long ago (seconds) is read too: the GPUs of a dead exporter must not
#: leave their pool after the idle window. After a day they count as removed.
DOWN_TARGET_LOOKBACK_SECONDS = (3600, 6 * 3600, 24 * 3600)

#: Identity expressions in one query: most families have no series.
IDENTITY_LEAVES_PER_QUERY = 32


#: Selectors of pods in one query: each may have half of an engine's limit, and few have many results.
POD_LEAVES_PER_QUERY = 2


@dataclass(frozen=True, slots=True)
class HistoryCaches:
    """What one evaluation read of completed steps: the next need not. For one thread."""

    ranges: RangeCache | None = field(default_factory=RangeCache)
    slo_histories: SloHistoryCache = field(default_factory=SloHistoryCache)
    serving_day: ServingDayCache = field(default_factory=ServingDayCache)


@dataclass(frozen=True, slots=True)
class _Identified:
    """What is present at `at` (Unix time), and how to query its signals."""

    source: Source
    settings: Settings
    at: float
    results: Mapping[str, Vector]
    canonical: CanonicalRows
    inventory: GpuInventory
    present: tuple[PresentExporter, ...]
    observed: ObservedSeries

    def dialects(self, window_seconds: int | None) -> tuple[ExporterDialect, ...]:
        """The exporters present, as for signals of this window."""
        return active_dialects(self.results, self.present, self.observed, self.settings, window_seconds)


@rare_gc()
def evaluate(
    source: Source,
    settings: Settings,
    at: float,
    caches: HistoryCaches | None = None,
    leases: Mapping[str, Lease] | None = None,
) -> Evaluation:
    """Read and decide at time `at` (Unix time). Raises SourceError: partial data decides nothing.

    `caches` are those of the evaluation before; without any, each range is one query. `leases` are those of this
    advisor, by GPU.
    """
    caches = caches or HistoryCaches(ranges=None)
    counted = count_queries(source, caches.ranges)
    found = _identify(counted, settings, at)
    facts = _read_signals(found, caches.serving_day)
    facts = replace(facts, list_prices=shipped_list_prices(), leases=_by_uuid(leases or {}, facts))
    # A history reaches back as far as no selection of series is known: that of the longest window is the best guess.
    dialects = found.dialects(settings.evaluation.idle_window_seconds)
    facts = _read_idle_gpus(found, facts, dialects)
    facts = _read_pool_histories(found, facts, dialects, caches.slo_histories)
    return decide(facts, settings, queries=counted.queries)


def _identify(source: Source, settings: Settings, at: float) -> _Identified:
    first = plan_queries(identity_queries(settings), IDENTITY_LEAVES_PER_QUERY)
    results = first.read(source, at)
    label, matchers, mappings = cluster_label(settings), source_matchers(settings), mappings_of(settings)
    canonical = CanonicalRows(label)
    inventory = read_inventory(results, mappings, canonical)
    targets = canonical_targets(results["targets"], label)
    lookbacks = DOWN_TARGET_LOOKBACK_SECONDS if any(up == 0 for up in targets.values()) else ()
    # Of jobs that miss nothing, nothing is looked for: thousands of GPUs would be read for one target of another job.
    others = tuple(sorted(complete_jobs(inventory, targets, results["drivers"])))
    of_others = (*matchers, none_of_values("job", others)) if others else matchers
    for ago in lookbacks:
        identities_then = {name: with_matchers(query, of_others) for name, query in inventory_queries(mappings).items()}
        former = plan_queries(identities_then, IDENTITY_LEAVES_PER_QUERY)
        identities = merge_identities(mappings, former.read(source, at - ago), canonical)
        inventory = inventory.with_former(identities)
    reader = SeriesReader(source, at, windows_of(settings.evaluation), canonical, matchers)
    observed = reader.observe(mappings, recent_identities(results), results[SCRAPES])
    present = present_exporters(mappings, inventory)
    return _Identified(source, settings, at, results, canonical, inventory, present, observed)


def _read_signals(found: _Identified, serving_day: ServingDayCache) -> Facts:
    """All but histories: signals, inference servers, demand signals and calibrations."""
    source, settings, at = found.source, found.settings, found.at
    families = compile_by_exporter(cache(found.dialects), settings)
    expressions = {name: union(*parts.values()) for name, parts in families.items()}
    limited = limited_readings(expressions)
    second = plan_queries({**expressions, **{key: part.operand for key, part in limited.items()}})
    values = second.read(source, at)
    left_out = discarded_readings(limited, values)
    results = {**found.results, **values}
    facts = build_facts(results, found.canonical, found.inventory, families, settings, at, found.observed, left_out)
    if isinstance(source, PromqlSource):
        unmapped = read_unmapped_exporters(
            source, found.inventory, mappings_of(settings), at, source_matchers(settings)
        )
        facts = replace(facts, language=source.query_language(), unmapped_exporters=unmapped)
    tuned = any(pool.slo is not None and pool.slo.itl_p95 is not None for pool in settings.pools)
    day = serving_day if tuned else None
    serving = read_serving(source, facts, at, source_matchers(settings), cluster_label(settings), day)
    demand_signals = demand.read_demand_signals(source, settings.pools, at, settings.evaluation)
    published = curves_from_metrics(results["profile_memory"], results["profile_throughput"])
    profiles = load_profile_index(settings.profiles_dir, published)
    return replace(facts, serving=serving, demand_signals=demand_signals, profiles=profiles)


def _read_idle_gpus(found: _Identified, facts: Facts, dialects: Sequence[ExporterDialect]) -> Facts:
    """The past activity of GPUs that look idle, and what Kubernetes knows of the pods that hold them."""
    candidates = activity.idle_candidates(facts, found.settings)
    utilization = step_utilization(dialects, activity.STEP_SECONDS, overlapping=True)
    if not candidates or utilization is None:
        return facts
    matchers = source_matchers(found.settings)
    owners = [owner for uuid in candidates for owner in facts.owners.get(uuid, ())]
    pods = {**pod_start_selectors(owners), **controller_selectors(owners)}
    selectors = {name: with_matchers(each, matchers) for name, each in pods.items()}
    if selectors:
        of_pods = _read_if_accepted(found.source, selectors, found.at)
        label = facts.cluster_label
        dated = date_owners(facts.owners, of_pods, label)
        facts = replace(facts, owners=with_controllers(dated, of_pods, label))
    labels = {uuid: facts.uuid_label(uuid) for uuid in candidates}
    past = activity.read_activity(found.source, utilization, labels, found.at)
    return replace(facts, activity=past or {}, activity_step_seconds=activity.STEP_SECONDS)


def _read_pool_histories(
    found: _Identified, facts: Facts, dialects: Sequence[ExporterDialect], slo_histories: SloHistoryCache
) -> Facts:
    """The histories of serving pools; a day of those whose headroom is tuned."""
    source, settings, at = found.source, found.settings, found.at
    members = _serving_pool_uuids(facts, found.inventory, settings)
    stepwise = step_utilization(dialects, settings.evaluation.step_seconds)
    if not members or stepwise is None:
        return facts
    all_uuids = [row.get("uuid", "") for row in found.inventory.rows]
    recent = utilization_history.read_pool_histories(source, members, all_uuids, stepwise, at, settings.evaluation)
    works = utilization_history.pool_work_expressions(members, stepwise)
    facts = replace(facts, pool_histories=recent, pool_work_expressions=works)
    tuned = {
        pool.name: members[pool.name]
        for pool in settings.pools
        if pool.unserved_ratio is not None and pool.name in members
    }
    if not tuned:
        return facts
    day = slo_histories.read(source, tuned, recent, all_uuids, stepwise, at, settings.evaluation)
    return replace(facts, slo_histories=day)


def _read_if_accepted(source: Source, selectors: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
    """Nothing if the source refuses a query, as for its length: what it reads is not needed for the rest."""
    try:
        return plan_queries(selectors, POD_LEAVES_PER_QUERY).read(source, at)
    except SourceError as error:
        if not error.is_of_query:
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
    joined = joined_pools(facts.serving, settings.pools)
    found = assign_pools([*facts.gpus, *(gpu for gpu in former if gpu.uuid not in present)], settings.pools, joined)
    non_empty = {pool.settings.name for pool in assign_pools(facts.gpus, settings.pools, joined) if pool.gpus}
    return {
        pool.settings.name: pool.uuids
        for pool in found
        if pool.settings.kind == "serving" and pool.settings.name in non_empty
    }
