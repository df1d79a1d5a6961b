"""What releasing idle GPUs surely saves: whole nodes and whole pods only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.policies.idle_reclaim import releasable_shares

from tests.unit.advisor.builders import GpuSpec, facts


@pytest.mark.parametrize(
    ("nodes", "pods", "released", "surely", "at_most"),
    [
        ("aa", "--", 2, 2, 2),  # the whole node goes
        ("aa", "--", 1, 0, 1),  # one of two stays: so does the node
        ("aab", "---", 2, 2, 2),
        ("aab", "---", 1, 1, 1),  # the node with one GPU
        ("aabbbb", "------", 5, 4, 5),
        ("aa", "pp", 1, 0, 1),  # part of a pod
        ("aa", "pq", 1, 1, 1),  # a pod of the two
        ("ab", "pp", 1, 1, 1),  # a node of the two that the pod is on
        ("aaa", "ppq", 2, 2, 2),
    ],
)
def test_only_what_goes_as_a_whole_is_surely_saved(
    nodes: str, pods: str, released: int, surely: int, at_most: int
) -> None:
    known = facts([GpuSpec(f"g{number}", 0.0, node=node) for number, node in enumerate(nodes)])
    owners = {f"g{number}": (GpuOwner("ml", pod),) for number, pod in enumerate(pods) if pod != "-"}
    shares = list(releasable_shares(replace(known, owners=owners), known.gpus, released))
    assert sum(len(each.gpus) * each.low for each in shares) == surely
    assert sum(len(each.gpus) * (each.high or 0.0) for each in shares) == pytest.approx(at_most)
