"""Pending jobs as demand: only those count that ask for GPUs and would run if there were more."""

from __future__ import annotations

import re

from tests.polling import wait_until
from tests.slurm.cluster import SlurmCluster
from tests.slurm.node import SlurmNode


def test_only_eligible_jobs_that_ask_for_gpus(slurm: SlurmCluster, node: SlurmNode) -> None:
    blocker = slurm.submit("--nodes=2 --gres=gpu:4 --exclusive", user="bob")
    slurm.wait_state(blocker, "RUNNING")
    for options in (
        "--gres=gpu:h100:2 --job-name='a|b'", "--gpus=3", "--gpus-per-task=1 --ntasks=3",
        "--gpus-per-node=2 --nodes=2", "--gres=shard:1 --array=1-5%2",
    ):  # fmt: skip
        slurm.submit(options)
    slurm.submit("--gres=gpu:1 --hold")
    slurm.submit(f"--gres=gpu:1 --dependency=afterok:{blocker}")
    slurm.submit("--gres=gpu:1 --begin=now+1hour")
    slurm.submit("")  # no GPU
    expected = {("jobs", "gpu"): 6, ("gpus", "gpu"): 2 + 3 + 3 + 4}
    blocked = {"JobHeldUser": 1, "Dependency": 1, "BeginTime": 1}

    def read() -> tuple[dict[tuple[str, str], float], dict[str, float]]:
        page = node.program.text("/metrics")
        rows = re.findall(r'gpu_queue_eligible_(\w+)\{scheduler="slurm",partition="(\w+)"\} (\S+)', page)
        reasons = re.findall(r'gpu_queue_blocked_jobs\{.*,reason="(\w+)"\} (\S+)', page)
        return {(what, name): float(value) for what, name, value in rows}, {
            reason: float(value) for reason, value in reasons
        }

    wait_until(lambda: read() == (expected, blocked), f"{expected}, {blocked}", node, interval_seconds=0.3)
    slurm.run("squeue --format='%i %t %r %b'")
    slurm.transcript.append(f"pending as demand: {read()}\n")
    slurm.cancel_all()
    wait_until(lambda: read() == (dict.fromkeys(expected, 0), {}), "no job waits", node, interval_seconds=0.3)
