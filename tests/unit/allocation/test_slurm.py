"""Requests as Slurm jobs: the nodes that match, the sbatch line, submission and the state of jobs.

`make test-slurm` submits them to a real Slurm.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpu_advisor.allocation.errors import (
    InvalidRequestError,
    NoInventoryError,
    TokenConflictError,
    UnknownAllocationError,
    UnsatisfiableRequestError,
)
from gpu_advisor.allocation.gpu_request import GpuRequest, parse_request
from gpu_advisor.allocation.slurm.backend import JobNotManagedError, SlurmBackend, SlurmError, run_command
from gpu_advisor.allocation.slurm.cluster_nodes import SlurmCluster, parse_cluster, parse_time_limit
from gpu_advisor.allocation.slurm.job_plan import JobPlan, build_job_plan
from gpu_advisor.allocation.slurm.sbatch import (
    JobOptions,
    content_hash,
    format_time_limit,
    job_arguments,
    parse_jobs,
    sbatch_options,
)
from gpu_advisor.commands import allocate
from gpu_advisor.observation.identity import jobs_by_gpu
from hypothesis import given
from hypothesis import strategies as st

PARTITIONS = """PartitionName=cpu Default=NO MaxTime=UNLIMITED State=UP
PartitionName=gpu AllowGroups=ALL Default=YES MaxTime=2-00:00:00 State=UP
PartitionName=long Default=NO MaxTime=UNLIMITED State=UP
PartitionName=old Default=NO MaxTime=UNLIMITED State=DOWN
"""


def node(
    name: str, gres: str, used: str = "", features: str = "(null)", partitions: str = "gpu", state: str = "IDLE"
) -> str:
    return (
        f"NodeName={name} Arch=x86_64 AvailableFeatures={features} ActiveFeatures={features} Gres={gres} "
        f"GresUsed={used} State={state} Partitions={partitions} Comment=not part=of it\n"
    )


def cluster(*nodes: str) -> SlurmCluster:
    return parse_cluster("".join(nodes), PARTITIONS)


def plan(
    text: str, inventory: SlurmCluster, partition: str = "", seconds: float | None = None, **fields: Any
) -> JobPlan:
    types = frozenset(gpus.gpu_type for gpus in inventory.gpus)
    return build_job_plan(replace(parse_request(text, types), **fields), inventory, partition, seconds)


def line(text: str, inventory: SlurmCluster, **fields: Any) -> str:
    """The options of the sbatch line, without the comment."""
    request = parse_request(text, frozenset(gpus.gpu_type for gpus in inventory.gpus))
    return shlex.join(sbatch_options(plan(text, inventory, **fields), request, JobOptions(), ())[:-1])


A100_80 = node("a1", "gpu:a100:8(S:0-1)", "gpu:a100:2(IDX:0-1)", "a100,gpu80gb")
A100_40 = node("a2", "gpu:a100:8", "gpu:a100:0(IDX:N/A)", "a100,gpu40gb")
T4 = node("t1", "gpu:t4:4", "gpu:t4:4(IDX:0-3)")


@pytest.mark.parametrize(
    ("gres", "features", "gpu_type", "memory"),
    [
        ("gpu:a100-sxm4-80gb:8", "", "A100", 80),
        ("gpu:nvidia_h100_80gb_hbm3:8(S:0)", "", "H100", 80),
        ("gpu:tesla_v100-sxm2-32gb:4", "", "V100", 32),
        ("gpu:t4:1", "", "T4", 16),
        ("gpu:a100:8", "", "A100", None),  # there are two sizes
        ("gpu:a100:8", "ib,gpu_mem:80gb", "A100", 80),
        ("gpu:a100:8", "a100_40gb", "A100", 40),
        ("gpu:a100:8", "gpu40gb,gpu80gb", "A100", None),
        ("gpu:a100:8", "512gb", "A100", None),  # the node's memory
        ("gpu:8", "v100,32gb,ib", "V100", None),
        ("gpu:8", "v100,a100", "", None),
        ("gpu:mi250x:8", "", "MI250X", 128),
        ("gpu:a100_3g.20gb:2", "", "A100MIG", 20),
        ("gpu:1g.10gb:7", "", "MIG", 10),
    ],
)
def test_type_and_memory_of_a_node(gres: str, features: str, gpu_type: str, memory: float | None) -> None:
    (gpus,) = cluster(node("n", gres, features=features or "(null)")).gpus
    assert (gpus.gpu_type, gpus.memory_gb) == (gpu_type, memory)


@pytest.mark.parametrize(
    ("used", "free"),
    [
        ("gpu:h100:3(IDX:0-2)", 5),
        ("gpu:h100:0(IDX:N/A)", 8),
        ("gpu:h100:2(IDX:0-1),shard:h100:3(IDX:2-3)", 4),
        ("gpu:h100:2(IDX:0-1),shard:h100:3(-/4,-/4,3/4,0/4)", 5),
    ],
)
def test_free_gpus(used: str, free: int) -> None:
    (gpus,) = cluster(node("n", "gpu:h100:8,shard:h100:32,nic:1", used)).gpus
    assert gpus.free == free


@pytest.mark.parametrize(
    ("state", "usable"),
    [("IDLE", True), ("MIXED", True), ("ALLOCATED+COMPLETING", True), ("IDLE+CLOUD+POWERED_DOWN", True),
     ("IDLE*", False), ("MIXED+DRAIN", False), ("DOWN*+CLOUD", False), ("IDLE+MAINTENANCE", False),
     ("UNKNOWN", False), ("IDLE+NOT_RESPONDING", False)],
)  # fmt: skip
def test_states_of_nodes(state: str, usable: bool) -> None:
    (gpus,) = cluster(node("n", "gpu:4", state=state)).gpus
    assert (not gpus.unavailable_reason) is usable
    assert gpus.free == (4 if usable else 0)


def test_nodes_without_gpus_and_with_two_types() -> None:
    found = cluster(node("c", "(null)"), node("n", "gpu:a100:2,gpu:t4:1", "gpu:a100:1(IDX:0),gpu:t4:0(IDX:N/A)")).gpus
    assert [(gpus.node, gpus.gres_type, gpus.count, gpus.free) for gpus in found] == [
        ("n", "a100", 2, 1),
        ("n", "t4", 1, 1),
    ]


# Plans


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        # the GRES type selects, or a feature that only matching nodes have
        ("2xT4", {}, "--gres=gpu:t4:2 --nodes=1"),
        ("2xA100", {}, "--gres=gpu:a100:2 --nodes=1"),
        ("2xA100-80GB", {}, "--gres=gpu:a100:2 --nodes=1 --constraint=gpu80gb"),
        ("4x40GB", {}, "--gres=gpu:a100:4 --nodes=1"),
        # a gang has GPUs of one kind
        ("16xA100-40GB", {"distributed_training": True}, None),
        # any GPU: whatever the node
        ("nvidia.com/gpu: 1", {"vendor": ""}, "--gres=gpu:1 --nodes=1"),
    ],
)  # fmt: skip
def test_options_for_a_request(text: str, fields: dict[str, Any], expected: str | None) -> None:
    inventory = cluster(A100_80, A100_40, T4)
    if expected is None:
        with pytest.raises(UnsatisfiableRequestError, match="of one kind"):
            line(text, inventory, **fields)
    else:
        assert line(text, inventory, **fields) == expected


def test_gang_on_several_nodes() -> None:
    inventory = cluster(*(node(f"h{i}", "gpu:h100:8") for i in range(3)), node("h9", "gpu:h100:4"))
    assert line("24xH100", inventory, distributed_training=True) == "--gres=gpu:h100:8 --nodes=3 --ntasks-per-node=1"
    assert line("12xH100", inventory, distributed_training=True) == "--gres=gpu:h100:6 --nodes=2 --ntasks-per-node=1"
    assert line("8xH100", inventory, distributed_training=True) == "--gres=gpu:h100:8 --nodes=1"
    with pytest.raises(UnsatisfiableRequestError, match="set distributed_training") as error:
        line("24xH100", inventory)
    assert "h9: 4 of 4 gpu:h100 are free" in error.value.reasons
    with pytest.raises(UnsatisfiableRequestError, match="equal parts"):
        line("29xH100", inventory, distributed_training=True)


def test_nodes_that_nothing_distinguishes_are_excluded() -> None:
    inventory = cluster(node("a1", "gpu:8", features="v100,gpu32gb"), node("a2", "gpu:8", features="v100"))
    assert line("V100-32GB", inventory) == "--gres=gpu:1 --nodes=1 --constraint=gpu32gb"
    bare = cluster(node("a1", "gpu:8", features="v100"), node("a2", "gpu:8", features="t4,v100,x"))
    assert line("V100", bare) == "--gres=gpu:1 --nodes=1 --exclude=a2"


def test_several_features_are_alternatives() -> None:
    inventory = cluster(
        node("a1", "gpu:8", features="rack1,v100"), node("a2", "gpu:8", features="rack2,v100"),
        node("a3", "gpu:8", features="rack3,t4"),
    )  # fmt: skip
    assert line("V100", inventory) == "--gres=gpu:1 --nodes=1 --constraint=v100"


def test_partitions() -> None:
    elsewhere = cluster(node("h1", "gpu:h100:8", partitions="long,cpu"), T4)
    assert line("H100", elsewhere) == "--gres=gpu:h100:1 --nodes=1 --partition=cpu,long"
    assert line("H100", elsewhere, partition="long") == "--gres=gpu:h100:1 --nodes=1 --partition=long"
    assert line("H100", elsewhere, seconds=90.0) == "--gres=gpu:h100:1 --nodes=1 --partition=cpu,long --time=00:02:00"
    with pytest.raises(UnsatisfiableRequestError) as error:
        line("H100", elsewhere, partition="gpu")
    assert "h1: it is in no partition that the job may use" in error.value.reasons
    with pytest.raises(InvalidRequestError, match="known are cpu, gpu, long, old"):
        line("H100", elsewhere, partition="gpus")
    with pytest.raises(InvalidRequestError, match="longest job may take 172800"):
        line("T4", elsewhere, partition="gpu", seconds=3 * 86400.0)
    closed = cluster(node("h1", "gpu:h100:8", partitions="old"))
    with pytest.raises(UnsatisfiableRequestError):
        line("H100", closed)
    both = cluster(node("h1", "gpu:h100:8", partitions="gpu,long"))
    assert line("H100", both, seconds=3 * 86400.0).endswith("--partition=long --time=3-00:00:00"), (
        "the default is too short"
    )


@pytest.mark.parametrize(
    ("text", "fields", "reason"),
    [
        ("H100", {}, "its GPUs are T4"),
        ("amd.com/gpu: 1", {}, "its GPUs are by nvidia"),
        ("T4", {"memory_gb": 24.0}, "its GPUs have 16 GB"),
    ],
)
def test_request_that_no_node_can_serve(text: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsatisfiableRequestError) as error:
        plan(text, cluster(T4), **fields)
    assert any(reason in each for each in error.value.reasons)


def test_requests_that_are_refused() -> None:
    with pytest.raises(NoInventoryError, match="GresTypes"):
        plan("T4", cluster(node("c", "(null)")))
    with pytest.raises(InvalidRequestError, match="cpu_fallback"):
        plan("T4", cluster(T4), cpu_fallback=True)
    unknown = cluster(node("n", "gpu:a100:8"))
    with pytest.raises(UnsatisfiableRequestError) as error:
        plan("A100-80GB", unknown)
    assert "n: neither its GRES nor a feature has the memory of its GPUs" in error.value.reasons


def test_whether_it_would_start_now() -> None:
    assert plan("6xA100-80GB", cluster(A100_80)).fits_now
    assert not plan("7xA100-80GB", cluster(A100_80)).fits_now
    assert not plan("T4", cluster(T4)).fits_now
    two = cluster(node("a", "gpu:h100:8", "gpu:h100:1(IDX:0)"), node("b", "gpu:h100:8"))
    assert not plan("16xH100", two, distributed_training=True).fits_now


KINDS = st.sampled_from(["gpu:a100:8", "gpu:h100:4", "gpu:t4:2", "gpu:4", "gpu:a100-sxm4-40gb:8", "gpu:a100_1g.5gb:7"])
STATES = st.sampled_from(["IDLE", "MIXED", "DOWN", "IDLE+DRAIN"])
FEATURES = st.sampled_from(["(null)", "a100,gpu80gb", "gpu40gb", "t4", "v100"])


@given(
    st.lists(st.tuples(KINDS, STATES, FEATURES, st.sampled_from(["gpu", "long", "gpu,long"])), min_size=1, max_size=6),
    st.integers(1, 24), st.sampled_from(["A100", "H100", "T4", "V100", "nvidia.com/gpu"]),
    st.sampled_from([None, 16.0, 40.0, 80.0]), st.booleans(),
)  # fmt: skip
def test_a_plan_reaches_only_nodes_that_match(
    drawn: list[tuple[str, str, str, str]], count: int, kind: str, memory: float | None, distributed: bool
) -> None:
    """sbatch's own rules, applied to the plan: every node that it could choose has GPUs as requested."""
    inventory = cluster(
        *(node(f"n{i}", gres, features=features, state=state, partitions=partitions)
          for i, (gres, state, features, partitions) in enumerate(drawn))
    )  # fmt: skip
    request = replace(parse_request(f"{count}x{kind}" if "/" not in kind else f"{kind}: {count}"), memory_gb=memory,
                      distributed_training=distributed)  # fmt: skip
    try:
        found = build_job_plan(request, inventory)
    except (UnsatisfiableRequestError, NoInventoryError):
        return
    assert found.nodes * found.gpus_per_node == count
    assert found.nodes == 1 or distributed
    reachable = [
        gpus for gpus in inventory.gpus
        if not gpus.unavailable_reason and gpus.node not in found.excluded
        and (not found.gres_type or gpus.gres_type == found.gres_type)
        and (not found.features or gpus.features & set(found.features))
        and gpus.partitions & (set(found.partitions) or {"gpu"})
        and gpus.count >= found.gpus_per_node
    ]  # fmt: skip
    assert len({gpus.node for gpus in reachable}) >= found.nodes
    for gpus in reachable:
        assert not request.gpu_type or gpus.gpu_type == request.gpu_type
        assert request.memory_gb is None or (gpus.memory_gb or 0) >= request.memory_gb
    if found.nodes > 1:
        assert len({(gpus.gpu_type, gpus.memory_gb) for gpus in reachable}) == 1, "a gang has GPUs of one kind"


def test_gpu_of_an_unknown_job_is_not_leased() -> None:
    """The exporter knows that Slurm has allocated it, not to which job."""
    rows = [
        {"uuid": "a", "owner_kind": "slurm"},
        {"uuid": "b", "owner_kind": "slurm", "training_job": "7"},
        {"uuid": "c", "owner_kind": "user", "owner_user": "ada"},
    ]
    assert jobs_by_gpu(tuple(row.items()) for row in rows) == {"a": "slurm", "b": "7"}


# The line


def test_what_the_job_runs() -> None:
    one = plan("2xT4", cluster(T4))
    two = replace(one, nodes=2)
    assert job_arguments(one, ("python", "train.py", "--name", "a b"), is_script=False) == [
        "--wrap=python train.py --name 'a b'"
    ]
    assert job_arguments(two, ("python", "train.py"), is_script=False) == ["--wrap=srun python train.py"]
    assert job_arguments(two, ("train.sh", "x"), is_script=True) == ["train.sh", "x"]
    assert job_arguments(two, (), is_script=False) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "00:01:00"), (60, "00:01:00"), (61, "00:02:00"), (7200, "02:00:00"), (90_000, "1-01:00:00")],
)
def test_time_limits(seconds: float, text: str) -> None:
    assert format_time_limit(seconds) == text


@given(st.integers(1, 10**7))
def test_time_limit_is_at_least_what_was_asked_for(seconds: int) -> None:
    read = parse_time_limit(format_time_limit(seconds))
    assert read is not None
    assert seconds <= read < seconds + 60 or read == 60


def test_jobs_in_the_output_of_squeue() -> None:
    text = (
        "12|RUNNING|None|2|n[1-2]|gres:gpu:h100:4|1:00:00|2026-01-01T10:00:00|gpu-advisor:run-17:abc|a|b\n"
        "13|PENDING|Resources|1||gres/gpu:1|UNLIMITED|N/A|gpu-advisor::def|train\n"
        "14|RUNNING|None|1|n1|gpu:1|1:00|N/A|(null)|other\ncut short\n"
    )
    running, waiting = parse_jobs(text)
    assert (running.id, running.node_list, running.gres, running.token, running.content_hash, running.name) == (
        "12", "n[1-2]", "gpu:h100:4", "run-17", "abc", "a|b",
    )  # fmt: skip
    assert (waiting.state, waiting.reason, waiting.time_left, waiting.starts, waiting.token) == (
        "PENDING", "Resources", "", "", "",
    )  # fmt: skip


# The backend and the command


class FakeSlurm:
    """Stands in for Slurm's programs."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = "".join(nodes)
        self.calls: list[tuple[str, ...]] = []
        self.queue: list[str] = []
        self.other_jobs = ""

    def __call__(self, command: Sequence[str]) -> str:
        self.calls.append(tuple(command))
        if command[0] == "scontrol":
            return self.nodes if command[-1] == "nodes" else PARTITIONS
        if command[0] == "sbatch":
            comment = next(part for part in command if part.startswith("--comment=")).removeprefix("--comment=")
            self.queue.append(f"77|PENDING|None|1||gpu:1|1:00|N/A|{comment}|job\n")
            return "77;cluster\n"
        if command[0] == "squeue":
            return "".join(self.queue) if "|" in command[-1] else self.other_jobs
        return ""


REQUEST = GpuRequest(gpu_type="T4")


def test_submission_is_idempotent_by_token() -> None:
    slurm = FakeSlurm(T4)
    backend = SlurmBackend(slurm)
    made = build_job_plan(REQUEST, backend.cluster())
    options = JobOptions(token="run-1")
    first = backend.submit(made, REQUEST, options, ("train",))
    assert (first.id, first.created) == ("77", True)
    again = backend.submit(made, REQUEST, options, ("train",))
    assert (again.id, again.created) == ("77", False)
    with pytest.raises(TokenConflictError, match="job 77"):
        backend.submit(made, REQUEST, options, ("other",))
    with pytest.raises(TokenConflictError):
        backend.submit(made, replace(REQUEST, gpu_count=2), options, ("train",))
    assert sum(call[0] == "sbatch" for call in slurm.calls) == 1
    backend.submit(made, REQUEST, JobOptions(), ("train",))
    backend.submit(made, REQUEST, JobOptions(), ("train",))
    assert sum(call[0] == "sbatch" for call in slurm.calls) == 3, "without a token, each is a job of its own"


def test_submission_needs_a_command_and_a_plain_token() -> None:
    backend = SlurmBackend(FakeSlurm(T4))
    made = build_job_plan(REQUEST, backend.cluster())
    with pytest.raises(InvalidRequestError, match=r"-- python train\.py"):
        backend.submit(made, REQUEST, JobOptions(), ())
    with pytest.raises(InvalidRequestError, match="token"):
        backend.submit(made, REQUEST, JobOptions(token="a|b"), ("train",))


def test_cancellation() -> None:
    slurm = FakeSlurm(T4)
    slurm.queue.append(f"12|RUNNING|None|1|n|gpu:1|1:00|N/A|gpu-advisor:t:{content_hash(REQUEST, ())}|job\n")
    slurm.other_jobs = "12\n13\n"
    backend = SlurmBackend(slurm)
    with pytest.raises(JobNotManagedError, match="scancel 13"):
        backend.cancel("13")
    for job in ("14", "--signal=9", "12 13"):
        with pytest.raises(UnknownAllocationError):
            backend.cancel(job)
    assert not any(call[0] == "scancel" for call in slurm.calls)
    backend.cancel("12")
    assert slurm.calls[-1] == ("scancel", "12")


def test_programs_that_are_missing_or_fail(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="login node"):
        run_command([str(tmp_path / "sbatch")])
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho noise >&2; echo 'sbatch: error: Invalid account' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(SlurmError, match="Invalid account"):
        run_command([str(program)])


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(A100_80, A100_40, T4)
    monkeypatch.setattr(allocate, "SlurmBackend", lambda: SlurmBackend(fake))
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(allocate.command, ["--backend", "slurm", *arguments])


def test_command_prints_the_line(slurm: FakeSlurm) -> None:
    result = run("2xA100", "--memory-gb", "80", "--lease", "7200", "--account", "lab", "--job-name", "fine tune")
    words = shlex.split(result.stdout)
    assert words[:-1] == [
        "sbatch", "--gres=gpu:a100:2", "--nodes=1", "--constraint=gpu80gb", "--time=02:00:00", "--job-name=fine tune",
        "--account=lab",
    ]  # fmt: skip
    assert not any(call[0] == "sbatch" for call in slurm.calls)
    document = json.loads(run("2xA100", "--format", "json").stdout)
    assert (document["nodes"], document["gpus_per_node"], document["command"].split()[0]) == (1, 2, "sbatch")


def test_command_submits_a_script(slurm: FakeSlurm, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n")
    result = run("T4", "--submit", "--", str(script), "--epochs", "3")
    assert result.stdout == "77\n"
    assert "will wait in the queue" in result.stderr
    assert slurm.calls[-1][:2] == ("sbatch", "--parsable")
    assert slurm.calls[-1][-3:] == (str(script), "--epochs", "3")
    run("T4", "--submit", "--", "python", "train.py")
    assert slurm.calls[-1][-1] == "--wrap=python train.py"


def test_command_lists_jobs_and_nodes(slurm: FakeSlurm) -> None:
    assert run("--list").stdout == "No jobs.\n"
    run("T4", "--submit", "--token", "t", "--", "x")
    assert run("--list").stdout.splitlines()[1].split()[:2] == ["77", "PENDING"]
    rows = json.loads(run("--nodes", "--format", "json").stdout)
    assert [(row["node"], row["type"], row["memory_gb"], row["free"]) for row in rows] == [
        ("a1", "A100", 80.0, 6), ("a2", "A100", 40.0, 8), ("t1", "T4", 16.0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "slurm", "T4", "--submit"), "--submit needs what the job runs"),
        (("--backend", "slurm", "--renew", "77"), "not renewed"),
        (("--backend", "slurm", "T4", "--list"), "exactly one"),
        (("--backend", "slurm", "T4", "--cpu-fallback"), "cpu_fallback"),
        (("--backend", "slurm", "H200"), "no node of the cluster matches"),
        (("--backend", "slurm", "--release", "78"), "no job 78"),
        (("T4", "--submit"), "--submit is for --backend slurm"),
        (("T4", "--", "python"), "COMMAND is for --backend slurm"),
    ],
)
def test_arguments_that_are_refused(slurm: FakeSlurm, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(allocate.command, list(arguments))
    assert result.exit_code
    assert message in " ".join(result.output.split())
