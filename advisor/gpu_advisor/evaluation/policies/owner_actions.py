"""What to do about a GPU's owner: ask first, then a whole command, and only where the owner is certain. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from datetime import datetime, timezone
from typing import NamedTuple

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import SLURM, Controller, GpuOwner
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.gpu_commands import in_cluster, list_processes

#: What has a GPU, of an owner without a name, by its kind.
_NAMELESS = {"kubernetes": "pod", SLURM: "Slurm job"}

AGREED = "once its owner agrees"

#: GPUs of an owner that are named one by one.
MAX_SHOWN_GPUS = 3


class _Stop(NamedTuple):
    """How to stop all pods of a controller so that they can be started again: kubectl's command and its option."""

    verb: str
    option: str
    note: str


#: Of other kinds, only to look at them is certain to do no harm.
#: https://kubernetes.io/docs/concepts/workloads/controllers/job/#suspending-a-job
_SCALE = _Stop("scale", "--replicas=0", "an operator that made it (KServe, Knative, LeaderWorkerSet) may restart them")
_STOP: Mapping[str, _Stop] = {
    "Deployment": _SCALE,
    "ReplicaSet": _SCALE,
    "ReplicationController": _SCALE,
    "StatefulSet": _SCALE,
    "Job": _Stop("patch", '--patch={"spec":{"suspend":true}}', "a queue that admitted it (Kueue) may resume it"),
}

_NO_CONTROLLER = Controller("", "")


def owner_actions(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Action]:
    """For each owner of these GPUs, once."""
    uuids, held = {gpu.uuid for gpu in gpus}, gpus_by_stop_key(facts.owners)
    for owner, found in _gpus_by_owner(facts, gpus):
        yield _ask(owner, found)
        yield from _commands(facts, owner, found, is_certain=holds_only(facts.owners, held, owner, uuids))


def ask_owners(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Action]:
    """Whom to ask about these GPUs, with no command."""
    for owner, found in _gpus_by_owner(facts, gpus):
        yield _ask(owner, found)


def _gpus_by_owner(facts: Facts, gpus: Sequence[Gpu]) -> list[tuple[GpuOwner, list[Gpu]]]:
    """By what stops as a whole. Of a Slurm job, the node that knows its number in an array knows most."""
    owners: dict[GpuOwner, GpuOwner] = {}
    found: dict[GpuOwner, list[Gpu]] = {}
    for gpu in gpus:
        for owner in facts.owners.get(gpu.uuid, ()):
            whole = owner.workload
            if not owners.setdefault(whole, owner).array_task and owner.array_task:
                owners[whole] = owner
            of_owner = found.setdefault(whole, [])
            if of_owner[-1:] != [gpu]:  # the other container of a pod has it, too
                of_owner.append(gpu)
    return sorted(((owners[whole], of_owner) for whole, of_owner in found.items()), key=lambda item: str(item[0]))


def _ask(owner: GpuOwner, gpus: Sequence[Gpu]) -> Action:
    more = ", ..." if len(gpus) > MAX_SHOWN_GPUS else ""
    names = ", ".join(str(gpu.scope) for gpu in gpus[:MAX_SHOWN_GPUS]) + more
    if owner.deletion_due is not None:
        return notes(
            f"{owner} was to end by {utc_time(owner.deletion_due)} and still has {names}: look for a finalizer, a node "
            "that does not answer, or a process that does not end"
        )[0]
    team = f" of team {owner.team}" if owner.team else f" of account {owner.account}" if owner.account else ""
    since = "" if owner.started is None else f", running since {utc_time(owner.started)}"
    if not owner.names:
        what = _NAMELESS.get(owner.kind, "owner")
        return notes(f"find the {what} that has {names}{since}{',' if since else ''} and ask its user first")[0]
    return notes(f"ask {owner}{team} first{since}: does it still need {names}?")[0]


def utc_time(time: float) -> str:
    """A Unix time for people, to the minute."""
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


#: An owner itself, or a pod's cluster and namespace with its name or with what its name begins with, up to a dash.
StopKey = GpuOwner | tuple[str, str, str]


def gpus_by_stop_key(owners: Mapping[str, Sequence[GpuOwner]]) -> Mapping[StopKey, Set[str]]:
    """The GPUs of owners that one command may stop: a fleet has too many owners to compare each with each."""
    found: dict[StopKey, set[str]] = {}
    for uuid, each in owners.items():
        for owner in each:
            dashes = [index for index, letter in enumerate(owner.pod) if letter == "-"]
            names = [owner.pod, *(owner.pod[: index + 1] for index in dashes)] if owner.pod else []
            keys: list[StopKey] = [owner.workload, *((owner.cluster, owner.namespace, name) for name in names)]
            for key in keys:
                found.setdefault(key, set()).add(uuid)
    return found


def holds_only(
    owners: Mapping[str, Sequence[GpuOwner]], held: Mapping[StopKey, Set[str]], owner: GpuOwner, gpus: Collection[str]
) -> bool:
    """Whether the owner and its controller's other pods have no GPU but these, and share none of them."""
    keys: list[StopKey] = [owner.workload]
    if owner.pod:
        keys.append((owner.cluster, owner.namespace, owner.pod))
        if owner.controller and owner.controller.name:
            keys.append((owner.cluster, owner.namespace, f"{owner.controller.name}-"))
    stopped = set[str]().union(*(held.get(key, frozenset()) for key in keys))
    return all(uuid in gpus and all(stops_with(each, owner) for each in owners[uuid]) for uuid in stopped)


def stops_with(other: GpuOwner, owner: GpuOwner) -> bool:
    """Whether stopping one may stop the other. A controller names its pods after itself."""
    if other.workload == owner.workload:
        return True
    if not owner.pod or (other.cluster, other.namespace, bool(other.pod)) != (owner.cluster, owner.namespace, True):
        return False
    name = owner.controller.name if owner.controller else ""
    return other.pod == owner.pod or bool(name and other.pod.startswith(f"{name}-"))


def _commands(facts: Facts, owner: GpuOwner, gpus: Sequence[Gpu], is_certain: bool) -> Iterator[Action]:
    """Whole commands. An owner whose name is an option, or stands for several, has none."""
    names = (owner.namespace, owner.pod, owner.job, owner.unit, *(owner.controller or ()))
    if any(name.startswith("-") for name in names) or (owner.cluster and not names_one("cluster", owner.cluster)):
        return
    node = gpus[0].node
    shared = "" if is_certain else "; it has other GPUs, or shares these"
    if owner.pod and owner.namespace:
        yield _pod_command(owner, node, is_certain)
    elif names_one("pod_uid", owner.pod_uid):
        named = (
            f'{{range .items[?(@.metadata.uid=="{owner.pod_uid}")]}}{{.metadata.namespace}}/{{.metadata.name}}{{end}}'
        )
        note = "its name; gpu-exporter has it by the kubelet's pod-resources socket"
        kubectl = in_cluster("kubectl", owner.cluster)
        yield run_command(*kubectl, "get", "pods", "-A", f"-o=jsonpath={named}", node=node, note=note)
    elif owner.kind == SLURM and names_one("slurm_job", owner.job):
        note = f"what it is, and how long it may run{shared}"
        yield run_command(*in_cluster("scontrol", owner.cluster), "show", "job", owner.job, node=node, note=note)
        number = _number_to_cancel(owner)
        if is_certain and number:
            yield run_command(*in_cluster("scancel", owner.cluster), number, node=node, note=AGREED)
    elif names_one("unit", owner.unit):
        yield run_command("systemctl", "status", owner.unit, node=node)
        if is_certain and owner.unit.endswith(".service") and not owner.unit.startswith("user@"):
            yield run_command("systemctl", "stop", owner.unit, node=node, note=AGREED)
    else:
        note = f"the processes of {owner}: a pid is its own only if the start fits"
        yield from list_processes(facts, gpus[: 1 if owner.names else MAX_SHOWN_GPUS], note)


def _number_to_cancel(owner: GpuOwner) -> str:
    """The number that names this job alone; empty if it may stand for others.

    A task of an array may have the array's own number, which cancels all of its tasks; component 0 of a heterogeneous
    job has the job's, which cancels all components (https://slurm.schedmd.com/scancel.html). A job of which not even
    the partition is known may be either.
    """
    number = owner.array_task or owner.job
    is_known = bool(owner.array_task or owner.partition or owner.account) or not owner.job.isdigit()
    return number if is_known and names_one("slurm_job", number) and not number.endswith("+0") else ""


def _pod_command(owner: GpuOwner, node: str, is_certain: bool) -> Action:
    """On the pod's controller, which would replace a deleted pod; only to look at it where that may do harm."""
    kubectl = (*in_cluster("kubectl", owner.cluster), "-n", owner.namespace)
    controller = owner.controller
    if owner.deletion_due is not None:  # its controller has replaced it, and would stop the new pod
        note = "it is being deleted; a forced deletion frees no GPU while its processes run"
        return run_command(*kubectl, "describe", "pod", owner.pod, node=node, note=note)
    if controller is None:
        custom = "-o=jsonpath={.metadata.ownerReferences[*].kind}/{.metadata.ownerReferences[*].name}"
        note = "its controller: scale or delete that, not the pod"
        return run_command(*kubectl, "get", "pod", owner.pod, custom, node=node, note=note)
    if controller == _NO_CONTROLLER:
        verb = "delete" if is_certain else "describe"
        note = f"{AGREED}: no controller starts it again" if is_certain else "it has other GPUs, or shares these"
        return run_command(*kubectl, verb, "pod", owner.pod, node=node, note=note)
    named = f"{controller.kind.lower()}/{controller.name}"
    if controller.kind not in _STOP or not is_certain:
        note = "the pod's controller" + ("" if is_certain else ", which has other GPUs, or shares these")
        return run_command(*kubectl, "describe", named, node=node, note=note)
    verb, option, note = _STOP[controller.kind]
    return run_command(*kubectl, verb, named, option, node=node, note=f"{AGREED}: stops all of its pods; {note}")
