"""Which node a GPU is in, where its exporter and node_exporter name nodes differently. Pure.

An exporter may know the node's name (in full, or without its domain), only the name of its pod, or nothing; Prometheus
knows the scraped address, and in Kubernetes often the node. A match is exact before it is by short name, and only if it
is the only one: two nodes are never taken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from gpu_advisor.text_cache import cache_texts


class NodeNames(NamedTuple):
    """What a GPU exporter's identity row, or node_exporter's, says about its node.

    `reported` is the exporter's own label, `target` the node that service discovery adds, `instance` the scraped
    address.
    """

    cluster: str = ""
    reported: str = ""
    target: str = ""
    instance: str = ""

    @classmethod
    def of(cls, row: Mapping[str, str]) -> NodeNames:
        """Those of a canonical identity row."""
        return cls(row.get("cluster", ""), row.get("nodename", ""), row.get("node", ""), row.get("instance", ""))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, once each."""
        return tuple(dict.fromkeys(name for name in (self.reported, self.target, host_of(self.instance)) if name))


@dataclass(frozen=True, slots=True)
class NodeMatches:
    """`matched` are positions of nodes by position of a GPU's names; `unmatched` are GPUs without a node."""

    matched: Mapping[int, int]
    unmatched: tuple[int, ...] = ()


def host_of(instance: str) -> str:
    """The host of HOST:PORT or [ADDRESS]:PORT; the text itself without a port."""
    if instance.startswith("["):
        return instance[1:].split("]", 1)[0]
    host, colon, port = instance.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else instance


def match_nodes(gpus: Sequence[NodeNames], nodes: Sequence[NodeNames]) -> NodeMatches:
    """The node of each GPU, within its cluster.

    By the reported name, then by the target's node (the reported name may be that of a pod), and where nothing is
    reported by the scraped host. Each may match any name of a node; failing that, without its domain, if one of the two
    has none. An exporter that reports several nodes from one target is elsewhere: only what it reports counts.
    """
    exact, short = _index(nodes, str.lower), _index(nodes, short_name)
    reported: dict[tuple[str, str], set[str]] = {}
    places: dict[NodeNames, list[int]] = {}  # the GPUs of one node say the same
    for number, gpu in enumerate(gpus):
        places.setdefault(gpu, []).append(number)
    for gpu in places:
        reported.setdefault((gpu.cluster, gpu.instance), set()).add(gpu.reported)
    matched: dict[int, int] = {}
    for gpu, numbers in places.items():
        remote = len(reported[gpu.cluster, gpu.instance]) > 1
        for name in (gpu.reported,) if remote else (gpu.reported, gpu.target, gpu.names[-1] if gpu.names else ""):
            if not name or (name not in (gpu.reported, gpu.target) and gpu.reported):
                continue
            found = exact.get((gpu.cluster, name.lower())) or {
                node
                for node in short.get((gpu.cluster, short_name(name)), ())
                if any(_is_short_match(name, other) for other in nodes[node].names)
            }
            if found:
                if len(found) == 1:
                    matched |= dict.fromkeys(numbers, next(iter(found)))
                break
    return NodeMatches(matched, tuple(number for number in range(len(gpus)) if number not in matched))


def mismatch_hint(gpus: Sequence[NodeNames], nodes: Sequence[NodeNames], matches: NodeMatches) -> str:
    """A message that names both sides if GPUs have no node although there are nodes; empty otherwise."""
    clusters = {node.cluster for node in nodes}
    missing = [gpus[number] for number in matches.unmatched if gpus[number].cluster in clusters]
    if not missing:
        return ""
    taken = set(matches.matched.values())
    free = [node for number, node in enumerate(nodes) if number not in taken] or list(nodes)
    gpu_names = _examples(gpu.names for gpu in missing)
    node_names = _examples(node.names for node in free)
    return (
        f"{len(missing)} GPUs have no host metrics: their exporter names the node {gpu_names}, node_exporter"
        f" {node_names}. Add the same label `node` to both jobs by relabeling"
        " (in Kubernetes, from __meta_kubernetes_pod_node_name)"
    )


@cache_texts(1 << 14)  # of each node in each evaluation
def short_name(name: str) -> str:
    """The name without its domain, in lower case; empty for an address."""
    try:
        ip_address(name)
    except ValueError:
        return name.split(".", 1)[0].lower()
    return ""


def _is_short_match(name: str, other: str) -> bool:
    """Two names with different domains are of two nodes."""
    return short_name(name) == short_name(other) and ("." not in name or "." not in other)


def _index(nodes: Sequence[NodeNames], key: Callable[[str], str]) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = {}
    for number, node in enumerate(nodes):
        for name in node.names:
            if key(name):
                found.setdefault((node.cluster, key(name)), set()).add(number)
    return found


def _examples(names: Iterable[Sequence[str]]) -> str:
    shown = list(dict.fromkeys("/".join(each) for each in names if each))
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "") if shown else "nothing"
