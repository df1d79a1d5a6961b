"""One evaluation, start to end: read the source, build the facts, check, decide. Nothing is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpu_advisor import checks, signals
from gpu_advisor.expressions import Expression, Select, Vector
from gpu_advisor.facts import Facts, build_gpus, build_nodes, by_thing, silent_targets
from gpu_advisor.policies import POLICIES, scale
from gpu_advisor.pools import Pool, PoolNumbers, assign, numbers
from gpu_advisor.recommendation import Abstention, Check, Recommendation
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source, Trail
from gpu_advisor.sources.mapping import Mapping as ExporterMapping
from gpu_advisor.sources.mapping import mappings

#: While a target is silent, it is also asked who was there so long ago (seconds): the GPUs behind an exporter that
#: died must not drop out of their pool with the idle window. One that is silent for a day is taken for gone.
MEMORY_SECONDS = (3600, 6 * 3600, 24 * 3600)


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


def evaluate(source: Source, settings: Settings, at: float) -> Evaluation:
    """Read and decide at time `at` (seconds since 1970). Raises SourceError: a half answer decides nothing."""
    expressions = compile_signals(mappings(), settings)
    identity = {**signals.IDENTITY, "gpu_seen": Select("gpu_info", "count", settings.evaluation.idle_window_seconds)}
    answers = dict(source.instant({**identity, **expressions}, at))
    remembered = MEMORY_SECONDS if any(up == 0 for up in answers["targets"].values()) else ()
    for ago in remembered:
        former = source.instant({"gpu_info": signals.IDENTITY["gpu_info"]}, at - ago)
        answers["gpu_seen"] = {**former["gpu_info"], **answers["gpu_seen"]}
    trail = expressions.get(signals.UTILIZATION.name)
    trails = _trails(source, trail, settings, at) if trail and _has_serving(settings) else {}
    facts = build_facts(answers, expressions, trails, settings, at)
    queries = len(identity) + len(expressions) + len(remembered) + bool(trails)
    return decide(facts, settings, queries=queries)


def decide(facts: Facts, settings: Settings, queries: int = 0) -> Evaluation:
    """Facts -> conclusions. Pure."""
    pools = assign(facts.gpus, settings.pools)
    said = [word for policy in POLICIES for pool in pools for word in policy(facts, settings, pool)]
    abstentions = [word for word in said if isinstance(word, Abstention)]
    if not facts.gpus:
        abstentions.append(checks.no_gpus(facts))
    return Evaluation(
        at=facts.at,
        facts=facts,
        pools=tuple(PoolState(pool, numbers(facts, pool)) for pool in pools),
        checks=checks.run(facts, settings, pools),
        recommendations=tuple(word for word in said if isinstance(word, Recommendation)),
        abstentions=tuple(abstentions),
        queries=queries,
    )


def compile_signals(found: Sequence[ExporterMapping], settings: Settings) -> dict[str, Expression]:
    """Each signal's expression, from the first mapping of its scope that has it."""
    compiled: dict[str, Expression] = {}
    for signal in signals.CATALOGUE:
        for mapping in found:
            if mapping.scope == signal.scope and signal.name not in compiled:
                expression = signals.compile_signal(signal, mapping, settings.evaluation)
                if expression is not None:
                    compiled[signal.name] = expression
    return compiled


def build_facts(
    answers: Mapping[str, Vector],
    expressions: Mapping[str, Expression],
    trails: Mapping[str, Trail],
    settings: Settings,
    at: float,
) -> Facts:
    """Answers by label sets -> values by GPU and node."""
    nodes = build_nodes(answers["node_info"])
    node_names = {node.instance: node.name for node in nodes}
    values = {
        signal.name: by_thing(answers[signal.name], "uuid")
        if signal.scope == "gpu"
        else by_thing(answers[signal.name], "instance", node_names)
        for signal in signals.CATALOGUE
        if signal.name in expressions
    }
    drivers: dict[str, set[str]] = {}
    for labels in answers["drivers"]:
        each = dict(labels)
        drivers.setdefault(each.get("driver", ""), set()).add(each.get("state", ""))
    return Facts(
        at=at,
        gpus=build_gpus(
            answers["gpu_info"],
            answers["gpu_seen"],
            values[signals.GPU_UP.name],
            answers["targets"],
            answers["drivers"],
        ),
        nodes=nodes,
        values=values,
        expressions=expressions,
        evaluation=settings.evaluation,
        trails=trails,
        drivers={name: frozenset(states) for name, states in drivers.items()},
        silent_targets=silent_targets(
            answers["targets"], [*answers["gpu_info"], *answers["gpu_seen"], *answers["drivers"]]
        ),
        simulated=bool(answers["simulated"]),
    )


def _has_serving(settings: Settings) -> bool:
    return any(pool.kind == "serving" for pool in settings.pools)


def _trails(source: Source, expression: Expression, settings: Settings, at: float) -> dict[str, Trail]:
    evaluation = settings.evaluation
    longest = max(
        evaluation.scale_up_stabilization_seconds,
        evaluation.scale_down_stabilization_seconds,
        evaluation.cooldown_seconds,
    )
    # The grid ends at the time of the evaluation, so that each window has the same number of points.
    start = at - longest // evaluation.step_seconds * evaluation.step_seconds
    found = source.range(expression, start, at, evaluation.step_seconds)
    return {uuid: trail for labels, trail in found.items() if (uuid := dict(labels).get("uuid"))}
