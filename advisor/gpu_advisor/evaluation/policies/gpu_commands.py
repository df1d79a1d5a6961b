"""Commands that show a GPU's state and its processes, and that keep new work off its node. Pure.

Tools: https://docs.nvidia.com/deploy/nvidia-smi/ and
https://rocm.docs.amd.com/projects/amdsmi/en/latest/how-to/amdsmi-cli-tool.html

A pid is known to the driver alone, and is used again after its process ended: so the command asks the driver, and shows
when each process started. The GPUs' names are arguments of the script, never a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.policies.command_names import names_one

State = Literal["heat", "limits", "health"]

_COMMANDS: Mapping[tuple[str, State], tuple[str, ...]] = {
    ("nvidia", "heat"): ("nvidia-smi", "-q", "-d", "TEMPERATURE,PERFORMANCE"),
    ("nvidia", "limits"): ("nvidia-smi", "--query-gpu=index,power.limit,power.default_limit", "--format=csv"),
    ("nvidia", "health"): ("nvidia-smi", "-q", "-d", "CLOCK,PERFORMANCE,ECC,ROW_REMAPPER"),
    ("amd", "heat"): ("amd-smi", "metric", "--temperature", "--power"),
    ("amd", "limits"): ("amd-smi", "static", "--limit"),
    ("amd", "health"): ("amd-smi", "metric", "--clock", "--power", "--ecc"),
}
_SELECT_ONE: Mapping[str, str] = {"nvidia": "-i", "amd": "-g"}

_PIDS = 'for gpu; do nvidia-smi -i "$gpu" --query-compute-apps=pid --format=csv,noheader; done'
_SHOW = f"{_PIDS} | xargs -r ps -o pid,user,lstart,args -p"
_STACKS = f"{_PIDS} | xargs -r -n 1 py-spy dump --pid"


def show_state(gpu: Gpu, state: State, *, alone: bool = False, note: str = "") -> Iterator[Action]:
    """Of all GPUs of its node, or of this one `alone`; nothing for vendors whose tool is not known."""
    command = _COMMANDS.get((gpu.vendor, state))
    if command:
        which = (_SELECT_ONE[gpu.vendor], gpu.index) if alone and gpu.index.isdigit() else ()
        yield run_command(*command[:2], *which, *command[2:], node=gpu.node, note=note)


def topology_command(gpu: Gpu) -> str:
    """What shows the paths between the GPUs of a node, and to its NICs."""
    return {"nvidia": "nvidia-smi topo -m", "amd": "amd-smi topology"}.get(gpu.vendor, "lspci -tv")


def list_processes(facts: Facts, gpus: Iterable[Gpu], note: str) -> Iterator[Action]:
    """Pid, user, start and command line of each, by one command a node; nothing for vendors whose tool cannot be asked
    so.
    """
    return _scripts(facts, gpus, _SHOW, note)


def dump_stacks(facts: Facts, gpu: Gpu, note: str) -> Iterator[Action]:
    """Where each of its Python processes is (https://github.com/benfred/py-spy)."""
    return _scripts(facts, (gpu,), _STACKS, note)


#: The option that names the cluster. With a name that the tool does not know, it fails and changes nothing:
#: https://kubernetes.io/docs/reference/kubectl/kubectl/, https://slurm.schedmd.com/scontrol.html
_OF_CLUSTER: Mapping[str, str] = {"kubectl": "--context", "scontrol": "--clusters", "scancel": "--clusters"}


def in_cluster(tool: str, cluster: str) -> tuple[str, ...]:
    """The beginning of a command; with a cluster, of one that cannot act on a thing of the same name in another."""
    return (tool, f"{_OF_CLUSTER[tool]}={cluster}") if cluster else (tool,)


def drain_node(facts: Facts, gpu: Gpu, reason: str) -> Iterator[Action]:
    """For Kubernetes and for Slurm; a node whose name stands for others, too, has no command."""
    cluster = facts.cluster_of(gpu)
    if not names_one("host", gpu.host) or (cluster and not names_one("cluster", cluster)):
        yield from notes("keep new work off the node, then drain it; its name does not identify a single host")
        return
    kubectl, scontrol = in_cluster("kubectl", cluster), in_cluster("scontrol", cluster)
    yield run_command(*kubectl, "cordon", gpu.host, node=gpu.node, note="then drain it; on Slurm instead:")
    yield run_command(*scontrol, "update", f"nodename={gpu.host}", "state=drain", f"reason={reason}", node=gpu.node)


def _scripts(facts: Facts, gpus: Iterable[Gpu], script: str, note: str) -> Iterator[Action]:
    by_node: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        if gpu.vendor == "nvidia" and names_one("gpu", facts.uuid_label(gpu.parent or gpu.uuid)):
            by_node.setdefault(gpu.node, []).append(gpu)
    for node, found in by_node.items():
        labels = dict.fromkeys(facts.uuid_label(gpu.parent or gpu.uuid) for gpu in found)
        where = ", ".join(filter(None, (f"on {node}", index_ranges(gpu.index for gpu in found))))
        slices = " Of all slices of the board" if any(gpu.parent for gpu in found) else ""
        yield run_command("sh", "-c", script, "sh", *labels, node=node, note=f"{where}: {note}{slices}")


def index_ranges(indices: Iterable[str]) -> str:
    """`GPUs 0-3, 6` of a node; empty where no index is known. Indices that are no numbers stand alone."""
    named = list(dict.fromkeys(filter(None, indices)))
    parts: list[list[str]] = []
    for index in named:
        follows = parts and index.isdecimal() and parts[-1][-1].isdecimal() and int(index) == int(parts[-1][-1]) + 1
        if follows:
            parts[-1].append(index)
        else:
            parts.append([index])
    text = ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else part[0] for part in parts)
    return f"GPU{'s' if len(named) > 1 else ''} {text}" if named else ""
