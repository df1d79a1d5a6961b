"""Lost GPUs: what counts as one, the advice, and what they do to the sizing of their pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.lost import HARDWARE_REASONS
from gpu_advisor.evaluation.signals import GPU_UP_COVERAGE, GPU_UP_HIGHEST
from gpu_advisor.settings import Settings

from tests.unit.advisor.builders import GpuSpec, facts, with_values

POOL = {"name": "p", "kind": "training", "gpu": {"min": 6, "max": 8}}


def fleet(
    up: int, lost: int, nodes: Sequence[str] = (), reason: str = "lost", highest: float = 0.0, coverage: float = 1.0
) -> Facts:
    """GPUs that are idle, then lost ones, on these nodes or all on one."""
    count = up + lost
    where = list(nodes) or ["node-a"] * count
    cards = [
        GpuSpec(
            f"g{n}", 0.0 if n < up else None, 1.0 if n < up else None, memory=0.5 if n < up else None, up=n < up,
            node=where[n], index=str(n),
        )
        for n in range(count)
    ]  # fmt: skip
    found = facts(cards, Settings.model_validate({"pools": [POOL]}), down_reasons={
        card.uuid: reason for card in cards if not card.up
    })  # fmt: skip
    return with_values(found, {
        GPU_UP_HIGHEST: {card.uuid: 1.0 if card.up else highest for card in cards},
        GPU_UP_COVERAGE: {card.uuid: coverage for card in cards},
    })  # fmt: skip


def decided(known: Facts) -> Evaluation:
    return decide(known, Settings.model_validate({"pools": [POOL]}))


def lost_advice(evaluation: Evaluation) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(r.scope.kind, r.scope.name, r.gpus) for r in evaluation.recommendations if r.kind == "lost_gpu"]


@pytest.mark.parametrize(
    ("reason", "highest", "coverage", "lost"),
    [
        *((reason, 0.0, 1.0, True) for reason in HARDWARE_REASONS),
        *((reason, 0.0, 1.0, False) for reason in ("driver_gone", "released", "no_permission", "error", "anything")),
        ("lost", 1.0, 1.0, False),  # up within the last five minutes
        ("lost", 0.0, 0.5, False),  # down since the exporter began to report, a moment ago
    ],
)
def test_lost_is_down_for_a_window_for_a_hardware_reason(
    reason: str, highest: float, coverage: float, lost: bool
) -> None:
    found = decided(fleet(7, 1, reason=reason, highest=highest, coverage=coverage))
    assert lost_advice(found) == ([("gpu", "g7", ("g7",))] if lost else [])


def test_advice_is_first_critical_and_complete() -> None:
    [first, *_] = decided(fleet(7, 1)).recommendations
    assert (first.kind, first.severity, first.current, first.recommended) == ("lost_gpu", "critical", 1, 0)
    text = " ".join(first.apply)
    assert "kubectl cordon node-a" in text
    assert "g7" in text


def test_commands_name_a_node_as_its_own_cluster_does() -> None:
    known = fleet(7, 1, ["east/node-a"] * 8)
    known = replace(known, gpus=tuple(replace(gpu, cluster="east") for gpu in known.gpus))
    [first, *_] = decided(known).recommendations
    assert first.nodes == ("east/node-a",)
    commands = [line.partition("  #")[0] for line in first.apply]
    assert "kubectl cordon node-a" in commands
    assert "scontrol update nodename=node-a state=drain 'reason=gpu lost'" in commands


def test_all_gpus_of_a_node_are_one_fault_of_the_node() -> None:
    found = decided(fleet(4, 4, ["a"] * 4 + ["b"] * 4))
    assert lost_advice(found) == [("node", "b", ("g4", "g5", "g6", "g7"))]


def test_a_faulty_node_in_two_pools_is_one_recommendation() -> None:
    known = fleet(4, 4, ["a"] * 4 + ["b"] * 4)
    known = replace(known, gpus=tuple(replace(gpu, name="T4" if gpu.uuid in "g4 g5" else "L4") for gpu in known.gpus))
    found = decide(known, Settings())
    assert len(found.pools) == 2
    assert lost_advice(found) == [("node", "b", ("g4", "g5", "g6", "g7"))]


def test_a_node_with_one_gpu_is_no_fault_of_the_node() -> None:
    assert lost_advice(decided(fleet(1, 1, ["a", "b"]))) == [("gpu", "g1", ("g1",))]


@pytest.mark.parametrize(("up", "lost", "kept"), [(8, 0, 6), (7, 1, 6), (6, 2, None), (5, 3, None), (7, 0, 6)])
def test_the_minimum_is_of_gpus_that_work(up: int, lost: int, kept: int | None) -> None:
    """Of eight with two lost, six work, which is the minimum: none of the idle ones is released."""
    evaluation = decided(fleet(up, lost))
    released = [each for each in evaluation.recommendations if each.kind == "idle_reclaim"]
    assert [(each.current, each.recommended) for each in released] == ([] if kept is None else [(up, kept)])
    [state] = evaluation.pools
    assert state.usage.capacity == up


def test_lost_gpus_do_not_stop_the_sizing_of_a_serving_pool() -> None:
    known = fleet(7, 1)
    settings = Settings.model_validate({"pools": [{**POOL, "kind": "serving", "gpu": {"min": 1, "max": 16}}]})
    sized = decide(known, settings)
    assert not [each for each in sized.abstentions if "stopped reporting" in each.message or "is down" in each.message]
    unknown = decide(fleet(7, 1, reason="driver_gone"), settings)
    assert [each for each in unknown.abstentions if each.subject == "scale"]
