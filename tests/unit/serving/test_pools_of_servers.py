"""Pools with latency objectives and without selectors have the GPUs of inference servers, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.serving.facts import ServingFacts, ServingReplica
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION
from gpu_advisor.observation.activity import idle_candidates
from gpu_advisor.settings import EvaluationSettings, Settings

from tests.unit.serving.test_advice import AT, CALM

SLO = {"ttft_p95": "500ms", "itl_p95": "50ms"}
ALL = frozenset({"chat-0", "chat-1", "code-0", "training-0"})


def gpu(uuid: str) -> Gpu:
    return Gpu(uuid, "0", "NVIDIA H100", "nvidia", uuid.split("-", maxsplit=1)[0], True)


def facts(serving: bool = True) -> Facts:
    """Two replicas of one model, one of another, and a GPU that trains."""
    models = {"chat-0": "chat", "chat-1": "chat", "code-0": "code"}
    replicas = tuple(
        ServingReplica("vllm", "j", f"{uuid}:8000", model, namespace="ns", pod=uuid, values=CALM, gpus=(uuid,))
        for uuid, model in models.items()
    )
    gpus = tuple(gpu(uuid) for uuid in sorted(ALL))
    return Facts(AT, gpus, (), {}, {}, EvaluationSettings(), serving=ServingFacts(replicas if serving else ()))


def settings(*pools: dict[str, Any]) -> Settings:
    return Settings.model_validate({"pools": [{"kind": "serving", **pool} for pool in pools]})


def members(found: Evaluation) -> dict[str, set[str]]:
    return {state.pool.settings.name: set(state.pool.uuids) for state in found.pools}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ([{"name": "chat", "slo": SLO}], {"chat": {"chat-0", "chat-1"}}),
        ([{"name": "ns/chat", "slo": SLO}], {"ns/chat": {"chat-0", "chat-1"}}),
        ([{"name": "inference", "slo": SLO}], {"inference": {"chat-0", "chat-1", "code-0"}}),
        (
            [{"name": "inference", "slo": SLO}, {"name": "code", "slo": SLO}],
            {"inference": {"chat-0", "chat-1"}, "code": {"code-0"}},
        ),
        (  # the first match wins, selectors or servers
            [{"name": "node", "match": {"node": "chat"}}, {"name": "chat", "slo": SLO}, {"name": "code", "slo": SLO}],
            {"node": {"chat-0", "chat-1"}, "chat": set(), "code": {"code-0"}},
        ),
        (
            [{"name": "chat", "slo": SLO}, {"name": "rest"}],
            {"chat": {"chat-0", "chat-1"}, "rest": {"code-0", "training-0"}},
        ),
        ([{"name": "all", "slo": {"unserved": "0.2%"}}], {"all": set(ALL)}),
        ([{"name": "some", "match": {"node": "t.*"}, "slo": SLO}], {"some": {"training-0"}}),
    ],
)
def test_which_gpus_a_pool_has(pools: list[dict[str, Any]], expected: dict[str, set[str]]) -> None:
    found = members(decide(facts(), settings(*pools)))
    assert {name: found[name] for name in expected} == expected
    assert sorted(uuid for uuids in found.values() for uuid in uuids) == sorted(ALL)


def test_objectives_hold_for_the_servers_of_the_pool_only() -> None:
    served = decide(facts(), settings({"name": "code", "slo": SLO})).served
    assert {one.group.model: one.objectives.ttft for one in served} == {"chat": None, "code": 0.5}


def test_a_server_whose_gpus_are_unknown_has_the_objectives_of_its_pool() -> None:
    given = facts()
    unknown = tuple(replace(each, gpus=()) for each in given.serving.replicas)
    given = replace(given, serving=replace(given.serving, replicas=unknown))
    served = decide(given, settings({"name": "inference", "slo": SLO})).served
    assert {one.pool.settings.name for one in served} == {"inference"}
    assert {one.objectives.itl for one in served} == {0.05}


def test_without_servers_the_pool_is_empty_and_the_checklist_says_why() -> None:
    found = decide(facts(serving=False), settings({"name": "chat", "slo": SLO}))
    assert members(found)["chat"] == set()
    assert any("scrape its inference servers" in each.message for each in found.checks)


def test_idle_gpus_beside_the_servers_may_be_released() -> None:
    """No GPU of a serving pool is a candidate: a pool of one model's servers must not have the whole fleet."""
    values = {IDLE_UTILIZATION.name: dict.fromkeys(ALL, 0.0), IDLE_COVERAGE.name: dict.fromkeys(ALL, 1.0)}
    given = replace(facts(), values=values)
    assert set(idle_candidates(given, settings({"name": "chat", "slo": SLO}))) == {"code-0", "training-0"}
    assert set(idle_candidates(given, settings({"name": "all"}))) == set()
