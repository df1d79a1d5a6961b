"""Replicas that serve one model together, what their users expect, and their curve. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model


@dataclass(frozen=True, slots=True)
class Objectives:
    """Latency objectives (seconds); None: none stated."""

    ttft: float | None = None
    itl: float | None = None


@dataclass(frozen=True, slots=True)
class ServingGroup:
    """Replicas of one server and model in one namespace and cluster. `at` and `window_seconds` are the evaluation's;
    `demand` is empty where several groups have the same server and model."""

    server: str
    model: str
    cluster: str
    namespace: str
    replicas: tuple[ServingReplica, ...]
    points: tuple[CurvePoint, ...]
    curve: StepModel | None
    at: float
    window_seconds: float
    demand: tuple[DemandSample, ...] = ()

    @property
    def name(self) -> str:
        """Never changes with its replicas."""
        return "/".join(part for part in (self.cluster, self.namespace, self.model or self.replicas[0].job) if part)

    def before(self) -> ServingGroup | None:
        """The same in the window before; None if nobody reported then."""
        replicas = tuple(replace(each, values=each.before, before={}) for each in self.replicas if each.before)
        at = self.at - self.window_seconds
        return replace(self, replicas=replicas, at=at) if replicas else None

    @property
    def gpus(self) -> tuple[str, ...]:
        """Uuids of the GPUs known to serve it."""
        return tuple(sorted({uuid for each in self.replicas for uuid in each.gpus}))


def make_group(
    replicas: Sequence[ServingReplica], points: Sequence[CurvePoint], at: float, window: float
) -> ServingGroup:
    first = replicas[0]
    return ServingGroup(
        first.server, first.model, first.cluster, first.namespace, tuple(replicas), tuple(points),
        fit_step_model(points), at, window,
    )  # fmt: skip


def serving_groups(serving: ServingFacts, at: float) -> tuple[ServingGroup, ...]:
    """All groups; a group's history is that of its server and model."""
    members: dict[tuple[str, ...], list[ServingReplica]] = {}
    for each in serving.replicas:
        # Without a model's name, the job is what belongs together.
        members.setdefault((each.server, each.cluster, each.namespace, each.model or each.job), []).append(each)
    found = []
    for _, replicas in sorted(members.items()):
        key = replicas[0].server, replicas[0].model
        group = make_group(replicas, serving.histories.get(key, ()), at, serving.window_seconds)
        same = sum(1 for other in members.values() if (other[0].server, other[0].model) == key)
        found.append(replace(group, demand=serving.demand.get(key, ()) if same == 1 else ()))
    return tuple(found)
