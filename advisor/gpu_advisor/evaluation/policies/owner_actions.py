"""What to do about a GPU's owner: ask first, then a whole command, and only where the owner is certain. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import GpuOwner

#: Owners that gpu-exporter calls so are jobs of Slurm, whose `training_job` is the job's id.
SLURM = "slurm"


def owner_actions(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Action]:
    """For each owner of these GPUs, once."""
    owners: dict[GpuOwner, list[Gpu]] = {}
    for gpu in gpus:
        for owner in facts.owners.get(gpu.uuid, ()):
            owners.setdefault(owner, []).append(gpu)
    for owner, found in sorted(owners.items(), key=lambda item: str(item[0])):
        shared = any(len(facts.owners[gpu.uuid]) > 1 for gpu in found)
        yield from _actions_of_owner(owner, found, shared)


def _actions_of_owner(owner: GpuOwner, gpus: Sequence[Gpu], shared: bool) -> Iterator[Action]:
    names = ", ".join(str(gpu.scope) for gpu in gpus[:3]) + (", ..." if len(gpus) > 3 else "")
    yield from notes(f"ask {owner} first: does it still need {names}?")
    node = gpus[0].node
    if owner.pod and owner.namespace:
        # A pod that its controller replaces would only come back: look at the owner before anything is deleted.
        custom = "-o=jsonpath={.metadata.ownerReferences[*].kind}/{.metadata.ownerReferences[*].name}"
        note = "its controller: scale or delete that, not the pod"
        yield run_command("kubectl", "get", "pod", "-n", owner.namespace, owner.pod, custom, node=node, note=note)
    elif owner.kind == SLURM and owner.job and not shared:
        yield run_command("scancel", owner.job, node=node, note="once its owner agrees")
    elif owner.unit and not shared:
        yield run_command("systemctl", "status", owner.unit, node=node)
    elif gpus[0].vendor == "nvidia":
        query = ("--query-compute-apps=pid,process_name,used_memory", "--format=csv")
        yield run_command("nvidia-smi", "-i", gpus[0].uuid, *query, node=node, note=f"the processes of {owner}")
