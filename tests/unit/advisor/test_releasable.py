"""What releasing idle GPUs surely saves: whole nodes and whole pods only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.owners import Controller, GpuOwner
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


POD = GpuOwner("ml", "p")


@pytest.mark.parametrize(
    ("held", "idle", "surely"),
    [
        # Two containers of one pod, of which one idles: the pod stays.
        ({"g0": (replace(POD, container="a"),), "g1": (replace(POD, container="b"),)}, "g0", 0),
        ({"g0": (replace(POD, container="a"),), "g1": (replace(POD, container="b"),)}, "g0 g1", 2),
        ({"g0": (replace(POD, container="a"), replace(POD, container="b"))}, "g0", 1),  # which share a GPU
        ({"g0": (POD, GpuOwner("ml", "q"))}, "g0", 0),  # two pods share it, by MPS or time slicing
        ({"g0": (replace(POD, controller=Controller("DaemonSet", "p")),)}, "g0", 0),  # it comes back
        ({"g0": (replace(POD, controller=Controller("Node", "node-a")),)}, "g0", 0),  # a static pod
        ({"g0": (replace(POD, controller=Controller("Workflow", "p")),)}, "g0", 1),
        ({"g0": (GpuOwner(job="7", kind="slurm", partition="x"),)}, "g0", 1),
        (
            {"g0": (GpuOwner(kind="kubernetes", pod_uid="u"),), "g1": (GpuOwner(kind="kubernetes", pod_uid="v"),)},
            "g0",
            1,
        ),
        ({"g0": (GpuOwner(kind="kubernetes"),)}, "g0", 0),  # nobody knows what else belongs to it
        ({"g0": (GpuOwner(kind="slurm"),)}, "g0", 0),
        ({"g0": (GpuOwner(job="llm", kind="user"),)}, "g0", 0),  # its own name for itself
        ({"g0": (GpuOwner(container="0123456789ab", kind="container"),)}, "g0", 0),  # no scheduler takes it back
        ({"g0": (GpuOwner(user="ada", kind="user"),)}, "g0", 0),
        ({"g0": ()}, "g0", 0),
    ],
)
def test_what_an_owner_gives_back(held: dict[str, tuple[GpuOwner, ...]], idle: str, surely: int) -> None:
    known = replace(facts([GpuSpec(uuid) for uuid in ("g0", "g1", "busy")]), owners=held)
    gpus = [gpu for gpu in known.gpus if gpu.uuid in idle.split()]
    shares = list(releasable_shares(known, gpus, len(gpus)))
    assert sum(len(each.gpus) * each.low for each in shares) == surely
