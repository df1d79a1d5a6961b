"""Pools that are not many small replicas of one model: the number of replicas asked for, and what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.serving.facts import DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.settings import Settings

from tests.unit.serving.test_situations_of_scaling import AT, SLO, WORK, curve, history, replicas

LLAMA, CANARY = GroupKey("vllm", "llama"), GroupKey("vllm", "canary")


def prefill(count: int) -> list[ServingReplica]:
    """They are asked for one token of each answer."""
    return [
        replace(each, values={**each.values, "output_tokens": 1.0, "generation_token_rate": 3.0})
        for each in replicas(count, WORK, first=20)
    ]


@dataclass(frozen=True)
class Case:
    """`wanted` are replicas by pool; `says` is a part of a message."""

    name: str
    members: Sequence[ServingReplica]
    demand: Mapping[GroupKey, tuple[DemandSample, ...]]
    wanted: Mapping[str, int]
    pool: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""


def of_llama(loads: Sequence[float], size: int) -> dict[GroupKey, tuple[DemandSample, ...]]:
    return {LLAMA: history([WORK * load for load in loads], [size])}


OF_FOUR = {"gpus_per_replica": 4, "gpu": {"min": 4, "max": 64}}
TWO_MODELS = {**of_llama([5.0], 6), CANARY: history([0.5 * WORK], [1])}
WITH_CANARY = [*replicas(6, 5 * WORK), *replicas(1, 0.5 * WORK, model="canary", first=30)]

CASES = (
    Case("scaled to zero", [], of_llama([3.0, 0.0], 0), {}),
    Case("one idle replica stays", replicas(1, 0.0), of_llama([0.0], 1), {"llama": 1}),
    Case("one busy replica is enough", replicas(1, 0.5 * WORK), of_llama([0.5], 1), {"llama": 1}),
    Case("one full replica is not", replicas(1, 0.99 * WORK), of_llama([0.99], 1), {"llama": 2}),
    Case("replicas of four GPUs", replicas(4, 3.9 * WORK), of_llama([3.9], 4), {"llama": 4}, OF_FOUR),
    Case("18 GPUs are four of these", replicas(4, 3.9 * WORK), of_llama([6.0], 4), {},
         {"gpus_per_replica": 4, "gpu": {"min": 4, "max": 18}}, "more than the maximum of 4"),
    Case("not below the minimum", replicas(6, WORK), of_llama([0.5], 6), {"llama": 5}, {"gpu": {"min": 5, "max": 40}}),
    Case("up to the minimum", replicas(2, WORK), of_llama([1.0], 2), {"llama": 5}, {"gpu": {"min": 5, "max": 40}}),
    Case("disaggregated", [*replicas(4, 3 * WORK), *prefill(2)], of_llama([3.0], 4), {}, {},
         "is one part of disaggregated serving"),
    Case("a canary with a pool of its own", WITH_CANARY, TWO_MODELS, {"llama": 6}, {}, "add a pool canary"),
    Case("a canary in the same pool", WITH_CANARY, TWO_MODELS, {}, {"name": "chat"}, "canary (1), llama (6)"),
)  # fmt: skip


def evaluated(case: Case) -> Evaluation:
    pool = {"name": "llama", "kind": "serving", "slo": SLO, "start_delay_seconds": 180, "gpu": {"min": 1, "max": 40}}
    settings = Settings.model_validate({"pools": [{**pool, **case.pool}]})
    histories = {key: curve() for key in case.demand}
    serving = ServingFacts(tuple(sorted(case.members)), histories=histories, demand=case.demand)
    return decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_number_and_message(case: Case) -> None:
    found = evaluated(case)
    assert dict(found.desired_replicas) == case.wanted
    texts = [each.message for each in found.abstentions] + [each.explanation for each in found.recommendations]
    assert any(case.says in text for text in texts)


@pytest.mark.parametrize("minutes_later", [0, 3, 6, 9])
def test_replicas_that_start_for_ten_minutes_stay_requested(minutes_later: int) -> None:
    """The rush that asked for them is over; taking them back would start them again with the next."""
    rush = [4.0] * 20 + [9.0] * 3
    case = Case(
        "", replicas(5, 4 * WORK), of_llama([*rush, *[4.0] * minutes_later], 5), {}, {"start_delay_seconds": 600}
    )
    first = replace(case, demand=of_llama(rush, 5))
    assert dict(evaluated(case).desired_replicas)["llama"] >= dict(evaluated(first).desired_replicas)["llama"] >= 9
