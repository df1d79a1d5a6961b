"""`gpu-advisor allocate --backend slurm` on a real Slurm: printed, submitted, listed, cancelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpu_advisor.commands.allocate import command

from tests.polling import wait_until
from tests.slurm.cluster import NODES, SlurmCluster

Allocate = Callable[..., Result]


@pytest.fixture
def allocate(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Allocate:
    """Runs the command with the cluster's programs on PATH."""
    for program in ("scontrol", "sbatch", "squeue", "scancel"):
        slurm.wrapper(program, tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin:/usr/sbin:/sbin")

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(command, ["--backend", "slurm", *arguments])
        shown = " ".join(arguments)
        slurm.transcript.append(f"gpu-advisor allocate --backend slurm {shown}\n{result.output}")
        return result

    return run


def jobs(allocate: Allocate) -> list[dict[str, Any]]:
    return list(json.loads(allocate("--list", "--format", "json").stdout))


def test_line_is_accepted_by_sbatch(slurm: SlurmCluster, allocate: Allocate) -> None:
    line = allocate("2xH100-80GB", "--lease", "7200", "--job-name", "fine tune").stdout.strip()
    assert "--gres=gpu:h100:2" in line
    assert "--time=02:00:00" in line
    job = slurm.run(f"{line} --parsable --wrap 'sleep 60'")
    slurm.wait_state(job, "RUNNING")
    shown = slurm.run(f"scontrol show job {job}")
    assert "JobName=fine tune" in shown
    assert "TimeLimit=02:00:00" in shown


def test_submitted_job_is_listed_and_cancelled(slurm: SlurmCluster, allocate: Allocate) -> None:
    arguments = ("H100", "--submit", "--token", "run-17", "--job-name", "train", "--", "sleep", "600")
    job = allocate(*arguments).stdout.strip().splitlines()[0]
    slurm.wait_state(job, "RUNNING")
    (listed,) = jobs(allocate)
    assert (listed["id"], listed["state"], listed["gres"], listed["token"]) == (job, "RUNNING", "gpu:h100:1", "run-17")
    assert listed["node_list"] in ("n1", "n2")
    assert allocate(*arguments).stdout.strip().splitlines()[0] == job, "the same token is the same job"
    other = allocate(*arguments[:-1], "700")
    assert other.exit_code == 1
    assert "another command" in other.output
    assert allocate("--release", job).exit_code == 0
    slurm.wait_state(job, "")
    assert jobs(allocate) == []


def test_gang_on_two_nodes(slurm: SlurmCluster, allocate: Allocate) -> None:
    refused = allocate("8xH100", "--submit", "--", "hostname")
    assert refused.exit_code == 1
    assert "distributed_training" in refused.output
    submitted = allocate("8xH100", "--distributed", "--submit", "--", "sh", "-c", "hostname; sleep 600")
    job = submitted.stdout.strip().splitlines()[0]
    assert "--nodes=2 --ntasks-per-node=1" in submitted.output
    slurm.wait_state(job, "RUNNING")
    assert slurm.run(f"squeue --noheader --jobs={job} --format='%D %N'") == "2 n[1-2]"
    assert slurm.run(f"scontrol -d show job {job} | grep -c 'GRES=gpu:h100:4'") == "1"
    (listed,) = jobs(allocate)
    assert (listed["nodes"], listed["node_list"]) == (2, "n[1-2]")
    assert "--nodes=1" in allocate("4xH100", "--distributed", "--dry-run").output, "as few nodes as possible"


def test_waiting_job_shows_why(slurm: SlurmCluster, allocate: Allocate) -> None:
    for name in NODES:
        slurm.wait_state(slurm.submit(f"--nodelist={name} --gres=gpu:1"), "RUNNING")
    result = allocate("4xH100", "--submit", "--", "sleep", "600")
    job = result.stdout.strip().splitlines()[0]
    assert "will wait in the queue" in result.output
    slurm.wait_state(job, "PENDING")
    wait_until(lambda: jobs(allocate)[0]["reason"] in ("Resources", "Priority"), "the reason is known", slurm)
    (listed,) = jobs(allocate)
    assert (listed["state"], listed["node_list"]) == ("PENDING", "")


def test_only_own_jobs_are_cancelled(slurm: SlurmCluster, allocate: Allocate) -> None:
    job = slurm.submit("--gres=gpu:1", user="root")
    slurm.wait_state(job, "RUNNING")
    refused = allocate("--release", job)
    assert refused.exit_code == 1
    assert "not submitted by gpu-advisor" in refused.output
    assert slurm.state(job) == "RUNNING"


def test_nodes_and_their_free_gpus(slurm: SlurmCluster, allocate: Allocate) -> None:
    job = slurm.submit("--nodelist=n1 --gres=gpu:1")
    shard = slurm.submit("--nodelist=n1 --gres=shard:1")
    for each in (job, shard):
        slurm.wait_state(each, "RUNNING")
    nodes = {row["node"]: row for row in json.loads(allocate("--nodes", "--format", "json").stdout)}
    assert {name: (row["type"], row["memory_gb"], row["free"], row["gpus"]) for name, row in nodes.items()} == {
        "n1": ("H100", 80.0, 2, 4),
        "n2": ("H100", 80.0, 4, 4),
    }
    unknown = allocate("A100")
    assert unknown.exit_code == 1
    assert "its GPUs are H100" in unknown.output
