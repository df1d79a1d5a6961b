"""Commands on the processes of a GPU. Pure.

A pid is known to the driver alone, and is used again after its process ended: so the command asks the driver, and shows
when each process started. The GPU's name is an argument of the script, never a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.policies.command_names import names_one

_PIDS = 'nvidia-smi -i "$1" --query-compute-apps=pid --format=csv,noheader'
_SHOW = f"{_PIDS} | xargs -r ps -o pid,user,lstart,args -p"
_STACKS = f"{_PIDS} | xargs -r -n 1 py-spy dump --pid"


def list_processes(facts: Facts, gpu: Gpu, note: str) -> Iterator[Action]:
    """Pid, user, start and command line of each; nothing for vendors whose tool cannot be asked so."""
    return _script(facts, gpu, _SHOW, note)


def dump_stacks(facts: Facts, gpu: Gpu, note: str) -> Iterator[Action]:
    """Where each of its Python processes is (https://github.com/benfred/py-spy)."""
    return _script(facts, gpu, _STACKS, note)


def _script(facts: Facts, gpu: Gpu, script: str, note: str) -> Iterator[Action]:
    label = facts.uuid_label(gpu.uuid)
    if gpu.vendor == "nvidia" and names_one("gpu", label):
        yield run_command("sh", "-c", script, "sh", label, node=gpu.node, note=note)
