"""Replicas that serve one model together, what their users expect, and their curve. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model

#: Roles in disaggregated serving, as SGLang names them (engine_type):
#: https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/metrics/collector.py
PREFILL, DECODE = "prefill", "decode"

#: Tokens of an answer below which a server computes prompts for others: one, and what a few other requests add.
MOST_PREFILL_OUTPUT = 1.5


@dataclass(frozen=True, slots=True)
class Objectives:
    """Latency objectives (seconds); None: none stated."""

    ttft: float | None = None
    itl: float | None = None


@dataclass(frozen=True, slots=True)
class ServingGroup:
    """Replicas of one server and model in one namespace and cluster. `at` and `window_seconds` are the evaluation's.

    `prefills`: they compute prompts for others that generate the answers. `disaggregated`: one or the other of these.
    """

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
    prefills: bool = False
    disaggregated: bool = False

    @property
    def name(self) -> str:
        """Never changes with its replicas."""
        model = self.model or self.replicas[0].job
        parts = (self.cluster, self.namespace, f"{model} (prefill)" if self.prefills else model)
        return "/".join(part for part in parts if part)

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
    """All groups, with their histories."""
    members: dict[GroupKey, list[ServingReplica]] = {}
    for each in serving.replicas:
        members.setdefault(each.group, []).append(each)
    found = []
    for key, replicas in sorted(members.items()):
        prefills = [each for each in replicas if _computes_prompts_only(each)]
        if prefills and any(_generates(each) for each in replicas if each not in prefills):
            # The history's means over both kinds of replicas are of neither.
            generate = [each for each in replicas if each not in prefills]
            found += [
                replace(make_group(part, (), at, serving.window_seconds), prefills=part is prefills, disaggregated=True)
                for part in (generate, prefills)
            ]
            continue
        group = make_group(replicas, serving.histories.get(key, ()), at, serving.window_seconds)
        found.append(replace(group, demand=serving.demand.get(key, ())))
    return tuple(found)


def _generates(replica: ServingReplica) -> bool:
    return replica.role == DECODE or replica.value("output_tokens") is not None


def _computes_prompts_only(replica: ServingReplica) -> bool:
    """A router of disaggregated serving asks it for a single token of each answer; another server generates the rest.
    Source: https://docs.vllm.ai/en/latest/features/disagg_prefill.html. SGLang names the role.
    """
    if replica.role in (PREFILL, DECODE):
        return replica.role == PREFILL
    outputs = [values.get("output_tokens") for values in (replica.values, replica.before)]
    output = next((each for each in outputs if each is not None), None)
    return output is not None and output < MOST_PREFILL_OUTPUT
