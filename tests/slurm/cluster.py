"""A real Slurm in a minimal Debian: munged, slurmctld, and a slurmd for each of two nodes, all on this machine.

It runs in a mount namespace of its own, in the folder of an unpacked Debian; only its cgroups and processes are the
machine's. Node n1 has the GPUs /dev/nvidia0 to 3 and eight shards of them, n2 has /dev/nvidia4 to 7. Their device files
exist, the GPUs need not.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.servers import free_port

HERE = Path(__file__).parent
NODES = {"n1": range(4), "n2": range(4, 8)}
USERS = {"ada": 4001, "bob": 4002}
#: Where the programs of the cluster write, and what the tests read.
WORK = "/scratch"
CALL_TIMEOUT_SECONDS = 120.0
_NVIDIA_MAJOR = 195


class SlurmError(AssertionError):
    """A command of Slurm failed."""


def machine_has_only_v2() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


@dataclass
class SlurmCluster:
    """A running cluster. `cgroups`: v1 or v2."""

    root: Path
    cgroups: str
    keeper: subprocess.Popen[bytes]
    transcript: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, *command: str) -> list[str]:
        """The command, to be run inside."""
        return ["nsenter", f"--mount=/proc/{self.keeper.pid}/ns/mnt", "chroot", str(self.root), *command]

    def run(self, line: str, user: str = "root", check: bool = True) -> str:
        """Run a shell line inside, as this user, and return its output."""
        command = ["sh", "-c", f"cd {WORK}; {line}"]
        if user != "root":
            command = ["setpriv", f"--reuid={USERS[user]}", f"--regid={USERS[user]}", "--clear-groups", *command]
        done = subprocess.run(
            self.inside(*command), capture_output=True, text=True, timeout=CALL_TIMEOUT_SECONDS, check=False,
            env=_environment(user),
        )  # fmt: skip
        if check:
            self.transcript.append(f"{user}$ {line}\n{done.stdout}{done.stderr}")
        if check and done.returncode:
            raise SlurmError(f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done.stdout.strip()

    def submit(self, options: str, script: str = "sleep 600", user: str = "ada") -> str:
        """Submit a batch script; the job's number."""
        return self.run(f"sbatch --parsable {options} --wrap {shlex.quote(script)}", user)

    def state(self, job: str) -> str:
        """squeue's state of a job, empty if it is no longer there."""
        return self.run(f"squeue --noheader --jobs={job} --format=%T 2>/dev/null", check=False)

    def wait_state(self, job: str, state: str) -> None:
        wait_until(lambda: self.state(job) == state, f"job {job} is {state or 'gone'}", self, interval_seconds=0.2)

    def cancel_all(self) -> None:
        self.run("squeue --noheader --format=%A | xargs --no-run-if-empty scancel", check=False)
        wait_until(lambda: not self._jobs(), "no job is left", self, interval_seconds=0.2)

    def _jobs(self) -> str:
        return self.run("squeue --noheader --format=%A", check=False)

    def wait_pid(self, name: str) -> int:
        """The number that a job wrote to this file."""
        path = self.root / WORK[1:] / name
        return int(wait_until(lambda: path.read_text().strip() if path.exists() else "", f"{path} is written", self))

    def variable(self, pid: int, name: str) -> str:
        """An environment variable of a process."""
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(entry.decode() for entry in environ if entry.startswith(f"{name}=".encode())).partition("=")[2]

    def wrapper(self, program: str, folder: Path) -> Path:
        """A script outside that runs one of the cluster's programs inside."""
        path = folder / program
        variables = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={WORK}", "SLURM_BITSTR_LEN=0")
        command = shlex.join(self.inside("env", "-i", *variables, program))
        path.write_text(f'#!/bin/sh\nexec env -u LD_LIBRARY_PATH {command} "$@"\n')
        path.chmod(0o755)
        return path

    def log(self) -> str:
        return self.logs()

    def logs(self) -> str:
        parts = [self.run("squeue; sinfo", check=False)]
        for path in sorted((self.root / "var/log").glob("slurm*.log")):
            parts.append(f"{path.name}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(parts)

    def start(self, *command: str) -> None:
        log = (self.root / "var/log" / f"slurm-{len(self.daemons)}.log").open("wb")
        with log:
            self.daemons.append(
                subprocess.Popen(
                    self.inside(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=_environment("root"), start_new_session=True,
                )
            )  # fmt: skip

    def stop(self) -> None:
        with suppress(Exception, pytest.fail.Exception):
            self.cancel_all()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(30)
            daemon.kill()
            daemon.wait()
        self._end_leftovers()
        self.keeper.kill()
        self.keeper.wait()

    def _end_leftovers(self) -> None:
        """End slurmstepd's and remove the cgroups, which outlive a slurmd without systemd."""
        names = re.compile(r"(?:slurm_)?(?:n1|n2)(?:_slurmstepd\.scope)?")
        for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/devices", "/sys/fs/cgroup/freezer"):
            for slice_ in (base, f"{base}/system.slice"):
                for path in Path(slice_).glob("*"):
                    if names.fullmatch(path.name):
                        _remove_cgroup(path)


def _remove_cgroup(path: Path) -> None:
    folders = [Path(folder) for folder, _, _ in os.walk(path, topdown=False)]
    for folder in folders:
        with suppress(OSError, ValueError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
    for _ in range(20):
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        if not path.exists():
            return
        subprocess.run(["sleep", "0.1"], check=False)


@contextmanager
def cluster(tar: Path, folder: Path, cgroups: str) -> Iterator[SlurmCluster]:
    """Unpack a Debian with Slurm's packages into the folder and run a cluster there. `cgroups`: v1, v2 or none, where
    slurmd does not put jobs into cgroups."""
    root = folder / "root"
    root.mkdir()
    with tarfile.open(tar) as packed:
        packed.extractall(root, filter="fully_trusted")
    port = free_port()
    _write_configuration(root, cgroups, port)
    shim = _build_shim(root) if cgroups != "v1" and not machine_has_only_v2() else ""
    keeper = subprocess.Popen(["unshare", "--mount", "sh", "-euc", _MOUNTS, "sh", str(root), cgroups])
    running = SlurmCluster(root, cgroups, keeper)
    try:
        mounted = Path(f"/proc/{keeper.pid}/root{root}/run/mounted")  # as the keeper sees it
        wait_until(mounted.exists, "the file systems are mounted")
        running.run("chown munge: /etc/munge /etc/munge/munge.key; mkdir -p /run/munge; chown munge: /run/munge")
        running.start("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground")
        wait_until(lambda: "Success" in running.run("munge -n | unmunge", check=False), "munged answers")
        running.start("slurmctld", "-D", "-c")
        for node in NODES:
            running.start("env", *([f"LD_PRELOAD={shim}"] if shim else []), "slurmd", "-D", "-c", "-N", node)
        wait_until(
            lambda: running.run("sinfo --noheader --Node --format=%t", check=False).split() == ["idle"] * len(NODES),
            "all nodes are idle", running, interval_seconds=0.3,
        )  # fmt: skip
        running.transcript.clear()
        yield running
    finally:
        running.stop()


#: Mounts in a namespace of its own, which end with it. Jobs may use no device files but these.
_MOUNTS = """
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mkdir -p "$root/sys"; mount -t sysfs sysfs "$root/sys"
if [ "$2" != v1 ]; then mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"; mkdir -p "$root/sys/fs/cgroup/system.slice"
else mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"; fi
mount -t tmpfs tmpfs "$root/dev"
for device in null zero random urandom tty; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"; mount -t tmpfs tmpfs "$root/dev/shm"
for minor in 0 1 2 3 4 5 6 7; do mknod -m 666 "$root/dev/nvidia$minor" c 195 "$minor"; done
mount -t tmpfs tmpfs "$root/run"
touch "$root/run/mounted"
exec sleep infinity
"""


def _environment(user: str) -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": WORK, "USER": user, "LOGNAME": user}


def _build_shim(root: Path) -> str:
    gcc = shutil.which("gcc")
    if not gcc:
        raise SlurmError("this machine has cgroups v1 and v2: gcc is needed; on Debian: apt-get install gcc libc6-dev")
    path = root / "opt/v2_view.so"
    subprocess.run([gcc, "-shared", "-fPIC", "-O1", "-o", str(path), str(HERE / "v2_view.c"), "-ldl"], check=True)
    return "/opt/v2_view.so"


def _write_configuration(root: Path, cgroups: str, port: int) -> None:
    host = os.uname().nodename
    etc = root / "etc/slurm"
    etc.mkdir(exist_ok=True)
    for name in ("var/spool/slurmctld", *(f"var/spool/slurmd-{node}" for node in NODES), WORK[1:]):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / WORK[1:]).chmod(0o777)
    (root / "etc/munge").mkdir(exist_ok=True)
    key = root / "etc/munge/munge.key"
    key.unlink(missing_ok=True)
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    with (root / "etc/passwd").open("a") as passwd:
        passwd.writelines(f"{user}:x:{uid}:{uid}::{WORK}:/bin/sh\n" for user, uid in USERS.items())
    with (root / "etc/group").open("a") as group:
        group.writelines(f"{user}:x:{uid}:\n" for user, uid in USERS.items())
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {host}\n")
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 1 + i} CPUs=16 RealMemory=100 "
        f"Gres=gpu:h100:{len(gpus)}" + (",shard:8" if node == "n1" else "") + " Feature=H100,gpu80gb"
        for i, (node, gpus) in enumerate(NODES.items())
    ]
    lines = [
        "ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={port}",
        f"SrunPortRange={port + 10}-{port + 60}", "SlurmUser=root", "AuthType=auth/munge",
        "StateSaveLocation=/var/spool/slurmctld", "SlurmdSpoolDir=/var/spool/slurmd-%n",
        "SlurmctldPidFile=/run/slurmctld.pid", "SlurmdPidFile=/run/slurmd-%n.pid",
        "SlurmctldLogFile=/var/log/slurmctld.log", "SlurmdLogFile=/var/log/slurmd-%n.log",
        f"ProctrackType=proctrack/{'linuxproc' if cgroups == 'none' else 'cgroup'}",
        f"TaskPlugin=task/{'none' if cgroups == 'none' else 'cgroup'}", "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none", "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU", "GresTypes=gpu,shard", "MpiDefault=none", "MailProg=/bin/true",
        "ReturnToService=2", "KillWait=2", "MinJobAge=10", "SchedulerParameters=sched_interval=1,bf_interval=1",
        "SlurmdParameters=config_overrides", *nodes,
        "PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    ]  # fmt: skip
    (etc / "slurm.conf").write_text("\n".join(lines) + "\n")
    gres = ["AutoDetect=off"]
    for node, gpus in NODES.items():
        gres.append(f"NodeName={node} Name=gpu Type=h100 File=/dev/nvidia[{gpus[0]}-{gpus[-1]}]")
        if node == "n1":
            gres.append(f"NodeName={node} Name=shard Count=8")
    (etc / "gres.conf").write_text("\n".join(gres) + "\n")
    plugin = {"v1": "cgroup/v1", "v2": "cgroup/v2", "none": "cgroup/v2"}[cgroups]
    conf = [f"CgroupPlugin={plugin}", "CgroupMountpoint=/sys/fs/cgroup", "ConstrainDevices=yes", "ConstrainCores=no"]
    conf += ["ConstrainRAMSpace=no", *(["IgnoreSystemd=yes"] if plugin == "cgroup/v2" else [])]
    (etc / "cgroup.conf").write_text("\n".join(conf) + "\n")
