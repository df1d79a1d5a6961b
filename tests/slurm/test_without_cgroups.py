"""Slurm 26.05 that puts jobs into no cgroups (proctrack/linuxproc): the parents of processes, and the controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster, cluster
from tests.slurm.conftest import CACHE
from tests.slurm.node import SlurmNode
from tests.slurm.node import node as run_node


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    if not CACHE:
        pytest.skip("needs root and a minimal Debian: make test-slurm")
    with cluster(Path(CACHE) / "26.05.tar", tmp_path_factory.mktemp("slurm"), "none") as running:
        yield running
        (Path(CACHE) / "transcript-without-cgroups.txt").write_text("\n".join(running.transcript))


@pytest.fixture(scope="module")
def node(slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    with run_node(slurm, tmp_path_factory.mktemp("node")) as running:
        yield running


def test_processes_and_allocations(slurm: SlurmCluster, node: SlurmNode) -> None:
    job = slurm.submit("--nodelist=n1 --gres=gpu:2", "echo $$ > pid-batch; (sleep 600 & echo $! > pid-child; wait)")
    step = slurm.submit(
        "--nodelist=n1 --gres=gpu:1", "srun --gres=gpu:1 sh -c 'echo $$ > pid-step; exec sleep 600'", "bob"
    )
    slurm.wait_pid("pid-batch")
    child, other = slurm.wait_pid("pid-child"), slurm.wait_pid("pid-step")
    assert "step_" not in Path(f"/proc/{child}/cgroup").read_text()
    node.run_on({1: [child], 2: [other]})
    node.wait_owners({
        0: [{"training_job": job, "user": "ada", "step": ""}],
        1: [{"training_job": job, "user": "ada", "step": "batch", "partition": "gpu"}],
        2: [{"training_job": step, "user": "bob", "step": "0"}],
    })  # fmt: skip
    assert node.allocated() == {0: True, 1: True, 2: True, 3: False}
    slurm.cancel_all()
    node.wait_owners({})
