"""Commands that keep new work off a node. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.policies.command_names import names_one


def drain_node(gpu: Gpu, reason: str) -> Iterator[Action]:
    """For Kubernetes and for Slurm; a node whose name stands for others, too, has no command."""
    if not names_one("host", gpu.host):
        yield from notes("keep new work off the node, then drain it; its name does not identify a single host")
        return
    yield run_command("kubectl", "cordon", gpu.host, node=gpu.node, note="then drain it; on Slurm instead:")
    yield run_command("scontrol", "update", f"nodename={gpu.host}", "state=drain", f"reason={reason}", node=gpu.node)
