"""Owners of processes that run, exit, move and are hidden."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.owners import processes, users
from gpu_exporter.owners.base import OwnerKind
from gpu_exporter.owners.processes import NotHostPidNamespace, ProcessOwners
from gpu_exporter.owners.users import UserNames

from tests.unit.owners.fake_proc import FakeProc

ALICE = "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbroken\n"


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def table(proc: FakeProc, tmp_path: Path) -> ProcessOwners:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(ALICE)
    return ProcessOwners(proc.root, UserNames(tmp_path))


def service(name: str) -> str:
    return f"0::/system.slice/{name}.service\n"


def test_units_and_users(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, service("a"))
    proc.add(11, service("b"), uid=4321)
    found = table.owners([10, 11, 10], 0)
    assert {pid: (owner.unit, owner.user) for pid, owner in found.items()} == {
        10: ("a.service", "alice"),
        11: ("b.service", "4321"),
    }


def test_exited_process(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, service("a"))
    assert table.owners([10, 99], 0).keys() == {10}
    proc.end(10)
    assert table.owners([10, 99], 0) == {}


def test_reused_pid(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, service("a"), started=100)
    assert table.owners([10], 0)[10].unit == "a.service"
    proc.add(10, service("b"), uid=0, started=101)
    found = table.owners([10], 1)[10]
    assert (found.unit, found.user) == ("b.service", "root")


def test_pid_reused_during_read(proc: FakeProc, table: ProcessOwners, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(10, service("a"), started=100)

    def change(path: str) -> bytes:
        content = read_file(path)
        if path.endswith("cgroup"):
            proc.add(10, service("b"), started=101)
        return content

    monkeypatch.setattr("gpu_exporter.owners.processes.read_file", change)
    assert table.owners([10], 0) == {}


def test_cached_and_read_again(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, service("a"))
    table.owners([10], 0)
    proc.add(10, service("adopted"))  # the same process, moved to another cgroup
    assert table.owners([10], processes.OWNER_CACHE_SECONDS - 1)[10].unit == "a.service"
    assert table.owners([10], processes.OWNER_CACHE_SECONDS)[10].unit == "adopted.service"


def test_other_processes_leave_the_cache(proc: FakeProc, table: ProcessOwners) -> None:
    for pid in range(10, 20):
        proc.add(pid)
    table.owners(range(10, 20), 0)
    table.owners([10], 1)
    assert table._cache.keys() == {10}


def test_uid_in_a_pod_is_not_a_host_user(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, f"0::/kubepods/pod0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11/{'a' * 64}\n", uid=1000)
    found = table.owners([10], 0)[10]
    assert (found.kind, found.user) == (OwnerKind.KUBERNETES, "")


@pytest.mark.parametrize("file", ["stat", "status", "cgroup"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe garbage", b"10 (x) S 1"])
def test_malformed_files(proc: FakeProc, table: ProcessOwners, file: str, content: bytes) -> None:
    proc.add(10, service("a"))
    (proc.root / "10" / file).write_bytes(content)
    found = table.owners([10], 0)
    assert found == {} if file != "cgroup" else found[10].kind is OwnerKind.USER


def test_other_pid_namespace_is_rejected(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path / "proc", host=False)
    proc.add(10)
    table = ProcessOwners(proc.root, UserNames())
    with pytest.raises(NotHostPidNamespace, match="pid namespace"):
        table.owners([10], 0)
    # The host's /proc mounted into a container: our entry has both pids.
    (proc.root / "self/status").write_text("Name:\tx\nNSpid:\t4001\t1\n")
    assert table.owners([10], 0).keys() == {10}


def test_hidden_processes(proc: FakeProc, table: ProcessOwners) -> None:
    proc.end(1)
    assert table.owners([], 0) == {}
    with pytest.raises(PermissionError, match="hidepid"):
        table.owners([10], 0)


def test_start_times_are_unix_times(proc: FakeProc, table: ProcessOwners) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    proc.add(10, started=90 * ticks)
    assert table.owners([10], 0).keys() == {10}
    assert table.start_times() == {}  # without a boot time
    (proc.root / "stat").write_text("cpu  1 2 3\nbtime 1000\nprocesses 7\n")
    assert table.start_times() == {10: 1090.0}
    table.owners([], 0)
    assert table.start_times() == {}


def test_user_names_and_their_cache(tmp_path: Path) -> None:
    ours = UserNames()
    me = pwd.getpwuid(os.getuid()).pw_name
    assert ours.name(os.getuid(), 0) == me
    assert ours.name(2**40, 0) == str(2**40)
    names = UserNames(tmp_path)
    assert names.name(1000, 0) == "1000"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(ALICE)
    assert names.name(1000, users.USER_CACHE_SECONDS - 1) == "1000"
    assert names.name(1000, users.USER_CACHE_SECONDS) == "alice"


def test_cached_process_is_not_read_again(
    proc: FakeProc, table: ProcessOwners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached process costs one small file: 20 to 30 ms for 2,000."""
    for pid in range(10, 30):
        proc.add(pid, service("a"))
    table.owners(range(10, 30), 0)
    paths: list[str] = []

    def record(path: str) -> bytes:
        paths.append(path)
        return read_file(path)

    monkeypatch.setattr("gpu_exporter.owners.processes.read_file", record)
    table.owners(range(10, 30), 1)
    assert sorted(paths) == sorted(f"{proc.root}/{pid}/stat" for pid in range(10, 30))


# Slurm, where the cgroup does not have the job's number

IN_JOB = {"SLURM_JOB_ID": "8", "SLURM_JOB_UID": "1000", "SLURM_STEP_ID": "0", "SLURM_JOB_SLUID": "s3A9M8KZQ0N500"}
SLUID_CGROUP = "0::/system.slice/slurmstepd.scope/s3A9M8KZQ0N500/step_0/user/task_0\n"


def slurm_owner(table: ProcessOwners, pid: int) -> tuple[str, str, str]:
    owner = table.owners([pid], 0)[pid]
    return owner.kind.value, owner.slurm_job, owner.slurm_step


def test_sluid_becomes_the_number_in_the_environment(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, SLUID_CGROUP, environ=IN_JOB)
    assert slurm_owner(table, 10) == ("slurm", "8", "0")
    assert table.slurm_environments().keys() == {"8"}
    assert table.slurm_roots() == {("system.slice", "slurmstepd.scope")}


def test_sluid_stays_if_the_environment_is_of_another_job(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, SLUID_CGROUP, environ={**IN_JOB, "SLURM_JOB_SLUID": "s0000000000000"})
    assert slurm_owner(table, 10) == ("slurm", "s3A9M8KZQ0N500", "0")
    assert table.slurm_environments() == {}


def test_job_without_cgroups(proc: FakeProc, table: ProcessOwners) -> None:
    """slurmstepd is among the parents: its title counts, whatever the environment says."""
    proc.add(7, service("slurmd"), uid=0, name="slurmstepd", title="slurmstepd: [8.batch]")
    proc.add(9, service("slurmd"), parent=7)
    proc.add(10, service("slurmd"), parent=9, environ={**IN_JOB, "SLURM_JOB_ID": "5"})
    proc.add(11, service("slurmd"), parent=9)  # another user's, whose environment we may not read
    assert slurm_owner(table, 10) == slurm_owner(table, 11) == ("slurm", "8", "batch")
    assert table.slurm_environments() == {}


def test_title_of_a_users_process_is_ignored(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(9, uid=1000, name="slurmstepd", title="slurmstepd: [8.batch]")
    proc.add(10, parent=9, environ={"HOME": "/"})
    proc.add(11, parent=9)
    assert slurm_owner(table, 10) == slurm_owner(table, 11) == ("user", "", "")


def test_daemon_of_a_job_without_cgroups(proc: FakeProc, table: ProcessOwners) -> None:
    """Its parents have ended: the environment is left."""
    proc.add(10, environ=IN_JOB)
    assert slurm_owner(table, 10) == ("slurm", "8", "0")


def test_environment_that_claims_another_users_job(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, environ={**IN_JOB, "SLURM_JOB_UID": "0"})
    assert slurm_owner(table, 10) == ("user", "", "")


def test_environment_in_a_pod_is_not_read(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, f"0::/kubepods/pod0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11/{'a' * 64}\n", environ=IN_JOB)
    assert slurm_owner(table, 10) == ("kubernetes", "", "")


def test_endless_parents(proc: FakeProc, table: ProcessOwners) -> None:
    proc.add(10, parent=11)
    proc.add(11, parent=10)
    assert slurm_owner(table, 10) == ("user", "", "")
