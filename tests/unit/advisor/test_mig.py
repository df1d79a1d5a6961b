"""Boards in MIG mode: their slices are what is used, the boards are what fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies.idle_reclaim import releasable_shares
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.recommendation import CheckStatus
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION
from gpu_advisor.observation.activity import idle_candidates
from gpu_advisor.settings import Settings

from tests.unit.advisor.builders import GpuSpec, facts, lost

SETTINGS = Settings.model_validate({"pools": [{"name": "p", "kind": "serving"}]})


def partitioned(boards: int, slices: int, utilization: float = 0.75) -> Facts:
    """Boards of a node, each with its slices, which alone have a utilization."""
    cards = [GpuSpec(f"board-{n}", None, None, memory=None, index=str(n)) for n in range(boards)]
    parents = {f"slice-{n}-{m}": f"board-{n}" for n in range(boards) for m in range(slices)}
    cards += [GpuSpec(uuid, utilization) for uuid in parents]
    found = facts(cards, SETTINGS)
    gpus = [
        replace(gpu, parent=parents[gpu.uuid], mig_profile="1g.10gb") if gpu.uuid in parents else gpu
        for gpu in found.gpus
    ]
    return replace(found, gpus=tuple(gpus))


def decided(known: Facts) -> Evaluation:
    return decide(known, SETTINGS)


@pytest.mark.parametrize("slices", [1, 2, 3, 7])
@pytest.mark.parametrize("boards", [1, 2, 8])
def test_slices_are_judged_and_sized_without_their_boards(boards: int, slices: int) -> None:
    found = decided(partitioned(boards, slices))
    of_groups = {check.status for check in found.checks if check.scope.kind in ("fleet", "pool", "node")
                 and check.item == "gpu_utilization"}  # fmt: skip
    assert of_groups == {CheckStatus.MET}
    assert found.pools[0].usage.capacity == boards * slices
    assert not [each for each in found.abstentions if "MIG mode" in each.message]


@pytest.mark.parametrize("order", [1, -1])
def test_a_board_is_in_the_pool_of_its_slices_in_any_order(order: int) -> None:
    known = partitioned(2, 3)
    [pool] = assign_pools(known.gpus[::order], SETTINGS.pools)
    assert {gpu.uuid for gpu in pool.boards} == {"board-0", "board-1"}
    assert len(pool.gpus) == 6
    assert set(pool.devices) == set(known.gpus)


def test_a_board_without_slices_is_a_gpu() -> None:
    [pool] = assign_pools(partitioned(2, 0).gpus, SETTINGS.pools)
    assert (len(pool.gpus), pool.boards) == (2, ())


def test_a_lost_board_is_reported() -> None:
    known = partitioned(2, 3)
    gpus = tuple(replace(gpu, up=False) if gpu.uuid == "board-1" else gpu for gpu in known.gpus)
    known = lost(replace(known, gpus=gpus, down_reasons={"board-1": "lost"}), ["board-1"])
    assert [each.gpus for each in decided(known).recommendations if each.kind == "lost_gpu"] == [("board-1",)]


@pytest.mark.parametrize(("busy", "surely"), [((), 6), (("slice-1-2",), 0)])
def test_a_node_of_idle_slices_is_saved_as_a_whole(busy: tuple[str, ...], surely: int) -> None:
    known = partitioned(2, 3)
    idle = [gpu for gpu in known.gpus if gpu.parent and gpu.uuid not in busy]
    shares = list(releasable_shares(known, idle, len(idle)))
    assert sum(len(each.gpus) * each.low for each in shares) == surely


@pytest.mark.parametrize("slices", [0, 3])
def test_an_idle_board_with_slices_is_no_idle_gpu_but_an_idle_slice_is_one(slices: int) -> None:
    known = partitioned(1, slices)
    idle = {"board-0", "slice-0-1"} if slices else {"board-0"}
    utilization = {gpu.uuid: 0.0 if gpu.uuid in idle else 0.9 for gpu in known.gpus}
    coverage = dict.fromkeys(utilization, 1.0)
    values = {**known.values, IDLE_UTILIZATION.name: utilization, IDLE_COVERAGE.name: coverage}
    assert idle_candidates(replace(known, values=values), Settings()) == (("slice-0-1",) if slices else ("board-0",))


def test_facts_that_replace_others_find_their_own_gpus() -> None:
    known = partitioned(1, 2)
    kept, fewer = replace(known, simulated=True), replace(known, gpus=known.gpus[:1])
    assert kept.index is known.index
    assert fewer.gpus_of_node(known.gpus[0].node) == known.gpus[:1]
