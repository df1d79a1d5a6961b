"""Which controller runs the pods that hold idle GPUs, and which are being deleted, from kube-state-metrics. Pure.

Metrics and labels: https://github.com/kubernetes/kube-state-metrics/blob/main/docs/metrics/workload/pod-metrics.md,
replicaset-metrics.md and job-metrics.md there. It has no owners of Deployments and StatefulSets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gpu_advisor.evaluation.owners import Controller, GpuOwner
from gpu_advisor.observation.owners import match_pods, pod_key, pod_keys
from gpu_advisor.promql.expressions import Labels, Selector, Vector, any_of_values

POD_OWNERS, REPLICASET_OWNERS, JOB_OWNERS = "pod_owners", "replicaset_owners", "job_owners"
POD_DELETIONS = "pod_deletions"

#: What kube-state-metrics writes where there is no owner; up to version 1, `<none>`.
_NOTHING = frozenset({"", "<none>"})

#: What makes a Job for each run: suspending the Job of one run lasts.
CRON_JOB = "CronJob"


def controller_selectors(owners: Iterable[GpuOwner]) -> dict[str, Selector]:
    """Selectors by name; none without pods.

    A pod of a ReplicaSet or Job has its name, a dash and a suffix; one of an indexed Job has the index before that.
    """
    named = [owner for owner in owners if owner.pod and owner.namespace]
    if not named:
        return {}
    of_pods = match_pods(named)
    found = {
        POD_OWNERS: Selector("kube_pod_owner", matchers=(of_pods,)),
        POD_DELETIONS: Selector("kube_pod_deletion_timestamp", matchers=(of_pods,)),
    }
    stems = {owner.pod.rpartition("-")[0] for owner in named} - {""}
    indexed = {stem for stem, dash, index in (each.rpartition("-") for each in stems) if dash and index.isdigit()}
    for name, metric, label, names in (
        (REPLICASET_OWNERS, "kube_replicaset_owner", "replicaset", stems),
        (JOB_OWNERS, "kube_job_owner", "job_name", stems | (indexed - {""})),
    ):
        if names:
            matcher = any_of_values(label, tuple(sorted(names))) if of_pods.label == "pod" else of_pods
            found[name] = Selector(metric, matchers=(matcher,))
    return found


def with_controllers(
    owners: Mapping[str, tuple[GpuOwner, ...]], results: Mapping[str, Vector], cluster_label: str = ""
) -> dict[str, tuple[GpuOwner, ...]]:
    """The owners with the controllers of their pods, and when one that is being deleted should have ended.

    The controller is a Deployment rather than its ReplicaSet, a JobSet rather than its Job.
    What runs a ReplicaSet or Job would undo what is done to it, so one of which that is unknown counts as unknown. So
    does the `Job` of another API, such as Volcano's: kube-state-metrics has those of `batch` only.
    """
    of_pod = _controllers(results.get(POD_OWNERS, {}), "pod", cluster_label)
    above = {
        "ReplicaSet": _controllers(results.get(REPLICASET_OWNERS, {}), "replicaset", cluster_label),
        "Job": _controllers(results.get(JOB_OWNERS, {}), "job_name", cluster_label),
    }

    due: dict[tuple[str, ...], float] = {}
    for labels, value in results.get(POD_DELETIONS, {}).items():
        for pod in pod_keys(dict(labels), cluster_label):
            due[pod] = max(value, due.get(pod, value))

    def found(owner: GpuOwner) -> GpuOwner:
        if owner.pod:
            owner = replace(owner, deletion_due=due.get(pod_key(owner)))
        controller = of_pod.get(pod_key(owner)) if owner.pod else None
        if controller is not None and controller.kind in above:
            higher = above[controller.kind].get((owner.cluster, owner.namespace, controller.name))
            controller = higher if higher is None or higher.kind not in ("", CRON_JOB) else controller
        return owner if controller is None else replace(owner, controller=controller)

    return {uuid: tuple(map(found, every)) for uuid, every in owners.items()}


def _controllers(rows: Iterable[Labels], name: str, cluster_label: str) -> dict[tuple[str, ...], Controller]:
    """By cluster, namespace and name. Things of several clusters by one name have none: it would be a guess."""
    found: dict[tuple[str, ...], set[Controller]] = {}
    for labels in rows:
        each = dict(labels)
        if each.get("owner_is_controller") == "false":
            continue
        is_none = each.get("owner_kind", "") in _NOTHING
        controller = Controller("", "") if is_none else Controller(each["owner_kind"], each.get("owner_name", ""))
        for key in pod_keys(each, cluster_label, name):
            found.setdefault(key, set()).add(controller)
    return {key: next(iter(controllers)) for key, controllers in found.items() if len(controllers) == 1}
