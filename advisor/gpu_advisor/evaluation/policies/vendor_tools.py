"""Commands of the vendors' own tools that show a GPU's state. Pure.

https://docs.nvidia.com/deploy/nvidia-smi/ and
https://rocm.docs.amd.com/projects/amdsmi/en/latest/how-to/amdsmi-cli-tool.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from gpu_advisor.evaluation.actions import Action, run_command
from gpu_advisor.evaluation.facts import Gpu

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


def show_state(gpu: Gpu, state: State, *, alone: bool = False, note: str = "") -> Iterator[Action]:
    """Of all GPUs of its node, or of this one `alone`; nothing for vendors whose tool is not known."""
    command = _COMMANDS.get((gpu.vendor, state))
    if command:
        which = (_SELECT_ONE[gpu.vendor], gpu.index) if alone and gpu.index.isdigit() else ()
        yield run_command(*command[:2], *which, *command[2:], node=gpu.node, note=note)


def topology_command(gpu: Gpu) -> str:
    """What shows the paths between the GPUs of a node, and to its NICs."""
    return {"nvidia": "nvidia-smi topo -m", "amd": "amd-smi topology"}.get(gpu.vendor, "lspci -tv")
