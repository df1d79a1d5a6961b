"""One evaluation, start to end: read the source, build the facts, check, decide. Nothing is remembered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from gpu_advisor import checks, demand, signals, trails
from gpu_advisor.calibration.curves import curves_of_metrics, shelf
from gpu_advisor.collecting import paused_collection
from gpu_advisor.expressions import Expression, Labels, Vector, union
from gpu_advisor.facts import Facts, believable, build_gpus, build_nodes, by_thing, doubled, job_of_each, silent_targets
from gpu_advisor.policies import POLICIES, calibrated_batch, scale
from gpu_advisor.pools import Pool, PoolNumbers, assign, numbers
from gpu_advisor.recommendation import Abstention, Check, Recommendation
from gpu_advisor.settings import Evaluation as EvaluationSettings
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.detection import (
    Roster,
    canonical,
    interval_queries,
    roster_queries,
    scrape_intervals,
    speakers,
)
from gpu_advisor.sources.mapping import RECORDED, mappings, own_mappings
from gpu_advisor.sources.reading import plan
from gpu_advisor.sources.speaker import Speaker

#: While a target is silent, it is also asked who was there so long ago (seconds): the GPUs behind an exporter that
#: died must not drop out of their pool with the idle window. One that is silent for a day is taken for gone.
MEMORY_SECONDS = (3600, 6 * 3600, 24 * 3600)


#: Scrape intervals are told from windows of the evaluation, and from this one, which a restart leaves behind soonest.
SHORTEST_SECONDS = 60

#: Identity queries in one pack: of most families there is nothing to read.
IDENTITY_PACK = 8

#: What the keys of identity queries begin with; behind it comes a mapping's name, or a window in seconds.
PRESENT, SEEN, SCRAPES = "present/", "seen/", "scrapes/"


@dataclass(frozen=True, slots=True)
class PoolState:
    pool: Pool
    numbers: PoolNumbers


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
        abstained = {word.scope for word in self.abstentions if word.subject == scale.SUBJECT}
        advised = {word.scope: word for word in self.recommendations if word.kind in scale.KINDS}
        wanted: list[tuple[str, int]] = []
        for pool in (state.pool for state in self.pools):
            if pool.settings.kind == "serving" and pool.gpus and pool.scope not in abstained:
                advice = advised.get(pool.scope)
                present = len(pool.gpus) // pool.settings.gpus_per_replica
                wanted.append((pool.settings.name, int(advice.recommended) if advice else present))
        return tuple(wanted)


@paused_collection()
def evaluate(source: Source, settings: Settings, at: float) -> Evaluation:
    """Read and decide at time `at` (seconds since 1970). Raises SourceError: a half answer decides nothing."""
    first = plan(identity_queries(settings), IDENTITY_PACK)
    answers = first.read(source, at)
    queries = len(first.packs)
    roster = _roster(answers)
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
    stepwise = _stepwise(speaking, settings.evaluation)
    if members and stepwise is not None:
        everybody = [dict(labels).get("uuid", "") for labels in (*roster.present, *roster.seen)]
        found = trails.read(source, members, everybody, stepwise, at, settings.evaluation)
        facts = replace(facts, trails=found.trails, trail_expressions=trails.work_of(members, stepwise))
        queries += found.queries
    return decide(facts, settings, queries=queries + len(demands))


def identity_queries(settings: Settings) -> dict[str, Expression]:
    """What is asked first: who is there, who was there lately, and how often they are scraped."""
    evaluation = settings.evaluation
    windows = sorted({SHORTEST_SECONDS, evaluation.window_seconds, evaluation.idle_window_seconds})
    return {
        **signals.IDENTITY,
        **_prefixed(PRESENT, roster_queries(mappings())),
        **_prefixed(SEEN, roster_queries(mappings(), evaluation.idle_window_seconds)),
        **_prefixed(SCRAPES, interval_queries(windows)),
    }


def _roster(answers: Mapping[str, Vector]) -> Roster:
    return Roster(
        canonical(mappings(), _unprefixed(PRESENT, answers)), canonical(mappings(), _unprefixed(SEEN, answers))
    )


def present_speakers(answers: Mapping[str, Vector], roster: Roster) -> tuple[Speaker, ...]:
    """The exporter families that are here. Where there are none of a scope, those of this project are waited for."""
    intervals = scrape_intervals(_unprefixed(SCRAPES, answers))
    found = speakers(mappings(), roster, answers["targets"], intervals)
    scopes = {speaker.mapping.scope for speaker in found if not speaker.mapping.companion}
    return (*found, *(Speaker(mapping) for mapping in own_mappings() if mapping.scope not in scopes))


def _prefixed(prefix: str, queries: Mapping[str, Expression]) -> dict[str, Expression]:
    return {prefix + name: expression for name, expression in queries.items()}


def _unprefixed(prefix: str, answers: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in answers.items() if name.startswith(prefix)}


def decide(facts: Facts, settings: Settings, queries: int = 0) -> Evaluation:
    """Facts -> conclusions. Pure."""
    pools = assign(facts.gpus, settings.pools)
    said = [word for policy in POLICIES for pool in pools for word in policy(facts, settings, pool)]
    abstentions = [word for word in said if isinstance(word, Abstention)]
    if not facts.gpus:
        abstentions.append(checks.no_gpus(facts))
    abstentions += calibrated_batch.unreadable(facts, settings.cluster)
    return Evaluation(
        at=facts.at,
        facts=facts,
        pools=tuple(PoolState(pool, numbers(facts, pool)) for pool in pools),
        checks=checks.run(facts, settings, pools),
        recommendations=tuple(word for word in said if isinstance(word, Recommendation)),
        abstentions=tuple(abstentions),
        queries=queries,
    )


def compile_signals(found: Sequence[Speaker], settings: Settings) -> dict[str, Expression]:
    """Each signal's expression: of every exporter family that has it, each GPU by the first that tells of it."""
    return {name: union(*parts.values()) for name, parts in compile_by_family(found, settings).items()}


def compile_by_family(found: Sequence[Speaker], settings: Settings) -> dict[str, dict[str, Expression]]:
    """By signal and exporter family, in the order in which they are listened to.

    Where recorded series tell of a long window, its raw samples are not read.
    """
    compiled: dict[str, dict[str, Expression]] = {}
    for signal in signals.CATALOGUE:
        parts: dict[str, Expression] = {}
        for speaker in found:
            expression = None
            if speaker.mapping.scope == signal.scope:
                expression = signals.compile_signal(signal, speaker, settings.evaluation)
            if expression is not None:
                before = (parts[speaker.name],) if speaker.name in parts else ()
                parts[speaker.name] = union(*before, expression)
                if speaker.name == RECORDED:
                    break
        if parts:
            compiled[signal.name] = parts
    return compiled


def build_facts(
    answers: Mapping[str, Vector],
    roster: Roster,
    families: Mapping[str, Mapping[str, Expression]],
    settings: Settings,
    at: float,
) -> Facts:
    """Answers by label sets -> values by GPU and node. `families` are the signals' expressions by exporter family."""
    known = {mapping.name: mapping for mapping in mappings()}
    of_gpus = {name for name, mapping in known.items() if mapping.scope == "gpu" and not mapping.companion}
    gpus_there = Roster(*(_of(rows, of_gpus) for rows in (roster.present, roster.seen)))
    nodes = build_nodes(_of(roster.present, {name for name, mapping in known.items() if mapping.scope == "node"}))
    node_names = {node.instance: node.name for node in nodes}
    values: dict[str, dict[str, float]] = {}
    refused: dict[str, dict[str, float]] = {}
    for signal in signals.CATALOGUE:
        if signal.name in families:
            read = (
                by_thing(answers[signal.name], "uuid")
                if signal.scope == "gpu"
                else by_thing(answers[signal.name], "instance", node_names)
            )
            low, high = believable(signal)
            used = {name: value for name, value in read.items() if low <= value <= high}  # NaN is not
            values[signal.name] = used
            if len(used) < len(read):
                refused[signal.name] = {name: value for name, value in read.items() if name not in used}
    drivers: dict[str, set[str]] = {}
    for labels in answers["drivers"]:
        each = dict(labels)
        drivers.setdefault(each.get("driver", ""), set()).add(each.get("state", ""))
    # Where an exporter tells nothing of a GPU's health, that it names the GPU has to do.
    silent_on_health = {name for name in of_gpus if not known[name].forms(signals.GPU_UP.quantity)}
    named = {dict(labels)["uuid"]: 1.0 for labels in _of(gpus_there.present, silent_on_health)}
    up = {**named, **values.get(signals.GPU_UP.name, {})}
    return Facts(
        at=at,
        gpus=build_gpus(gpus_there, up, answers["targets"], answers["drivers"], nodes),
        nodes=nodes,
        values=values,
        expressions={name: union(*parts.values()) for name, parts in families.items()},
        evaluation=settings.evaluation,
        drivers={name: frozenset(states) for name, states in drivers.items()},
        silent_targets=silent_targets(answers["targets"], [*gpus_there.present, *gpus_there.seen, *answers["drivers"]]),
        simulated=bool(answers["simulated"]),
        # A companion speaks of GPUs of all exporters.
        speaking={
            name: frozenset(of_gpus if any(known[each].companion for each in parts) else parts)
            for name, parts in families.items()
        },
        refused=refused,
        doubled=doubled(gpus_there),
        jobs=job_of_each(answers["owners"]),
        reported_jobs=job_of_each(answers["reports"]),
    )


def _of(rows: Iterable[Labels], exporters: Collection[str]) -> tuple[Labels, ...]:
    return tuple(labels for labels in rows if dict(labels)["exporter"] in exporters)


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


def _stepwise(found: Sequence[Speaker], evaluation: EvaluationSettings) -> Expression | None:
    """Utilization over one step of a trail; over two scrapes at least, or there would be none."""
    parts: list[Expression] = []
    for speaker in found:
        if speaker.mapping.scope == signals.UTILIZATION.scope and speaker.name != RECORDED:
            window = max(evaluation.step_seconds, ceil(2.5 * (speaker.interval_seconds or 0)))
            expression = speaker.expression(signals.UTILIZATION.quantity, signals.UTILIZATION.reduction, window)
            parts += [expression] if expression is not None else []
    return union(*parts) if parts else None
