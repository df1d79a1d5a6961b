"""Conclusions on inference servers: groups -> diagnoses -> recommendations with evidence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpu_advisor.evaluation.actions import Action
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.policies.scale_pool import SUBJECT as SCALE_SUBJECT
from gpu_advisor.evaluation.policies.scale_pool import scaling_limits
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import (
    Abstention,
    Alternative,
    Evidence,
    LabelSelection,
    Projection,
    Reason,
    Recommendation,
    Scope,
)
from gpu_advisor.evaluation.scaling.headroom import TunedHeadroom
from gpu_advisor.evaluation.scaling.headroom_text import describe_headroom
from gpu_advisor.evaluation.serving.advice import Advice, ServerOptions
from gpu_advisor.evaluation.serving.advisers import advise, near_misses
from gpu_advisor.evaluation.serving.decision_table import FEWER_KIND, SIZE_KINDS, ServingCause
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis, diagnose_group
from gpu_advisor.evaluation.serving.facts import ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup, serving_groups
from gpu_advisor.evaluation.serving.settings_first import REMEDIED, REPLICAS_FIRST, after_change, changes_first
from gpu_advisor.evaluation.serving.signals import BY_NAME
from gpu_advisor.evaluation.serving.size_obstacles import hung_replicas, size_obstacle
from gpu_advisor.evaluation.serving.sizing import size_group
from gpu_advisor.promql.expressions import Matcher
from gpu_advisor.settings import EvaluationSettings, PoolSettings, Settings

SUBJECT = "serving"

#: The evidence of a number of replicas.
SIZE_SIGNALS = ("generation_token_rate", "running", "waiting", "itl_p95", "ttft_p95")

#: A queue that is a limit's: the least share of requests that wait, and of the most running that the median is.
QUEUE_SHARE, PLATEAU = 0.2, 0.97

#: The demand that must be known to remove replicas (seconds).
REMOVAL_SECONDS = 3600.0

#: The least samples of a window that a conclusion needs.
MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A group and the pool that it serves from: a configured one, or one by itself. `alone`: no other group does."""

    group: ServingGroup
    pool: Pool
    configured: bool
    alone: bool

    @property
    def scope(self) -> Scope:
        name = self.pool.settings.name
        return self.pool.scope if self.alone or name == self.group.name else Scope("pool", f"{name}/{self.group.name}")

    @property
    def objectives(self) -> Objectives:
        slo = self.pool.settings.slo
        return Objectives() if slo is None else Objectives(slo.ttft_p95, slo.itl_p95)


def pools_by_gpu(groups: Sequence[ServingGroup], configured: Sequence[PoolSettings]) -> dict[str, PoolSettings]:
    """The pool of each GPU of a group: a configured one that joins servers, or, for GPUs that no selectors match, one
    of kind serving by itself."""
    taken = {pool.name for pool in configured}
    find = _joined_pool(groups, configured)
    found: dict[str, PoolSettings] = {}
    for group in groups:
        joined = find(group)
        if joined is not None:
            found |= dict.fromkeys(group.gpus, joined)
            continue
        if group.name in taken:
            continue
        replicas = len(group.replicas)
        per_replica = len(group.gpus) // replicas if replicas and len(group.gpus) % replicas == 0 else 1
        pool = PoolSettings(name=group.name, kind="serving", gpus_per_replica=max(1, per_replica))
        found |= dict.fromkeys(group.gpus, pool)
    return found


def joined_pools(serving: ServingFacts, configured: Sequence[PoolSettings]) -> dict[str, PoolSettings]:
    """Configured pools that join servers, by GPU."""
    if not any(pool.joins_servers for pool in configured):
        return {}
    names = {pool.name for pool in configured}
    found = pools_by_gpu(serving_groups(serving, 0.0), configured)
    return {uuid: pool for uuid, pool in found.items() if pool.name in names}


def _joined_pool(
    groups: Sequence[ServingGroup], configured: Sequence[PoolSettings]
) -> Callable[[ServingGroup], PoolSettings | None]:
    """Which of the pools that join servers a group belongs to: the one of its name, else the first of no group's."""
    joining = {pool.name: pool for pool in configured if pool.joins_servers}
    names = {name for group in groups for name in (group.name, group.model)}
    of_others = next((pool for name, pool in joining.items() if name not in names), None)
    return lambda group: joining.get(group.name) or joining.get(group.model) or of_others


def served_pools(groups: Sequence[ServingGroup], pools: Sequence[Pool], settings: Settings) -> tuple[ServedPool, ...]:
    """Each group with its pool: the one that has its GPUs, else the one of its model's name, else one for others."""
    by_uuid = {uuid: pool for pool in pools for uuid in pool.uuids}
    by_name = {pool.settings.name: pool for pool in pools}
    configured = {pool.name for pool in settings.pools}
    find = _joined_pool(groups, settings.pools)
    found = []
    for group in groups:
        of = {by_uuid[uuid].settings.name for uuid in group.gpus if uuid in by_uuid}
        name = of.pop() if len(of) == 1 else next((each for each in (group.name, group.model) if each in by_name), "")
        joined = find(group)
        pool = by_name.get(name) or (by_name[joined.name] if joined else None)
        pool = pool or Pool(PoolSettings(name=group.name, kind="serving"), ())
        found.append((group, pool))
    names = [pool.settings.name for _, pool in found]
    return tuple(
        ServedPool(group, pool, pool.settings.name in configured, names.count(pool.settings.name) == 1)
        for group, pool in found
    )


def sized_by_requests(served: Iterable[ServedPool]) -> frozenset[str]:
    """Pools of language models without a demand signal of their own: utilization says nothing about their size."""
    return frozenset(
        each.pool.settings.name
        for each in served
        if each.pool.settings.demand is None and any(_is_language_model(one.values) for one in each.group.replicas)
    )


def several_models(served: Sequence[ServedPool]) -> Iterator[Abstention]:
    """Pools whose servers are of several models: one number of replicas would be wrong for each of them."""
    members: dict[Scope, list[ServedPool]] = {}
    for each in served:
        if each.configured and not each.alone:
            members.setdefault(each.pool.scope, []).append(each)
    for scope, found in members.items():
        names = ", ".join(f"{each.group.name} ({len(each.group.replicas)})" for each in found)
        message = (
            f"the pool {scope.name} has several groups of servers, {names}: no one number of replicas fits them. Give "
            "each a pool of its name"
        )
        gpus = tuple(sorted({uuid for each in found for uuid in each.group.gpus}))
        yield Abstention(Reason.CONFLICTING, SCALE_SUBJECT, scope, message, gpus)


def _is_language_model(values: Mapping[str, float]) -> bool:
    return "generation_token_rate" in values or "itl_mean" in values


def conclude(facts: Facts, settings: Settings, served: ServedPool) -> Iterator[Recommendation | Abstention]:
    """The conclusions on one group."""
    group, scope = served.group, served.scope
    samples = max((each.value("samples") or 0.0) for each in group.replicas)
    if samples < MIN_SAMPLES:
        message = f"{samples:.0f} samples of {group.name} in the window, {MIN_SAMPLES} are needed: wait"
        yield Abstention(Reason.INSUFFICIENT_HISTORY, SUBJECT, scope, message)
        return
    objectives = served.objectives
    if objectives == Objectives() and any(_is_language_model(each.values) for each in group.replicas):
        yield Abstention(
            Reason.UNSUPPORTED, SCALE_SUBJECT, scope,
            f"the size of {group.name} follows from latencies, and no objective is stated: {_how_to_state(served)}",
            group.gpus,
        )  # fmt: skip
    diagnosis = diagnose_group(group, objectives)
    options = ServerOptions(
        facts.serving.titles.get(group.server, group.server), facts.serving.flags.get(group.server, {}),
        facts.serving.helm_values.get(group.server, {}), _is_shared(facts, group),
    )  # fmt: skip
    if not diagnosis.causes and not diagnosis.pending and (queue := _unexplained_queue(diagnosis, options)):
        yield Abstention(Reason.UNSUPPORTED, SUBJECT, scope, queue, group.gpus)
    if diagnosis.pending:
        yield Abstention(Reason.INSUFFICIENT_HISTORY, SUBJECT, scope, _pending(diagnosis), group.gpus)
    hung = hung_replicas(group, facts.serving)
    if hung:
        yield Abstention(Reason.CONFLICTING, SUBJECT, scope, _hung(group, hung), group.gpus)
    follows_objectives = served.configured and objectives != Objectives()
    sized = _sized(facts, settings, served, diagnosis, hung) if follows_objectives else None
    if sized is not None:
        yield sized
    for cause in diagnosis.causes:
        if cause.kind in SIZE_KINDS and isinstance(sized, Recommendation):
            continue  # one number of replicas
        if cause.kind == FEWER_KIND and follows_objectives and not _may_remove(sized, group, settings.evaluation):
            continue
        advice = advise(diagnosis, cause.name, options)
        if advice is None:
            continue
        if follows_objectives and cause.name in REMEDIED:
            advice = replace(advice, rejected=(*advice.rejected, REPLICAS_FIRST))
        if found := _recommendation(facts, settings, served, diagnosis, cause, advice):
            yield found


def _may_remove(sized: Recommendation | Abstention | None, group: ServingGroup, evaluation: EvaluationSettings) -> bool:
    """Whether replicas may go for a cause: not if the demand expected needs those that there are, and without a size
    for it only if the demand of the hour before is known, which the cause counts with. What is missing may have been
    the peak."""
    if not isinstance(sized, Abstention) or sized.reason is not Reason.INSUFFICIENT_HISTORY:
        return False
    known = sum(1 for each in group.demand if each.at > group.at - REMOVAL_SECONDS)
    return known >= evaluation.min_coverage_ratio * REMOVAL_SECONDS / evaluation.step_seconds


def _how_to_state(served: ServedPool) -> str:
    name, example = served.pool.settings.name, "{ttft_p95: 500ms, itl_p95: 50ms}"
    if served.configured:
        return f"set slo in the pool {name}, as in {example}"
    return f"add a pool {name} of kind serving with slo.ttft_p95 and slo.itl_p95, as in slo: {example}"


def _hung(group: ServingGroup, hung: Iterable[ServingReplica]) -> str:
    names = ", ".join(each.label for each in hung)
    return (
        f"{names} of {group.name}: requests run, and no token was generated for {group.window_seconds:g} s: "
        "restart what hangs. Until then the number of replicas is not reduced"
    )


def _pending(diagnosis: GroupDiagnosis) -> str:
    causes = " and ".join(each.title for each in diagnosis.pending)
    window = diagnosis.group.window_seconds
    return (
        f"{diagnosis.group.name}: {causes} in the last {window:g} s, not in the {window:g} s before: advice follows if "
        "the next window shows it, too"
    )


def _unexplained_queue(diagnosis: GroupDiagnosis, options: ServerOptions) -> str | None:
    """A queue at a limit of a server that does not publish how full its KV cache is: two remedies are possible."""
    found = diagnosis.features
    waiting, share, plateau = found["waiting"], found["queue_share"], found["plateau"]
    if waiting is None or share is None or plateau is None or found["kv_usage_max"] is not None:
        return None
    if share < QUEUE_SHARE or plateau < PLATEAU:
        return None
    running = diagnosis.pressed.value("running") or 0.0
    flag = options.flags.get("max_num_batched_tokens") or options.flags.get("max_num_seqs") or "its batch limit"
    return (
        f"{waiting:.0f} requests of {diagnosis.group.name} wait while the {running:.0f} running stay the same, and "
        f"{options.title} does not publish how full its KV cache is: raise {flag} if the GPU has free memory, else add "
        "replicas"
    )


def _sized(
    facts: Facts,
    settings: Settings,
    served: ServedPool,
    diagnosis: GroupDiagnosis,
    hung: Collection[ServingReplica],
) -> Recommendation | Abstention | None:
    """The number of replicas for the demand expected, if it differs from the present one, or why it is unknown."""
    limits, last = scaling_limits(settings, served.pool), step_bounds(facts.at, settings.evaluation)[1]
    group = served.group
    serving = replace(group, replicas=tuple(each for each in group.replicas if each not in hung))
    if not serving.replicas:
        return None
    changes = changes_first(diagnosis)
    to_size = after_change(serving, changes) if changes else serving
    found = size_group(to_size, served.objectives, limits, settings.evaluation, last, served.pool.headroom)
    obstacle = size_obstacle(group, served.objectives, limits, found, settings.evaluation)
    if obstacle is not None:
        return Abstention(obstacle.reason, SCALE_SUBJECT, served.scope, obstacle.why, group.gpus)
    if found is None:
        return None
    decision, work = found
    present, wanted = len(group.replicas), min(decision.replicas + len(hung), limits.max)
    grows = wanted > present
    if wanted == present or ((hung or changes) and not grows):
        return None
    after = f" after {REMEDIED[changes[0].name]}" if changes else ""
    return Recommendation(
        kind="scale_up" if grows else "scale_down",
        direction="up" if grows else "down",
        scope=served.scope,
        severity="warning" if grows else "info",
        summary=f"Scale {group.name} from {present} to {wanted} replicas{after}: {decision.why}",
        current=present,
        recommended=wanted,
        unit="replicas",
        diagnosis="overloaded" if grows else "oversized",
        explanation=f"By its own curve, a replica generates {work:.0f} tokens per second within the objective. Demand "
        f"is {decision.level or 0:.1f} replicas' worth; {decision.expected or 0:.1f} are expected when a new replica "
        f"serves, in {limits.start_delay_seconds:g} s.{_tuning(served.pool)}",
        confidence="medium" if group.curve is None or group.curve.error_ratio > 0.1 else "high",
        projection=Projection(),
        evidence=tuple(_evidence(facts, diagnosis, SIZE_SIGNALS)),
        rejected=(Alternative("scale on GPU utilization", "a language model shows 100 % at almost any load"),),
        actions=(Action("scale_replicas", served.pool.settings.name, {"replicas": wanted}),),
        gpus=group.gpus,
        nodes=tuple(sorted({each.node for each in group.replicas if each.node})),
    )


def _tuning(pool: Pool) -> str:
    """What tuned the headroom to the pool's SLO, if that did."""
    if not isinstance(pool.headroom, TunedHeadroom):
        return ""
    return f" {describe_headroom(pool.headroom, pool.settings.gpus_per_replica)}"


def _is_shared(facts: Facts, group: ServingGroup) -> bool | None:
    """Whether another owner uses one of the group's GPUs; None if that is not known of all."""
    counts = [len({each.identity for each in facts.owners.get(uuid, ())}) for uuid in group.gpus]
    if any(count > 1 for count in counts):
        return True
    return False if counts and all(count == 1 for count in counts) else None


def _recommendation(
    facts: Facts, settings: Settings, served: ServedPool, diagnosis: GroupDiagnosis, cause: ServingCause, advice: Advice
) -> Recommendation | None:
    recommended = advice.recommended
    if advice.unit == "replicas":
        if served.configured:
            limits = scaling_limits(settings, served.pool)
            recommended = min(max(recommended, limits.min), limits.max)
        if recommended == advice.current:
            return None
    direction: Literal["up", "down", "change"] = "change"
    if advice.unit == "replicas":
        direction = "up" if recommended > advice.current else "down"
    group = diagnosis.group
    return Recommendation(
        kind=cause.kind,
        direction=direction,
        scope=served.scope,
        severity=advice.severity,
        summary=advice.summary,
        current=advice.current,
        recommended=recommended,
        unit=advice.unit,
        diagnosis=cause.name,
        explanation=" ".join(filter(None, (cause.explanation, advice.note))),
        confidence=advice.confidence,
        projection=advice.projection,
        evidence=tuple(_evidence(facts, diagnosis, advice.signals)),
        rejected=(*advice.rejected, *near_misses(diagnosis)),
        actions=advice.actions,
        gpus=group.gpus,
        nodes=tuple(sorted({each.node for each in group.replicas if each.node})),
    )


def _evidence(facts: Facts, diagnosis: GroupDiagnosis, signals: Sequence[str]) -> Iterator[Evidence]:
    """Signals of the replica that is pressed most, as queries that give the same numbers. A number that is a label has
    none.
    """
    replica = diagnosis.pressed.replica
    serving = facts.serving
    labels = {"job": replica.job, "instance": replica.instance, **dict(replica.series_labels)}
    if facts.cluster_label and replica.cluster:
        labels[facts.cluster_label] = replica.cluster
    instance = labels.pop("instance")
    matchers = tuple(Matcher(label, "=", value) for label, value in labels.items())
    thresholds = {"ttft_p95": diagnosis.objectives.ttft, "itl_p95": diagnosis.objectives.itl,
                  "itl_mean": diagnosis.objectives.itl}  # fmt: skip
    for name in signals:
        value, signal = replica.value(name), BY_NAME[name]
        expression = serving.expressions.get(replica.server, {}).get(name)
        if value is None or expression is None:
            continue
        yield Evidence(
            signal=f"serving_{name}",
            about=f"{signal.about}, {replica.label}",
            unit=signal.unit,
            statistic=signal.reduction,
            window_seconds=None if signal.reduction == "last" else serving.window_seconds,
            value=value,
            at=facts.at,
            expression=expression,
            threshold=thresholds.get(name),
            samples=None if (found := replica.value("samples")) is None else int(found),
            things=LabelSelection("instance", (instance,), False, matchers),
            language=facts.language,
        )
