"""Whether GPUs train or serve: from jobs, servers and owners; what is set wins, and what conflicts is not decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import Controller, GpuOwner
from gpu_advisor.evaluation.serving.facts import ServingFacts, ServingReplica
from gpu_advisor.evaluation.workload_kind import CONTROLLER_KINDS, infer_kinds
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts

TRAINER = GpuOwner(job="llm", kind="process")
SERVER = GpuOwner(namespace="ml", pod="chat-6c9d8b7f5d-x7k2p", kind="kubernetes")
NOTEBOOK = GpuOwner(namespace="ml", pod="jupyter-ada-0", controller=Controller("StatefulSet", "jupyter-ada"))


def fleet(owners: Mapping[int, GpuOwner | None], **more: Any) -> Facts:
    found = facts([GpuSpec(f"GPU-{number}", index=str(number)) for number in owners], **more)
    known = {f"GPU-{number}": (owner,) for number, owner in owners.items() if owner is not None}
    return dataclasses.replace(found, owners=known)


def kind_of(owner: GpuOwner) -> tuple[str, tuple[str, ...]]:
    found = fleet({0: owner})
    inferred = infer_kinds(found, found.gpus).pool
    return inferred.kind, inferred.evidence


@pytest.mark.parametrize(
    ("owner", "kind", "evidence"),
    [
        (TRAINER, "training", "the owner is a training job"),
        (SERVER, "serving", "pods of a Deployment, by their names"),
        (GpuOwner(pod="bert-worker-3"), "training", "pods of a training operator, by their names"),
        (GpuOwner(unit="ollama.service"), "serving", "the owner is named after an inference server (ollama)"),
        (GpuOwner(container="vllm-0"), "serving", "the owner is named after an inference server (vllm)"),
        (dataclasses.replace(SERVER, controller=Controller("Job", "x")), "training", "pods of a Job"),
        (NOTEBOOK, "undecided", ""),
        (GpuOwner(pod="a-deployment-like-name"), "undecided", ""),  # vowels are not in random parts
        (GpuOwner(unit="strategist.service"), "undecided", ""),  # not TGI
        (GpuOwner(user="ada"), "undecided", ""),
        (dataclasses.replace(SERVER, job="llm"), "undecided", "pods of a Deployment"),  # a job in a Deployment
    ],
)
def test_an_owner_shows_what_a_gpu_is_for(owner: GpuOwner, kind: str, evidence: str) -> None:
    found, why = kind_of(owner)
    assert found == kind
    assert bool(why) == bool(evidence)
    assert evidence in " ".join(why)


@pytest.mark.parametrize("controller", CONTROLLER_KINDS)
def test_controllers_of_known_kinds(controller: str) -> None:
    owner = GpuOwner(namespace="ml", pod="p", controller=Controller(controller, "c"))
    assert kind_of(owner) == (CONTROLLER_KINDS[controller], (f"1 of 1 GPUs: pods of a {controller}",))


def test_a_reporting_job_trains_and_a_server_with_metrics_serves() -> None:
    found = fleet({0: None, 1: None})
    steps = {signals.JOB_STEP_TIME.name: {"GPU-0": 0.9}}
    replica = ServingReplica("vllm-underscored", "vllm", "node-a:8000", gpus=("GPU-1",))
    serving = ServingFacts((replica,), titles={"vllm-underscored": "vLLM"})
    both = dataclasses.replace(found, values={**found.values, **steps}, serving=serving)
    inferred = infer_kinds(both, both.gpus)
    assert [inferred.kind_of(gpu) for gpu in both.gpus] == ["training", "serving"]
    assert inferred.pool.kind == "undecided"  # the pool is of both
    assert inferred.gpus["GPU-1"].evidence == ("metrics of an inference server (vLLM)",)


@given(st.lists(st.sampled_from([TRAINER, SERVER, NOTEBOOK, None]), min_size=1, max_size=8))
def test_a_pool_is_of_a_kind_if_enough_is_known_and_nothing_else(owners: list[GpuOwner | None]) -> None:
    found = fleet(dict(enumerate(owners)))
    inferred = infer_kinds(found, found.gpus)
    known: dict[GpuOwner | None, str] = {TRAINER: "training", SERVER: "serving"}
    kinds = [known[owner] for owner in owners if owner in known]
    used = [owner for owner in owners if owner is not None]
    expected = kinds[0] if len(set(kinds)) == 1 and 2 * len(kinds) >= len(used) else "undecided"
    assert inferred.pool.kind == expected
    for gpu, owner in zip(found.gpus, owners, strict=True):
        assert inferred.kind_of(gpu) == known.get(owner, expected)


def decided(kind: str) -> Evaluation:
    settings = Settings.model_validate({"pools": [{"name": "p", "kind": kind}]})
    return decide(fleet({0: SERVER, 1: SERVER}), settings)


def test_what_is_set_wins_and_only_that_drives_an_autoscaler() -> None:
    assert [decided(kind).pools[0].pool.kind_of(decided(kind).facts.gpus[0]) for kind in ("training", "serving")] == [
        "training", "serving",
    ]  # fmt: skip
    inferred = decided("undecided")
    (state,) = inferred.pools
    assert {state.pool.kind_of(gpu) for gpu in state.pool.gpus} == {"serving"}
    assert state.pool.settings.kind == "undecided"
    assert inferred.desired_replicas == ()
    (asked,) = (each for each in inferred.abstentions if each.subject == "scale")
    assert asked.input == "pool_kind"
    assert "2 of 2 GPUs: pods of a Deployment, by their names" in asked.message
    assert not any(each.input == "pool_kind" and each.subject == "diagnosis" for each in inferred.abstentions)
