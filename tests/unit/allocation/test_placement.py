"""Placement against an exhaustive search, written independently."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from gpu_advisor.allocation.errors import InsufficientCapacityError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.model import Inventory, InventoryGpu, InventoryNode
from gpu_advisor.allocation.placement import Placement, place
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.allocation.builders import AT, inventory, node

KINDS = (("A100", 80.0, "nvidia"), ("A100", 40.0, "nvidia"), ("T4", 16.0, "nvidia"), ("MI300X", None, "amd"))


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Inventory, frozenset[str]]:
    """Few nodes with few GPUs of mixed kinds, some in use, some leased."""
    nodes, held = [], set()
    for n in range(draw(st.integers(1, 4))):
        gpus = []
        for i in range(draw(st.integers(0, 4))):
            kind, memory, vendor = draw(st.sampled_from(KINDS))
            free = draw(st.sampled_from((True, True, True, False)))
            gpus.append(
                InventoryGpu(
                    i, f"{n}/{i}", kind, memory, vendor, free=free, unavailable_reason="" if free else "used by x"
                )
            )
            if draw(st.sampled_from((False, False, True))):
                held.add(f"{n}/{i}")
        nodes.append(InventoryNode(f"n{n}", tuple(gpus)))
    return Inventory(tuple(nodes), AT), frozenset(held)


REQUESTS = st.builds(
    GpuRequest,
    gpu_count=st.integers(1, 6),
    gpu_type=st.sampled_from(("", "A100", "T4")),
    memory_gb=st.sampled_from((None, 16.0, 40.0, 60.0)),
    distributed_training=st.booleans(),
    vendor=st.sampled_from(("", "", "nvidia")),
)


def possible(request: GpuRequest, fleet: Inventory, held: frozenset[str], all_free: bool) -> set[tuple[int, ...]]:
    """GPUs by node of every set that would serve: found by trying all sets, without the code that is tested."""
    fitting = [
        (node.name, gpu)
        for node in fleet.nodes
        for gpu in node.gpus
        if (all_free or (gpu.free and gpu.uuid not in held))
        and request.gpu_type in ("", gpu.gpu_type)
        and request.vendor in ("", gpu.vendor)
        and (request.memory_gb is None or (gpu.memory_gb is not None and gpu.memory_gb >= request.memory_gb))
    ]
    found = set()
    for chosen in combinations(fitting, request.gpu_count):
        spread = Counter(name for name, _ in chosen)
        one_kind = len({(gpu.gpu_type, gpu.memory_gb, gpu.vendor) for _, gpu in chosen}) == 1
        if one_kind and len(set(spread.values())) == 1 and (request.distributed_training or len(spread) == 1):
            found.add(tuple(spread.values()))
    return found


@given(fleets(), REQUESTS)
def test_as_an_exhaustive_search(fleet: tuple[Inventory, frozenset[str]], request_: GpuRequest) -> None:
    machines, held = fleet
    now = possible(request_, machines, held, all_free=False)
    if now:
        placement = place(request_, machines, held)
        assert tuple(len(share.uuids) for share in placement.shares) in now
        assert len(placement.shares) == min(map(len, now)), "as few nodes as can be"
        _is_valid(request_, machines, held, placement)
    elif possible(request_, machines, held, all_free=True):
        with pytest.raises(InsufficientCapacityError) as busy:
            place(request_, machines, held)
        assert len(busy.value.reasons) == len(machines.nodes)
    else:
        with pytest.raises(UnsatisfiableRequestError) as never:
            place(request_, machines, held)
        assert never.value.field in ("gpu_count", "gpu_type", "memory_gb")


def _is_valid(request: GpuRequest, machines: Inventory, held: frozenset[str], placement: Placement) -> None:
    known = {(node.name, gpu.uuid): gpu for node in machines.nodes for gpu in node.gpus}
    gpus = [known[share.node_name, uuid] for share in placement.shares for uuid in share.uuids]
    assert len({gpu.uuid for gpu in gpus}) == request.gpu_count
    assert all(gpu.free and gpu.uuid not in held for gpu in gpus)
    assert {(gpu.gpu_type, gpu.memory_gb) for gpu in gpus} == {(placement.gpu_type, placement.memory_per_gpu)}
    assert placement.reasons


def test_the_smallest_card_that_does_then_the_fullest_node() -> None:
    fleet = inventory(node("large", "A100", 80, 8), node("wide", "T4", 16, 8), node("tight", "T4", 16, 8, busy=5))
    assert place(GpuRequest(2), fleet, ()).shares[0].node_name == "tight"
    assert place(GpuRequest(4), fleet, ()).shares[0].node_name == "wide"
    assert place(GpuRequest(2, memory_gb=20), fleet, ()).shares[0].node_name == "large"


def test_an_unknown_size_comes_last_and_serves_no_request_for_a_size() -> None:
    fleet = inventory(node("unknown", "X", None, 2), node("large", "A100", 80, 2))
    assert place(GpuRequest(2), fleet, ()).shares[0].node_name == "large"
    with pytest.raises(UnsatisfiableRequestError):
        place(GpuRequest(1, "X", memory_gb=1), fleet, ())


def test_reasons_name_what_each_node_failed_on() -> None:
    fleet = inventory(node("busy", "A100", 80, 4, busy=1), node("other", "T4", 16, 2))
    with pytest.raises(InsufficientCapacityError) as refused:
        place(GpuRequest(4, "A100"), fleet, {"busy/2"})
    assert refused.value.reasons == (
        "busy: 2 of 4 are free and match, 1 leased, 1 used by x",
        "other: 0 of 2 are free and match, 2 T4",
    )


def test_very_many_nodes_are_reported_in_few_lines() -> None:
    fleet = inventory(*(node(f"n{i}", "T4", 16, 1, busy=1) for i in range(500)))
    with pytest.raises(InsufficientCapacityError) as refused:
        place(GpuRequest(1), fleet, ())
    assert refused.value.reasons[-1] == "and 480 other nodes"


@pytest.mark.parametrize(
    ("nodes", "chosen", "other"),
    [
        # The next best must have enough, and is named with what it would have left.
        ([("a", "T4", 16, 2), ("b", "T4", 16, 1)], "a", None),
        ([("a", "T4", 16, 2), ("b", "T4", 16, 4), ("c", "T4", 16, 3)], "a", ("c", "1 left")),
        ([("a", "T4", 16, 3), ("b", "A100", 80, 2)], "a", ("b", "larger")),
        ([("a", "T4", 16, 2)], "a", None),
    ],
)
def test_the_next_best_is_named_where_there_is_one(
    nodes: list[tuple[str, str, float, int]], chosen: str, other: tuple[str, str] | None
) -> None:
    found = place(GpuRequest(2), inventory(*(node(*each) for each in nodes)), ())
    assert found.shares[0].node_name == chosen
    assert found.reasons[0].startswith(f"{chosen}: 2 of {nodes[0][3]} ")
    assert len(found.reasons) == 1 + (other is not None)
    if other:
        assert all(word in found.reasons[1] for word in other)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 7])
def test_several_nodes_are_as_few_as_possible_and_get_the_same_number(count: int) -> None:
    fleet = inventory(*(node(name, "T4", 16, size) for name, size in (("a", 1), ("b", 2), ("c", 3), ("d", 3))))
    request = GpuRequest(count, distributed_training=True)
    expected = {2: [2], 3: [3], 4: [2, 2], 6: [3, 3]}.get(count)
    if expected is None:
        with pytest.raises(UnsatisfiableRequestError):
            place(request, fleet, ())
        return
    assert [len(share.indices) for share in place(request, fleet, ()).shares] == expected


def test_an_empty_inventory_says_so() -> None:
    for fleet in (inventory(), inventory(node("a", "", None, 0))):
        with pytest.raises(UnsatisfiableRequestError) as refused:
            place(GpuRequest(1, distributed_training=True), fleet, ())
        assert "no GPUs" in str(refused.value)
    with pytest.raises(UnsatisfiableRequestError) as refused:
        place(GpuRequest(1, "H100"), inventory(node("a", "T4", 16, 1), node("b", "A100", 80, 1)), ())
    assert "A100, T4" in str(refused.value)
