"""Which controller runs the pods that hold idle GPUs, from kube-state-metrics. Pure.

Metrics and labels: https://github.com/kubernetes/kube-state-metrics/blob/main/docs/metrics/workload/pod-metrics.md and
replicaset-metrics.md there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gpu_advisor.evaluation.owners import Controller, GpuOwner
from gpu_advisor.observation.owners import match_pods
from gpu_advisor.promql.expressions import Labels, Selector, Vector, any_of_values

POD_OWNERS, REPLICASET_OWNERS = "pod_owners", "replicaset_owners"

#: What kube-state-metrics writes where there is no owner; up to version 1, `<none>`.
_NOTHING = frozenset({"", "<none>"})

REPLICA_SET = "ReplicaSet"


def controller_selectors(owners: Iterable[GpuOwner]) -> dict[str, Selector]:
    """Selectors by name; none without pods. A ReplicaSet's pods are its name, a dash and a suffix."""
    named = [owner for owner in owners if owner.pod and owner.namespace]
    if not named:
        return {}
    of_pods = match_pods(named)
    found = {POD_OWNERS: Selector("kube_pod_owner", matchers=(of_pods,))}
    sets = tuple(sorted({owner.pod.rpartition("-")[0] for owner in named} - {""}))
    if sets:
        matcher = any_of_values("replicaset", sets) if of_pods.label == "pod" else of_pods
        found[REPLICASET_OWNERS] = Selector("kube_replicaset_owner", matchers=(matcher,))
    return found


def with_controllers(
    owners: Mapping[str, tuple[GpuOwner, ...]], results: Mapping[str, Vector]
) -> dict[str, tuple[GpuOwner, ...]]:
    """The owners with the controllers of their pods: a Deployment rather than its ReplicaSet, where that is known."""
    of_pod = _controllers(results.get(POD_OWNERS, {}), "pod")
    of_set = _controllers(results.get(REPLICASET_OWNERS, {}), "replicaset")

    def found(owner: GpuOwner) -> GpuOwner:
        controller = of_pod.get((owner.namespace, owner.pod)) if owner.pod else None
        if controller is not None and controller.kind == REPLICA_SET:
            # A ReplicaSet that something else runs is not to be scaled by hand.
            above = of_set.get((owner.namespace, controller.name))
            controller = above if above is None or above.kind else controller
        return owner if controller is None else replace(owner, controller=controller)

    return {uuid: tuple(map(found, every)) for uuid, every in owners.items()}


def _controllers(rows: Iterable[Labels], name: str) -> dict[tuple[str, str], Controller]:
    """By namespace and name. Things of several clusters by one name have none: it would be a guess."""
    found: dict[tuple[str, str], set[Controller]] = {}
    for labels in rows:
        each = dict(labels)
        if each.get("owner_is_controller") == "false":
            continue
        is_none = each.get("owner_kind", "") in _NOTHING
        controller = Controller("", "") if is_none else Controller(each["owner_kind"], each.get("owner_name", ""))
        found.setdefault((each.get("namespace", ""), each.get(name, "")), set()).add(controller)
    return {key: next(iter(controllers)) for key, controllers in found.items() if len(controllers) == 1}
