"""GPUs find the node they are in, by whatever names both sides have, and never another one."""

from __future__ import annotations

import pytest
from gpu_advisor.sources.exporters.node_names import NodeNames, host_of, match_nodes, mismatch_hint

#: GPU's names, nodes' names, and the position of the node that is right; None for none.
CASES: dict[str, tuple[NodeNames, list[NodeNames], int | None]] = {
    "the same name": (NodeNames("", "n2"), [NodeNames("", "n1"), NodeNames("", "n2")], 1),
    "another case": (NodeNames("", "Node-A"), [NodeNames("", "node-a")], 0),
    "short against full": (NodeNames("", "n1"), [NodeNames("", "n1.example.org"), NodeNames("", "n2.example.org")], 0),
    "full against short": (NodeNames("", "n1.example.org"), [NodeNames("", "n2"), NodeNames("", "n1")], 1),
    "exact before short": (NodeNames("", "n1"), [NodeNames("", "n1.a.org"), NodeNames("", "n1")], 1),
    "two nodes of that short name": (NodeNames("", "n1"), [NodeNames("", "n1.a.org"), NodeNames("", "n1.b.org")], None),
    "two domains": (NodeNames("", "n1.a.org"), [NodeNames("", "n1.b.org")], None),
    "a pod's name, and the target's node": (
        NodeNames("", "exporter-x7kz", "n1", "10.244.1.17:9400"), [NodeNames("", "n1", "", "172.31.0.9:9100")], 0
    ),
    "the target's node on both sides": (
        NodeNames("", "exporter-x7kz", "gpu-1", "10.244.1.17:9400"),
        [NodeNames("", "ip-172-31-0-9", "gpu-1", "172.31.0.9:9100")], 0,
    ),
    "a pod's name alone": (
        NodeNames("", "exporter-x7kz", "", "10.244.1.17:9400"), [NodeNames("", "n1", "", "172.31.0.9:9100")], None
    ),
    "the address alone": (NodeNames("", "", "", "10.0.0.1:9835"), [NodeNames("", "n1", "", "10.0.0.1:9100")], 0),
    "an address as the reported name": (NodeNames("", "10.0.0.1"), [NodeNames("", "n1", "", "10.0.0.1:9100")], 0),
    "another address of the same network": (
        NodeNames("", "", "", "10.0.0.1:9835"), [NodeNames("", "n1", "", "10.0.0.2:9100")], None
    ),
    "IPv6": (NodeNames("", "", "", "[fd00::1]:9835"), [NodeNames("", "n1", "", "[fd00::1]:9100")], 0),
    "a reported name outweighs the address": (
        NodeNames("", "elsewhere", "", "10.0.0.1:9400"), [NodeNames("", "n1", "", "10.0.0.1:9100")], None
    ),
    "another cluster": (NodeNames("a", "n1"), [NodeNames("b", "n1"), NodeNames("a", "n1")], 1),
    "only another cluster": (NodeNames("a", "n1"), [NodeNames("b", "n1")], None),
    "two nodes of one name": (
        NodeNames("", "n1"), [NodeNames("", "n1", "", "a:1"), NodeNames("", "n1", "", "b:1")], None
    ),
    "no name at all": (NodeNames(), [NodeNames("", "n1")], None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_node_of_a_gpu(case: str) -> None:
    gpu, nodes, wanted = CASES[case]
    found = match_nodes([gpu], nodes)
    assert found.matched.get(0) == wanted
    assert found.unmatched == (() if wanted is not None else (0,))


def test_an_exporter_of_several_nodes_is_in_none_of_them() -> None:
    gpus = [NodeNames("", name, "monitor", "10.0.0.1:9400") for name in ("gpu-1", "gpu-2", "gpu-3")]
    nodes = [NodeNames("", name) for name in ("monitor", "gpu-1", "gpu-2")]
    assert match_nodes(gpus, nodes).matched == {0: 1, 1: 2}


def test_the_hint_names_both_sides_and_the_remedy() -> None:
    gpus = [NodeNames("", "exporter-x7kz", "", "10.244.1.17:9400"), NodeNames("", "n2")]
    nodes = [NodeNames("", "n1", "", "172.31.0.9:9100"), NodeNames("", "n2")]
    hint = mismatch_hint(gpus, nodes, match_nodes(gpus, nodes))
    assert "1 GPUs" in hint
    assert "exporter-x7kz/10.244.1.17" in hint
    assert "n1/172.31.0.9" in hint
    assert "relabeling" in hint
    assert "n2" not in hint
    assert mismatch_hint(gpus[1:], nodes, match_nodes(gpus[1:], nodes)) == ""
    assert mismatch_hint(gpus, [], match_nodes(gpus, [])) == ""  # without node_exporter there is nothing to join


@pytest.mark.parametrize(
    ("instance", "host"),
    [("a:1", "a"), ("a", "a"), ("[::1]:9", "::1"), ("fe80::1", "fe80::1"), ("10.0.0.1:9100", "10.0.0.1"), ("", "")],
)
def test_the_host_of_an_address(instance: str, host: str) -> None:
    assert host_of(instance) == host
