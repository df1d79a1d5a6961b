"""Node n1 of the cluster as the exporter sees it: simulated GPUs with the jobs' processes, and its owners."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import own_processes
from tests.polling import wait_until
from tests.servers import free_port
from tests.simulated_nvml.build import CONTROL_VARIABLE, build
from tests.simulated_nvml.control import Control, SimulatedGpu
from tests.slurm.cluster import NODES, SlurmCluster

#: A node asks the controller once a minute; tests do not wait for that.
SCONTROL_INTERVAL = "1s"
_ROW = re.compile(r"gpu_owner_info\{(?P<labels>.*)\} 1")

#: GPU index -> its owners: training_job, owner_step and whatever other label is not empty.
Owners = dict[int, list[dict[str, str]]]


@dataclass
class SlurmNode:
    slurm: SlurmCluster
    program: own_processes.Program
    control: Control

    def run_on(self, pids: Mapping[int, list[int]]) -> None:
        """Let these processes run on the GPUs with these indices, and no others."""
        for index, gpu in enumerate(self.control.gpus):
            gpu.pids = pids.get(index, [])
        self.control.write()

    def owners(self) -> Owners:
        found: Owners = {index: [] for index in NODES["n1"]}
        for match in _ROW.finditer(self.program.text("/metrics")):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            index = int(labels.pop("uuid")[-2:])
            found[index].append({name.removeprefix("owner_"): value for name, value in labels.items() if value})
        return found

    def allocated(self) -> dict[int, bool]:
        rows = re.findall(r'gpu_allocated\{uuid="[^"]*(\d\d)"\} ([01])', self.program.text("/metrics"))
        return {int(index): value == "1" for index, value in rows}

    def wait_owners(self, expected: Mapping[int, list[dict[str, str]]]) -> None:
        """Wait until each GPU has exactly these owners, of which only these labels count; GPUs not named have none."""

        def matches() -> bool:
            owners = self.owners()
            return all(_match(owners[index], expected.get(index, [])) for index in owners)

        wait_until(matches, f"owners are {expected}", self, interval_seconds=0.3)
        rows = [f"    GPU {index}: {row}" for index, found in self.owners().items() for row in found]
        self.slurm.transcript.append("owners:\n" + "\n".join(rows or ["    none"]) + "\n")

    def log(self) -> str:
        return f"\n{self.owners()}\n{self.allocated()}\n{self.program.log()}\n{self.slurm.logs()}"


def _match(found: list[dict[str, str]], expected: list[dict[str, str]]) -> bool:
    """Whether each expected owner is one of those found, and there are no more."""
    left = list(found)
    for wanted in expected:
        row = next((row for row in left if wanted.items() <= {**dict.fromkeys(wanted, ""), **row}.items()), None)
        if row is None:
            return False
        left.remove(row)
    return not left


@contextmanager
def node(slurm: SlurmCluster, folder: Path) -> Iterator[SlurmNode]:
    """The exporter on node n1, outside of the cluster's mount namespace."""
    scontrol = slurm.wrapper("scontrol", folder)
    for name in ("squeue", "sinfo"):
        slurm.wrapper(name, folder)
    control = Control(folder / "control", gpus=[SimulatedGpu() for _ in NODES["n1"]])
    control.write()
    build(folder / "nvml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(folder / "nvml"))
        patch.setenv(CONTROL_VARIABLE, str(folder / "control"))
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        arguments = (
            "--no-collector.host", "--node.name=n1", "--sampling.interval=1s", f"--path.rootfs={slurm.root}",
            f"--collector.owners.slurm-config={slurm.root}/etc/slurm", f"--collector.owners.scontrol={scontrol}",
            f"--collector.owners.scontrol-interval={SCONTROL_INTERVAL}", "--collector.slurm-queue",
            f"--collector.slurm-queue.interval={SCONTROL_INTERVAL}",
        )  # fmt: skip
        with own_processes.exporter(folder, f"127.0.0.1:{free_port()}", *arguments) as program:
            yield SlurmNode(slurm, program, control)
