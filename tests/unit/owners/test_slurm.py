"""Slurm's jobs on a node: cgroups, environment, GRES, the controller's answers, and what follows from all of them.

`make test-slurm` runs the same against a real Slurm; here are what that cannot show, and the limits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from gpu_exporter.owners import scontrol
from gpu_exporter.owners.device_ids import DeviceIdResolver
from gpu_exporter.owners.scontrol import (
    ScontrolAnswer,
    ScontrolClient,
    ScontrolError,
    ScontrolJob,
    ScontrolQuery,
    parse_answer,
)
from gpu_exporter.owners.slurm_allocations import GpuIndices, slurm_allocations
from gpu_exporter.owners.slurm_cgroups import REREAD_SECONDS, SEARCH_SECONDS, NodeJob, SlurmCgroups
from gpu_exporter.owners.slurm_environment import JobDetails, gpus_of_step, parse_environment
from gpu_exporter.owners.slurm_gres import (
    GresConf,
    expand_hostlist,
    parse_device_list,
    parse_gres,
    parse_gres_conf,
    parse_indices,
)
from gpu_exporter.owners.slurm_node import GresConfFile
from gpu_exporter.owners.slurm_queue import PendingJob, SlurmQueueCollector, parse_queue
from gpu_exporter.snapshot import DeviceIdentity
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.owners.fake_proc import FakeProc

SLUID = "s3A9M8KZQ0N500"


def environ(**variables: str) -> bytes:
    return "".join(f"SLURM_{name}={value}\0" for name, value in variables.items()).encode() + b"PATH=/bin\0"


# The environment


def test_environment_of_an_array_task() -> None:
    found = parse_environment(environ(
        JOB_ID="9", JOB_SLUID=SLUID, STEP_ID="4294967291", JOB_UID="1000", JOB_NAME="fine tune", JOB_USER="ada",
        JOB_ACCOUNT="lab", JOB_PARTITION="gpu", ARRAY_JOB_ID="6", ARRAY_TASK_ID="1", JOB_GPUS="0,2-3",
    ))  # fmt: skip
    assert found
    assert (found.job, found.sluid, found.step, found.uid) == ("9", SLUID, "batch", "1000")
    assert found.details == JobDetails("fine tune", "ada", "lab", "gpu", "6_1")
    assert (found.job_gpus, found.step_gpus) == (frozenset({0, 2, 3}), None)


@pytest.mark.parametrize(("job", "component"), [("93", "93+0"), ("94", "93+1"), ("7", "")])
def test_environment_of_a_heterogeneous_job(job: str, component: str) -> None:
    found = parse_environment(environ(JOB_ID=job, HET_SIZE="2", JOB_ID_HET_GROUP_0="93", JOB_ID_HET_GROUP_1="94"))
    assert found
    assert found.details.array_task == component


@pytest.mark.parametrize(
    ("text", "step"),
    [("0", "0"), ("17", "17"), ("-5", "batch"), ("-4", "extern"), ("4294967290", "interactive"), ("-1", ""), ("x", ""),
     ("", "")],
)  # fmt: skip
def test_names_of_steps(text: str, step: str) -> None:
    found = parse_environment(environ(JOBID="7", STEP_ID=text))
    assert found
    assert found.step == step


@pytest.mark.parametrize("text", [b"", b"PATH=/bin\0", environ(JOB_ID="x"), environ(JOB_ID=""), environ(JOB_NAME="a")])
def test_environment_without_a_job(text: bytes) -> None:
    assert parse_environment(text) is None


@given(st.binary())
def test_any_environment_is_parsed(text: bytes) -> None:
    found = parse_environment(b"SLURM_JOB_ID=1\0" + text)
    assert found is None or found.job.isdigit()


def test_only_a_batch_script_knows_all_gpus_of_its_job() -> None:
    """A step on another node inherits SLURM_JOB_GPUS of the batch script's node."""
    batch = parse_environment(environ(JOB_ID="1", JOB_GPUS="0,1"))
    step = parse_environment(environ(JOB_ID="1", JOB_GPUS="0,1", STEP_GPUS="3"))
    cpu = parse_environment(environ(JOB_ID="1"))
    assert batch
    assert step
    assert cpu
    assert gpus_of_step(batch, "batch") == frozenset({0, 1})
    assert gpus_of_step(batch, "0") is None
    assert gpus_of_step(step, "0") == frozenset({3})
    assert gpus_of_step(batch, "interactive") == frozenset({0, 1})
    assert gpus_of_step(cpu, "batch") == frozenset()
    assert gpus_of_step(cpu, "0") is None


# GRES


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("gpu:h100:2(IDX:2-3)", {2, 3}),
        ("gpu:2(IDX:0,3)", {0, 3}),
        ("gpu:a100:1(IDX:0),gpu:t4:2(IDX:2-3),nic:1(IDX:9)", {0, 2, 3}),
        ("gpu:(null):4(IDX:0-3)", {0, 1, 2, 3}),  # a GPU without a type, of several versions
        ("gpu:h100:0(IDX:N/A)", set()),
        ("gpu:0", set()),
        ("gpu:h100:2(IDX:0-1),shard:h100:1(IDX:2)", {0, 1, 2}),  # until 23.02
        ("gpu:h100:3(IDX:0-1,3),shard:h100:2(-/2,-/2,2/2,-/2)", {0, 1, 2, 3}),
        ("shard:1(0/2,0/2,1/2,0/2)", {2}),
        ("gpu:h100:0(IDX:N/A),mps:200(0/100,200/200)", {1}),
        ("shard:a100:1(1/4,0/4),shard:t4:1(1/4)", None),  # which index the second type starts with is not known
        ("gpu:h100:2", None),
        ("gpu:h100(CNT:2)", None),
        ("gpu:2(IDX:zero)", None),
        ("", set()),
        ("(null)", set()),
    ],
)
def test_gres_of_jobs_and_nodes(text: str, indices: set[int] | None) -> None:
    assert parse_gres(text) == (None if indices is None else frozenset(indices))


@given(st.sets(st.integers(0, 99), min_size=1))
def test_indices_are_read_as_they_are_written(numbers: set[int]) -> None:
    assert parse_indices(",".join(map(str, sorted(numbers)))) == frozenset(numbers)


@given(st.text())
def test_any_text_is_a_list_or_not(text: str) -> None:
    parse_indices(text)
    parse_gres(text)
    expand_hostlist(text)
    parse_gres_conf(text, "n1")
    parse_queue(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3,7],gpu[08-10]x", ["n1", "n2", "n3", "n7", "gpu08x", "gpu09x", "gpu10x"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("/dev/nvidia[0-1]", ["/dev/nvidia0", "/dev/nvidia1"]),
        ("n[1-99999999]", ["n[1-99999999]"]),
        ("n[a-b]", ["n[a-b]"]),
    ],
)
def test_hostlists(text: str, names: list[str]) -> None:
    assert expand_hostlist(text) == names


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("c 1:3 rwm\nc 195:0 rwm\nc 195:255 rw\nb 8:0 r\nc 136:* rwm\n", {(1, 3), (195, 0), (195, 255)}),
        ("a *:* rwm\n", None),
        ("", set()),
    ],
)
def test_device_cgroup(text: str, devices: set[tuple[int, int]] | None) -> None:
    assert parse_device_list(text) == devices


GRES_CONF = """
# all nodes
AutoDetect=nvml   # finds them
NodeName=n[1-2] AutoDetect=off Name=gpu Type=h100 File=/dev/nvidia[2-3] \\
    Cores=0-7
NodeName=n1 name=GPU file=/dev/nvidia0
NodeName=n1 Name=gpu Type=1g MultipleFiles=/dev/nvidia1,/dev/nvidia-caps/nvidia-cap[21-22]
NodeName=n9 Name=gpu File=/dev/nvidia9
Name=shard Count=8
"""


def test_gres_conf_of_a_node() -> None:
    mig = ("/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22")
    assert parse_gres_conf(GRES_CONF, "n1") == GresConf(
        (("/dev/nvidia2",), ("/dev/nvidia3",), ("/dev/nvidia0",), mig), "off"
    )
    assert parse_gres_conf(GRES_CONF, "n2.cluster.example") == GresConf((("/dev/nvidia2",), ("/dev/nvidia3",)), "off")
    assert parse_gres_conf(GRES_CONF, "n5") == GresConf((), "nvml")


def test_gres_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = GresConfFile((tmp_path / "none", tmp_path))
    assert file.read("n1", 0) is None
    (tmp_path / "gres.conf").write_text("Name=gpu File=/dev/nvidia0\n")
    assert file.read("n1", 59) is None
    assert file.read("n1", 60) == GresConf((("/dev/nvidia0",),))
    (tmp_path / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-1]\n")
    found = file.read("n1", 120)
    assert found
    assert len(found.files) == 2


# Cgroups


class FakeCgroups:
    """The cgroups of slurmd below a fake /sys."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "sys/fs/cgroup"
        self.root.mkdir(parents=True)
        self.proc = FakeProc(tmp_path / "proc")
        self.slurm = SlurmCgroups(tmp_path / "proc", tmp_path / "sys", "n1")

    def task(self, path: str, pid: int, environment: Mapping[str, str] | None = None, uid: int = 1000) -> None:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(f"{pid}\n")
        self.proc.add(pid, uid=uid, environ=environment)

    def stepd(self, step: str, pid: int, title: str) -> None:
        folder = self.root / step / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(f"{pid}\n")
        self.proc.add(pid, uid=0, title=title)

    def job(self, now: float = 0.0) -> NodeJob:
        (job,) = self.slurm.jobs(now).values()
        return job


@pytest.fixture
def cgroups(tmp_path: Path) -> FakeCgroups:
    return FakeCgroups(tmp_path)


SCOPE = "system.slice/slurmstepd.scope"


def test_v1_job_with_listed_devices(cgroups: FakeCgroups) -> None:
    job = "devices/slurm_n1/uid_1000/job_42"
    cgroups.task(f"{job}/step_batch/task_0", 10)
    (cgroups.root / job / "devices.list").write_text("c 195:1 rwm\nc 195:255 rwm\n")
    found = cgroups.job()
    assert (found.number, found.uid, found.devices, found.gpu_indices) == (
        "42", 1000, frozenset({(195, 1), (195, 255)}), None,
    )  # fmt: skip
    assert cgroups.slurm.node_name == "n1"


@pytest.mark.parametrize(
    "scope", [SCOPE, "unified/system.slice/n1_slurmstepd.scope", "a.slice/b.slice/slurmstepd.scope"]
)
def test_sluid_is_resolved_by_the_title_of_slurmstepd(cgroups: FakeCgroups, scope: str) -> None:
    """Also if the environment cannot be read."""
    cgroups.task(f"{scope}/{SLUID}/step_0/user/task_0", 10)
    cgroups.stepd(f"{scope}/{SLUID}/step_0", 9, "slurmstepd: [8.0]")
    assert (cgroups.job().key, cgroups.job().number) == (SLUID, "8")


def test_environment_says_the_number_and_the_gpus(cgroups: FakeCgroups) -> None:
    variables = {"SLURM_JOB_ID": "8", "SLURM_JOB_SLUID": SLUID, "SLURM_JOB_UID": "1000"}
    cgroups.task(f"{SCOPE}/{SLUID}/step_0/user/task_0", 10, {**variables, "SLURM_STEP_GPUS": "3"})
    cgroups.task(f"{SCOPE}/{SLUID}/step_1/user/task_0", 11, {**variables, "SLURM_STEP_GPUS": "1"})
    assert (cgroups.job().number, cgroups.job().gpu_indices) == ("8", frozenset({1, 3}))
    cgroups.task(f"{SCOPE}/{SLUID}/step_batch/user/task_0", 12, {**variables, "SLURM_JOB_GPUS": "0-3"})
    assert cgroups.job(1).gpu_indices == frozenset({0, 1, 2, 3})


def test_environment_of_another_job_is_ignored(cgroups: FakeCgroups) -> None:
    cgroups.task(f"{SCOPE}/job_8/step_batch/user/task_0", 10, {"SLURM_JOB_ID": "9", "SLURM_JOB_GPUS": "0"})
    found = cgroups.job()
    assert (found.number, found.gpu_indices, found.environment) == ("8", None, None)


def test_requeued_job_is_read_again(cgroups: FakeCgroups) -> None:
    path = f"{SCOPE}/job_8/step_batch/user/task_0"
    cgroups.task(path, 10, {"SLURM_JOB_ID": "8", "SLURM_JOB_GPUS": "0"})
    assert cgroups.job(0).gpu_indices == frozenset({0})
    (cgroups.root / SCOPE / "job_8").rename(cgroups.root / "ended")  # keeps the inode from being used again
    cgroups.task(path, 11, {"SLURM_JOB_ID": "8", "SLURM_JOB_GPUS": "2"})
    assert cgroups.job(1).gpu_indices == frozenset({2})


def test_unchanged_job_is_read_once_a_minute(cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{SCOPE}/job_8/step_batch/user/task_0"
    cgroups.task(path, 10, {"SLURM_JOB_ID": "8", "SLURM_JOB_GPUS": "0"})
    cgroups.job(0)
    reads: list[str] = []

    def record(path: str) -> bytes:
        reads.append(path)
        return b""

    monkeypatch.setattr("gpu_exporter.owners.slurm_cgroups.read_file", record)
    assert cgroups.job(REREAD_SECONDS - 1).gpu_indices == frozenset({0})
    assert reads == []
    cgroups.job(REREAD_SECONDS)
    assert reads


def test_job_that_has_no_process_yet(cgroups: FakeCgroups) -> None:
    (cgroups.root / SCOPE / "job_8/step_batch/user/task_0").mkdir(parents=True)
    assert cgroups.job(0).gpu_indices is None
    cgroups.task(f"{SCOPE}/job_8/step_batch/user/task_0", 10, {"SLURM_JOB_ID": "8", "SLURM_JOB_GPUS": "1"})
    assert cgroups.job(5).gpu_indices == frozenset({1})


def test_slurmd_in_a_container_is_learned_from_a_process(cgroups: FakeCgroups) -> None:
    root = ("kubepods.slice", "pod1", "c1", "system.slice", "slurmstepd.scope")
    cgroups.task(f"{'/'.join(root)}/job_8/step_batch/user/task_0", 10)
    assert cgroups.slurm.jobs(0) == {}
    cgroups.slurm.learn({root})
    assert cgroups.slurm.jobs(1).keys() == {"8"}


def test_other_slurmd_of_the_machine(cgroups: FakeCgroups) -> None:
    for node in ("n1", "n2"):
        cgroups.task(f"system.slice/{node}_slurmstepd.scope/job_{node[1]}/step_batch/user/task_0", int(node[1]) + 10)
    assert cgroups.slurm.jobs(0).keys() == {"1"}
    shutil.rmtree(cgroups.root / "system.slice/n1_slurmstepd.scope")
    assert cgroups.slurm.jobs(SEARCH_SECONDS).keys() == {"2"}


def test_node_without_slurm(cgroups: FakeCgroups) -> None:
    (cgroups.root / "kubepods.slice/slurmstepd.scope/job_1").mkdir(parents=True)
    assert cgroups.slurm.jobs(0) == {}
    assert not cgroups.slurm.found


# The controller

ANSWER = """scontrol: show job 12
JobId=12 ArrayJobId=6 ArrayTaskId=3 JobName=a b=c JobId=99
   SLUID=s3A9M8KZQ0N500
   UserId=ada(4001) GroupId=ada(4001) MCS_label=N/A
   Priority=1 Nice=0 Account=lab QOS=(null)
   JobState=RUNNING Reason=None Dependency=(null)
   Partition=gpu AllocNode:Sid=login:1
   JOB_GRES=gpu:h100:3
     Nodes=n[2-3] CPU_IDs=0 Mem=0 GRES=gpu:h100:1(IDX:3)
     Nodes=n1 CPU_IDs=0-1 Mem=0 GRES=gpu:h100:2(IDX:0-1)

scontrol: show job 13
scontrol: details
scontrol: show node n1
NodeName=n1 Arch=x86_64 CoresPerSocket=1
   Gres=gpu:h100:4
   GresUsed=gpu:h100:3(IDX:0-2)
   State=MIXED

scontrol: show job 14
JobId=14 HetJobId=13 HetJobOffset=1 JobName=x
   UserId=bob(4002) GroupId=bob(4002)
   Priority=1 Nice=0 Account=(null) QOS=(null)
   JobState=COMPLETED Reason=None
   Partition=gpu

scontrol: quit
"""


def test_answer_of_the_controller() -> None:
    found = parse_answer(ANSWER, "n1")
    assert found.used_indices == frozenset({0, 1, 2})
    assert found.jobs["12"] == ScontrolJob(
        "12", SLUID, True, JobDetails("a b=c JobId=99", "ada", "lab", "gpu", "6_3"), frozenset({0, 1})
    )
    assert found.jobs["14"] == ScontrolJob("14", "", False, JobDetails("x", "bob", "", "gpu", "13+1"), None)
    assert found.jobs.keys() == {"12", "14"}
    assert parse_answer(ANSWER, "n3").jobs["12"].gpu_indices == frozenset({3})
    with pytest.raises(ScontrolError, match=r"--node\.name"):
        parse_answer("slurm_load_node error\n", "n1")


def test_name_that_looks_like_another_record() -> None:
    """The controller prints a job's name as it is, with line breaks: nobody can name another job, or add one."""
    forged = "JobId=12 JobName=a\nJobId=13 JobName=forged\n\nJobId=13 JobName=real\n   UserId=ada(1)\n"
    assert parse_answer(f"{forged}NodeName=n1\n", "n1").jobs.keys() == {"12"}
    fake = FakeScontrol()
    fake.answer = f"{forged.replace('13', '12', 1)}JobId=99 JobName=x\nNodeName=n1\n"
    fake.client.query = ScontrolQuery("n1", frozenset({"12", "13"}))
    fake.client.refresh()
    answer = fake.client.current().answer
    assert answer
    assert answer.jobs.keys() == {"13"}


def test_array_whose_tasks_are_shown_twice() -> None:
    """The number of the array is also that of its last task, and shows all of them."""
    task = "JobId=3 ArrayJobId=2 ArrayTaskId=1 JobName=a\n   UserId=ada(1)\n   JobState=RUNNING\n"
    detailed = task + "     Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:1(IDX:2)\n"
    for text in (task + detailed, detailed + task, detailed + detailed):
        (job,) = parse_answer(f"{text}NodeName=n1\n", "n1").jobs.values()
        assert (job.details.array_task, job.gpu_indices) == ("2_1", frozenset({2}))


class FakeScontrol:
    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.answer: str | Exception = ANSWER
        query = ScontrolQuery("n1", frozenset({"12", "13", "14"}), frozenset({"14"}))
        self.client = ScontrolClient(query, 60.0, self._run, lambda: self.now)
        self.client.refresh()

    def _run(self, commands: str) -> str:
        self.asked.append(commands)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_first_call_waits_for_its_turn() -> None:
    """All exporters of a cluster may start at once."""
    fake = FakeScontrol()
    assert fake.asked == []
    assert fake.client.current().state == "not_yet"
    fake.client.refresh()
    assert len(fake.asked) == 1
    assert fake.client.current().state == "ok"


def test_commands_for_what_is_needed() -> None:
    query = ScontrolQuery("n1", frozenset({"1", "2", "3"}), frozenset({"3"}))
    assert scontrol.script(query, all_jobs=False).splitlines() == [
        "show job 1", "show job 2", "details", "show node n1", "show job 3", "quit",
    ]  # fmt: skip
    assert scontrol.script(query, all_jobs=True).splitlines()[-2:] == ["show job", "quit"]


def test_all_jobs_are_listed_once_for_the_same_gpus() -> None:
    fake = FakeScontrol()
    for gpus, lists in (({2}, True), ({2}, False), ({2, 3}, True), (set(), False)):
        fake.client.query = ScontrolQuery("n1", unexplained=frozenset(gpus))
        fake.client.refresh()
        assert ("show job\n" in fake.asked[-1]) is lists
    fake.now += scontrol.LIST_ALL_SECONDS
    fake.client.query = ScontrolQuery("n1", unexplained=frozenset({2, 3}))
    fake.client.refresh()
    assert "show job\n" in fake.asked[-1]


def test_last_answer_is_used_for_a_while() -> None:
    fake = FakeScontrol()
    fake.client.refresh()
    fake.answer = ScontrolError("slurmctld is away")
    fake.now = 60
    with pytest.raises(ScontrolError):
        fake.client.refresh()
    assert (fake.client.current().state, bool(fake.client.current().answer)) == ("stale", True)
    fake.now = 60 * scontrol.MAX_STALE_INTERVALS + scontrol.CALL_TIMEOUT_SECONDS + 1
    assert (fake.client.current().state, fake.client.current().answer) == ("failed", None)
    fake.answer = FileNotFoundError("scontrol")
    assert fake.client.refresh() == scontrol.ABSENT_RETRY_SECONDS
    assert fake.client.current().state == "absent"


def test_answers_that_nobody_has_seen_are_kept() -> None:
    fake = FakeScontrol()
    fake.client.refresh()
    fake.answer = "NodeName=n1\n   GresUsed=gpu:0\n"
    fake.client.refresh()
    answer = fake.client.current().answer
    assert answer
    assert answer.jobs.keys() == {"12", "14"}
    fake.client.refresh()
    answer = fake.client.current().answer
    assert answer
    assert answer.jobs == {}


def test_program_that_fails(tmp_path: Path) -> None:
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho 'slurm_load_node error: Unable to contact slurm controller' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(ScontrolError, match="Unable to contact"):
        scontrol.scontrol_runner(str(program), None)("quit\n")
    with pytest.raises(FileNotFoundError):
        scontrol.scontrol_runner(str(tmp_path / "none"), None)("quit\n")


def test_program_gets_commands_and_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\necho "NodeName=n1 $SLURM_CONF $SLURM_CLUSTERS"; cat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    assert scontrol.scontrol_runner("scontrol", Path("/etc/slurm/slurm.conf"))("show node n1\n") == (
        "NodeName=n1 /etc/slurm/slurm.conf \nshow node n1\n"
    )


# Allocations

GPUS = tuple(DeviceIdentity(f"g{i}", str(i), "H100", "nvidia") for i in range(4))
#: In gres.conf in another order than NVML's.
CONF = GresConf(tuple((f"/dev/nvidia{i}",) for i in (3, 2, 1, 0)))


def indices(conf: GresConf | None = CONF, gpus: tuple[DeviceIdentity, ...] = GPUS) -> GpuIndices:
    return GpuIndices(DeviceIdResolver(gpus, Path("/none"), Path("/none")), gpus, conf)


def local_job(number: str, devices: set[int] | None = None, gpus: set[int] | None = None) -> NodeJob:
    allowed = None if devices is None else frozenset((195, minor) for minor in devices | {255})
    return NodeJob(number, number, 1000, allowed, None if gpus is None else frozenset(gpus), None)


def controller(used: set[int] | None, **jobs: set[int] | None) -> ScontrolAnswer:
    return ScontrolAnswer(
        None if used is None else frozenset(used),
        {
            name[1:]: ScontrolJob(name[1:], "", True, JobDetails(), None if gpus is None else frozenset(gpus))
            for name, gpus in jobs.items()
        },
    )


def test_device_cgroup_is_exact() -> None:
    found = slurm_allocations({"1": local_job("1", devices={0, 2})}, frozenset(), None, indices(None))
    assert found.jobs == {"g0": {"1"}, "g2": {"1"}}
    assert not found.is_complete, "another job may have no cgroup"


def test_indices_are_positions_in_gres_conf() -> None:
    found = slurm_allocations({"1": local_job("1", gpus={0, 3})}, frozenset(), None, indices())
    assert found.jobs == {"g3": {"1"}, "g0": {"1"}}


def test_controller_counts_more_than_the_environment() -> None:
    jobs = {"1": local_job("1", gpus={0, 1, 2, 3})}
    found = slurm_allocations(jobs, frozenset(), controller({1}, j1={1}), indices())
    assert (found.jobs, found.is_complete) == ({"g2": {"1"}}, True)


def test_allocated_to_an_unknown_job() -> None:
    found = slurm_allocations({"1": local_job("1", gpus={0})}, frozenset(), controller({0, 2}), indices())
    assert (found.jobs, found.is_complete, found.unresolved) == ({"g3": {"1"}, "g1": {""}}, True, 0)


def test_job_of_the_controller_without_a_cgroup() -> None:
    found = slurm_allocations({}, frozenset(), controller({2}, j5={2}), indices())
    assert (found.jobs, found.explained) == ({"g1": {"5"}}, frozenset({2}))


@pytest.mark.parametrize("conf", [CONF, None])
def test_gpu_of_a_job_that_has_ended_is_not_allocated(conf: GresConf | None) -> None:
    """The controller's answer may be a minute old."""
    found = slurm_allocations({}, frozenset({"g1"}), controller({2}), indices(conf))
    assert (found.jobs, found.is_complete) == ({}, True)


def test_two_jobs_share_a_gpu() -> None:
    jobs = {name: local_job(name, gpus={1}) for name in ("1", "2")}
    assert slurm_allocations(jobs, frozenset(), None, indices()).jobs == {"g2": {"1", "2"}}


def test_unknown_order_of_gpus() -> None:
    """Without gres.conf, all or none is certain."""
    jobs = {"1": local_job("1", gpus={0, 1}), "2": local_job("2", gpus={2, 3})}
    some = slurm_allocations(dict([*jobs.items()][:1]), frozenset(), controller({0, 1}), indices(None))
    assert (some.jobs, some.unresolved, some.is_complete) == ({}, 2, False)
    every = slurm_allocations(jobs, frozenset(), controller({0, 1, 2, 3}), indices(None))
    assert (every.jobs, every.unresolved, every.is_complete) == ({gpu.uuid: {""} for gpu in GPUS}, 0, True)
    alone = slurm_allocations({"1": local_job("1", gpus={0, 1, 2, 3})}, frozenset(), None, indices(None))
    assert alone.jobs == {gpu.uuid: {"1"} for gpu in GPUS}
    none = slurm_allocations({}, frozenset(), controller(set()), indices(None))
    assert (none.jobs, none.is_complete) == ({}, True)


def test_known_devices_explain_indices_without_an_order() -> None:
    found = slurm_allocations({"1": local_job("1", devices={0, 1})}, frozenset(), controller({0, 1}), indices(None))
    assert (found.jobs, found.unresolved, found.is_complete) == ({"g0": {"1"}, "g1": {"1"}}, 0, True)


def test_detected_gpus_are_in_the_order_of_their_addresses() -> None:
    gpus = tuple(DeviceIdentity(f"g{i}", str(i), "H100", "nvidia") for i in (10, 2, 0))
    found = slurm_allocations({"1": local_job("1", gpus={1})}, frozenset(), None, indices(GresConf((), "nvml"), gpus))
    assert found.jobs == {"g2": {"1"}}
    mixed = (*gpus[:2], DeviceIdentity("t", "5", "T4", "nvidia"))
    found = slurm_allocations({"1": local_job("1", gpus={1})}, frozenset(), None, indices(GresConf((), "nvml"), mixed))
    assert (found.jobs, found.unresolved) == ({}, 1)


def test_index_of_a_gpu_that_is_not_there() -> None:
    found = slurm_allocations({"1": local_job("1", gpus={0, 9})}, frozenset(), controller({0, 9}), indices())
    assert (found.jobs, found.unresolved, found.is_complete) == ({"g3": {"1"}}, 1, False)


# The queue

QUEUE = """2|gpu|Resources|1|1|N/A|gres:gpu:h100:2|N/A|N/A|
3|gpu|Priority|1|1|gres/gpu:3|N/A|N/A|N/A|
4|long|None|1|3|N/A|N/A|N/A|gres/gpu=1|
5|gpu|Priority|2-4|2|N/A|gres:gpu|N/A|N/A|
6_[1-5,9-20:2%4]|gpu|Priority|1|1|N/A|gres/shard:1|N/A|N/A|
7|gpu|Dependency|1|1|N/A|gres:gpu:1|N/A|N/A|
8|gpu|Priority|1|1|N/A|N/A|N/A|N/A|
9|gpu|QOSMaxGRESPerUser|1|1|N/A|gres/gpu:a100:8,gres/nic:1|N/A|N/A|
10|gpu|Priority|1|1|N/A|gres/nic:2|N/A|N/A|
11|gpu|Priority|2|2|gres/gpu:8|gres/gpu:4|N/A|N/A|
cut short|
"""


def test_pending_jobs_that_ask_for_gpus() -> None:
    assert parse_queue(QUEUE) == [
        PendingJob("gpu", "Resources", 1, 2),
        PendingJob("gpu", "Priority", 1, 3),
        PendingJob("long", "None", 1, 3),
        PendingJob("gpu", "Priority", 1, 2),
        PendingJob("gpu", "Priority", 4, 0),
        PendingJob("gpu", "Dependency", 1, 1),
        PendingJob("gpu", "QOSMaxGRESPerUser", 1, 8),
        PendingJob("gpu", "Priority", 1, 8),
    ]


@pytest.mark.parametrize(
    ("per_job", "per_node", "gpus"),
    [
        ("N/A", "gres:gpu:tesla:2,gres:gpu:kepler:3", 5),  # types of one node add up
        ("gres/gpu=4,gres/gpu:a100=4", "N/A", 4),  # their sum stands beside them
        ("gres/gpu=6,gres/gpu:a100=4,gres/gpu:t4=2", "N/A", 6),
        ("gres/gpu:a100:2", "gres/gpu:a100:1", 2),
    ],
)
def test_gpus_of_several_types(per_job: str, per_node: str, gpus: int) -> None:
    [job] = parse_queue(f"1|gpu|Resources|1|1|{per_job}|{per_node}|N/A|N/A|")
    assert job.gpus == gpus


@pytest.mark.parametrize(
    ("partition", "reason", "plain"),
    [
        ("gpu,debug", "Resources", "Resources"),  # Slurm runs it in whichever is free first
        ("gpu", "ReqNodeNotAvail,_UnavailableNodes:node[1-9]", "ReqNodeNotAvail"),
        ("gpu", "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved", "Nodes_required_for_job_are_DOWN"),
        ("gpu", "(null)", ""),
        ("gpu", "x" * 500, "x" * 64),
    ],
)
def test_labels_of_pending_jobs_have_few_values(partition: str, reason: str, plain: str) -> None:
    [job] = parse_queue(f"1|{partition}|{reason}|1|1|gres/gpu:1|N/A|N/A|N/A|")
    assert (job.partition, job.reason) == ("gpu", plain)


def test_queue_by_partition() -> None:
    collector = SlurmQueueCollector(lambda command: "gpu\nidle\nlong\n" if command[0] == "sinfo" else QUEUE)
    found = {samples.family.name: dict(samples.rows) for samples in collector.collect()}
    assert found == {
        "gpu_queue_eligible_jobs": {("slurm", "gpu"): 8, ("slurm", "idle"): 0, ("slurm", "long"): 1},
        "gpu_queue_eligible_gpus": {("slurm", "gpu"): 15, ("slurm", "idle"): 0, ("slurm", "long"): 3},
        "gpu_queue_blocked_jobs": {("slurm", "gpu", "Dependency"): 1, ("slurm", "gpu", "QOSMaxGRESPerUser"): 1},
    }
