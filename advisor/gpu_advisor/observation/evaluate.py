"""One evaluation, start to end: read the source, build the facts, decide. Nothing is remembered."""

from __future__ import annotations

from dataclasses import replace

from gpu_advisor.calibration.loading import curves_of_metrics, shelf
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.gc_pause import paused_collection
from gpu_advisor.evaluation.pools import assign
from gpu_advisor.observation import demand, utilization_history
from gpu_advisor.observation.build import build_facts
from gpu_advisor.observation.compile import compile_by_family, step_utilization
from gpu_advisor.observation.identity import build_gpus
from gpu_advisor.observation.queries import identity_queries, inventory, present_speakers
from gpu_advisor.promql.expressions import union
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.exporters.detection import (
    Roster,
    canonical,
    roster_queries,
)
from gpu_advisor.sources.exporters.mapping import mappings
from gpu_advisor.sources.reading import plan

#: While a target is silent, it is also asked who was there so long ago (seconds): the GPUs behind an exporter that
#: died must not drop out of their pool with the idle window. One that is silent for a day is taken for gone.
MEMORY_SECONDS = (3600, 6 * 3600, 24 * 3600)


#: Identity queries in one pack: of most families there is nothing to read.
IDENTITY_PACK = 8


@paused_collection()
def evaluate(source: Source, settings: Settings, at: float) -> Evaluation:
    """Read and decide at time `at` (seconds since 1970). Raises SourceError: a half answer decides nothing."""
    first = plan(identity_queries(settings), IDENTITY_PACK)
    answers = first.read(source, at)
    queries = len(first.packs)
    roster = inventory(answers)
    remembered = MEMORY_SECONDS if any(up == 0 for up in answers["targets"].values()) else ()
    for ago in remembered:
        former = plan(roster_queries(mappings()), IDENTITY_PACK)
        seen = canonical(mappings(), former.read(source, at - ago))
        queries += len(former.packs)
        roster = replace(roster, seen=tuple(dict.fromkeys((*roster.seen, *seen))))
    speaking = present_speakers(answers, roster)
    families = compile_by_family(speaking, settings)
    expressions = {name: union(*parts.values()) for name, parts in families.items()}
    second = plan(expressions)
    values = second.read(source, at)
    queries += len(second.packs)
    facts = build_facts({**answers, **values}, roster, families, settings, at)
    demands = demand.read(source, settings.pools, at, settings.evaluation)
    published = curves_of_metrics(answers["profile_memory"], answers["profile_throughput"])
    facts = replace(facts, demands=demands, shelf=shelf(settings.profiles_dir, published))
    members = _serving(facts, roster, settings)
    stepwise = step_utilization(speaking, settings.evaluation)
    if members and stepwise is not None:
        everybody = [dict(labels).get("uuid", "") for labels in (*roster.present, *roster.seen)]
        found = utilization_history.read(source, members, everybody, stepwise, at, settings.evaluation)
        facts = replace(facts, trails=found.trails, trail_expressions=utilization_history.work_of(members, stepwise))
        queries += found.queries
    return decide(facts, settings, queries=queries + len(demands))


def _serving(facts: Facts, roster: Roster, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The GPUs of each serving pool, those that left it lately as well: the pool's past is theirs, too."""
    if all(pool.kind != "serving" for pool in settings.pools):
        return {}
    now = {gpu.uuid for gpu in facts.gpus}
    gone = build_gpus(Roster(present=roster.seen), {}, {}, {}, facts.nodes)
    found = assign([*facts.gpus, *(gpu for gpu in gone if gpu.uuid not in now)], settings.pools)
    there = {pool.settings.name for pool in assign(facts.gpus, settings.pools) if pool.gpus}
    return {
        pool.settings.name: pool.uuids
        for pool in found
        if pool.settings.kind == "serving" and pool.settings.name in there
    }
