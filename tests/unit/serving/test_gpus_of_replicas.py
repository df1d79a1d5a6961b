"""Which GPUs a replica has: an owner's claim first, then a host that serves nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from gpu_advisor.evaluation.facts import Gpu, Node
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.gpus import assign_gpus

POD, OTHER_POD = GpuOwner("ml", "llm-0"), GpuOwner("ml", "train-0")
PROCESS = GpuOwner(user="ada", kind="user")
GPUS = tuple(Gpu(f"g{n}", str(n), "x", "nvidia", node, True) for n, node in enumerate(("a", "a", "b", "b")))
NODES = (Node("a", "10.0.0.1:9816"), Node("b", "10.0.0.2:9816"))


def pod(namespace: str = "ml", name: str = "llm-0") -> ServingReplica:
    return ServingReplica("vllm", "j", "10.9.0.7:8000", namespace=namespace, pod=name, node="a")


def bare(address: str, node: str = "", engine: str = "") -> ServingReplica:
    return ServingReplica("vllm", "j", address, node=node, engine=engine)


@pytest.mark.parametrize(
    ("replicas", "owners", "found"),
    [
        ([pod()], {"g0": (POD,), "g2": (POD,), "g1": (OTHER_POD,)}, ["g0 g2"]),  # also those on another node
        ([pod()], {"g0": (GpuOwner("", "llm-0"),)}, ["g0"]),  # an exporter that has no namespaces
        ([pod("dev")], {"g0": (POD,)}, [""]),
        ([pod()], {"g0": (PROCESS,)}, [""]),  # of somebody else on its node
        ([pod()], {"g0": (POD, GpuOwner("ml", "llm-0", container="sidecar"))}, ["g0"]),  # once
        ([bare("10.0.0.1:8000")], {"g0": (PROCESS,), "g2": (PROCESS,)}, ["g0"]),  # by its node's address
        ([bare("a:8000")], {"g0": (PROCESS,), "g1": (PROCESS,)}, ["g0 g1"]),  # by its node's name
        ([bare("10.9.0.7:8000", "b")], {"g0": (PROCESS,), "g2": (PROCESS,)}, ["g2"]),  # by its label
        ([bare("a:8000")], {}, [""]),  # none of them is in use
        ([bare("a:8000")], {"g0": (OTHER_POD,), "g1": (PROCESS,)}, ["g1"]),
        ([bare("a:8000"), bare("a:8001")], {"g0": (PROCESS,), "g1": (PROCESS,)}, ["", ""]),  # which has which?
        ([bare("a:8000"), bare("b:8000")], {"g0": (PROCESS,), "g3": (PROCESS,)}, ["g0", "g3"]),
        ([bare("a:8000", engine="0"), bare("a:8000", engine="1")], {"g0": (PROCESS,)}, ["g0", "g0"]),  # one server
        ([bare("a:8000"), pod()], {"g0": (PROCESS,), "g1": (POD,)}, ["g0", "g1"]),
    ],
)
def test_gpus_of(
    replicas: Sequence[ServingReplica], owners: Mapping[str, tuple[GpuOwner, ...]], found: Sequence[str]
) -> None:
    assert [" ".join(each.gpus) for each in assign_gpus(replicas, GPUS, owners, NODES)] == found
