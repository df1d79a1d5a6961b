"""Which GPUs a replica has: those of its pod; without one, those in use on a host with a single server. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gpu_advisor.evaluation.facts import Gpu, Node, host_of
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.serving.facts import ServingReplica


def assign_gpus(
    replicas: Sequence[ServingReplica],
    gpus: Iterable[Gpu],
    owners: Mapping[str, tuple[GpuOwner, ...]],
    nodes: Iterable[Node],
) -> tuple[ServingReplica, ...]:
    """The replicas with their GPUs, as far as these are known."""
    by_pod: dict[tuple[str, str], list[str]] = {}
    by_host: dict[str, list[str]] = {}
    hosts = {node.name: host_of(node.instance) for node in nodes}
    for gpu in gpus:
        owned = owners.get(gpu.uuid, ())
        for owner in owned:
            if owner.pod:
                by_pod.setdefault((owner.namespace, owner.pod), []).append(gpu.uuid)
        if owned and not any(owner.pod for owner in owned):
            for host in {gpu.node, hosts.get(gpu.node, gpu.node)}:
                by_host.setdefault(host, []).append(gpu.uuid)
    # Several engines of one page are one process tree, with all of its GPUs.
    servers_of_host = Counter(host_of(instance) for instance in {each.instance for each in replicas if not each.pod})

    def gpus_of(replica: ServingReplica) -> tuple[str, ...]:
        if replica.pod:
            found = by_pod.get((replica.namespace, replica.pod)) or by_pod.get(("", replica.pod), [])
            return tuple(sorted(set(found)))
        host = host_of(replica.instance)
        if servers_of_host[host] != 1:
            return ()
        return tuple(sorted(set(by_host.get(replica.node, []) or by_host.get(host, []))))

    return tuple(replace(each, gpus=gpus_of(each)) for each in replicas)
