"""OwnerCollector: from readings, /proc and the kubelet to rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gpu_exporter import metrics
from gpu_exporter.exposition import render
from gpu_exporter.owners import pod_names
from gpu_exporter.owners.collector import OwnerCollector, OwnerSettings
from gpu_exporter.owners.pod_cgroups import PodCgroups
from gpu_exporter.owners.pod_resources import DeviceAllocation, PodResourcesStatus
from gpu_exporter.owners.scontrol import ScontrolAnswer, ScontrolJob, ScontrolQuery, ScontrolStatus
from gpu_exporter.owners.slurm_environment import JobDetails
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DownReason, GpuProcess

from tests.unit.owners.fake_proc import FakeProc

UID, UID2 = "0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11", "1" * 32
ID, ID2 = "a" * 64, "b" * 64


def _allocation(pod: str, container: str, resource: str, device_id: str) -> DeviceAllocation:
    namespace, _, name = pod.partition("/")
    return DeviceAllocation(namespace, name, container, resource, device_id)


class FakePodResources:
    """Stands in for PodResourcesClient."""

    def __init__(self, *given: tuple[str, str, str], state: str = "ok", resource: str = "nvidia.com/gpu") -> None:
        self.answer = PodResourcesStatus(
            state, frozenset(_allocation(pod, container, resource, id_) for pod, container, id_ in given)
        )

    def current(self) -> PodResourcesStatus:
        return self.answer


class OwnersHarness:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = FakeProc(root / "proc")
        self.devices: list[DeviceReading] = []
        self.pods: FakePodResources | None = None
        self.time = 0.0
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("alice:x:1000:1000::/:/bin/sh\n")
        self._collector: OwnerCollector | None = None

    def gpu(self, uuid: str, *processes: tuple[int, int | None], parent: str = "") -> None:
        self.devices = [device for device in self.devices if device.identity.uuid != uuid]
        identity = DeviceIdentity(uuid, "0", "H100", "NVIDIA", parent_uuid=parent)
        self.devices.append(DeviceReading(identity, processes=tuple(GpuProcess(*use) for use in processes)))

    def collect(self) -> dict[str, dict[tuple[str, ...], float]]:
        settings = OwnerSettings(self.root / "proc", self.root / "sys", self.root)
        if not self._collector:
            self._collector = OwnerCollector(lambda: self.devices, settings, self.pods, lambda: self.time)  # type: ignore[arg-type]
        self._collector._pods = self.pods  # type: ignore[assignment]
        samples = self._collector.collect()
        render(samples)
        for family in samples:
            assert len({labels for labels, _ in family.rows}) == len(family.rows), "a series comes twice"
        return {family.family.name: dict(family.rows) for family in samples}

    def owners(self) -> list[dict[str, str]]:
        """The rows of gpu_owner_info, without empty labels."""
        rows = self.collect().get("gpu_owner_info", {})
        named = (dict(zip(metrics.OWNER_INFO.labels, row, strict=True)) for row in rows)
        return [{key.removeprefix("owner_"): value for key, value in row.items() if value} for row in named]

    def pod(self, pid: int, uid: str, id_: str) -> None:
        self.proc.add(pid, f"0::/kubepods/pod{uid}/{id_}\n")


@pytest.fixture
def node(tmp_path: Path) -> OwnersHarness:
    return OwnersHarness(tmp_path)


def test_each_kind_of_owner(node: OwnersHarness) -> None:
    node.proc.add(10, "0::/user.slice/user-1000.slice/session-3.scope\n")
    node.proc.add(11, "0::/system.slice/ollama.service\n", uid=0)
    node.proc.add(12, "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n")
    node.proc.add(13, f"0::/system.slice/docker-{ID}.scope\n", uid=7)
    node.gpu("g", (10, 1), (11, 2), (12, 3), (13, 4))
    assert node.owners() == [
        {"uuid": "g", "kind": "user", "user": "alice"},
        {"uuid": "g", "kind": "systemd", "unit": "ollama.service", "user": "0"},
        {"uuid": "g", "kind": "slurm", "training_job": "42", "user": "alice", "step": "0"},
        {"uuid": "g", "kind": "container", "container": "a" * 12, "container_id": ID, "user": "7"},
    ]


def test_several_processes_of_one_owner_are_one_row_with_their_memory(node: OwnersHarness) -> None:
    for pid, task in ((10, "0"), (11, "1"), (12, "1")):
        node.proc.add(pid, f"0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_{task}\n")
    node.gpu("g", (10, 100), (11, 20))
    node.gpu("h", (12, 5), (10, None))
    found = node.collect()
    assert [row[0] for row in found["gpu_owner_info"]] == ["g", "h"]
    # On h the memory of one process is unknown: a partial sum would be wrong.
    assert [(row[0], value) for row, value in found["gpu_owner_memory_used_bytes"].items()] == [("g", 120.0)]


def test_dead_processes_and_down_gpus_have_no_owners(node: OwnersHarness) -> None:
    node.proc.add(10)
    node.gpu("g", (10, 1), (99, 1))
    assert len(node.owners()) == 1
    node.proc.end(10)
    assert node.owners() == []
    node.proc.add(10)
    node.devices = [node.devices[0].as_down(DownReason.LOST)]
    assert node.owners() == []


def test_allocated_but_unused_gpu(node: OwnersHarness) -> None:
    node.gpu("g")
    node.gpu("h")
    assert "gpu_allocated" not in node.collect()
    node.pods = FakePodResources(("ml/train-0", "main", "g"))
    found = node.collect()
    assert found["gpu_allocated"] == {("g",): 1, ("h",): 0}
    assert found["gpu_exporter_owner_source_info"] == {
        ("pod_logs", "absent"): 1, ("pod_resources", "ok"): 1, ("processes", "ok"): 1,
    }  # fmt: skip
    assert node.owners() == [
        {"uuid": "g", "kind": "kubernetes", "namespace": "ml", "pod": "train-0", "container": "main"}
    ]
    assert "gpu_owner_memory_used_bytes" not in found


def pod_folders(node: OwnersHarness, *cgroups: str, **logs: str) -> None:
    """Cgroups below the kubelet's, and log folders: name of a pod -> its uid."""
    for cgroup in ("kubepods.slice", *(f"kubepods.slice/{path}" for path in cgroups)):
        (node.root / "sys/fs/cgroup" / cgroup).mkdir(parents=True, exist_ok=True)
    for name, uid in logs.items():
        (node.root / f"var/log/pods/ml_{name}_{uid}").mkdir(parents=True, exist_ok=True)


def test_a_pod_that_has_ended_has_no_gpu(node: OwnersHarness) -> None:
    """The kubelet lists completed pods until they are deleted (kubernetes/kubernetes#119423)."""
    node.gpu("g")
    node.gpu("h")
    node.pods = FakePodResources(("ml/done", "main", "g"), ("ml/next", "main", "g"), ("ml/failed", "main", "h"))
    running = f"kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    pod_folders(node, running, done="2" * 32, next=UID, failed="3" * 32)
    assert [row["pod"] for row in node.owners()] == ["next"]
    assert node.collect()["gpu_allocated"] == {("g",): 1, ("h",): 0}


def test_a_pod_that_is_created_again_keeps_its_gpu_before_it_has_logs(node: OwnersHarness) -> None:
    node.gpu("g")
    node.pods = FakePodResources(("ml/train", "main", "g"))
    pod_folders(node, f"kubepods-pod{UID2}.slice", f"kubepods-pod{'4' * 32}.slice", train="2" * 32, other="4" * 32)
    assert [row["pod"] for row in node.owners()] == ["train"]
    pod_folders(node, train=UID2)
    node.time += 60
    assert [row["pod"] for row in node.owners()] == ["train"]
    (node.root / f"sys/fs/cgroup/kubepods.slice/kubepods-pod{UID2}.slice").rmdir()
    assert node.owners() == []


def test_no_pod_has_ended_where_cgroups_are_not_visible(node: OwnersHarness) -> None:
    node.gpu("g")
    node.pods = FakePodResources(("ml/train", "main", "g"))
    (node.root / f"var/log/pods/ml_train_{UID}").mkdir(parents=True)
    assert [row["pod"] for row in node.owners()] == ["train"]


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods/pod{UID}",
        f"kubepods/besteffort/pod{UID}",
        f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
        f"kubelet-kubepods-burstable-pod{UID.replace('-', '_')}.slice",
        f"memory/kubepods/burstable/pod{UID}",
        f"unified/kubepods/burstable/pod{UID}",
    ],
)
def test_cgroups_of_pods(tmp_path: Path, path: str) -> None:
    (tmp_path / "fs/cgroup" / path).mkdir(parents=True)
    (tmp_path / "fs/cgroup/system.slice/ssh.service").mkdir(parents=True)
    assert PodCgroups(tmp_path).uids(0) == frozenset({UID})


def test_process_is_named_by_the_allocation(node: OwnersHarness) -> None:
    node.pods = FakePodResources(("ml/train-0", "main", "g"))
    node.pod(10, UID, ID)
    node.gpu("g", (10, 1))
    assert node.owners() == [
        {
            "uuid": "g", "kind": "kubernetes", "namespace": "ml", "pod": "train-0", "container": "main",
            "pod_uid": UID, "container_id": ID,
        }
    ]  # fmt: skip


def test_shared_gpu_has_one_row_per_owner(node: OwnersHarness) -> None:
    """Without log folders the names are ambiguous: allocations and processes are separate rows."""
    node.pods = FakePodResources(("ml/a", "main", "g::0"), ("ml/b", "main", "g::1"), ("ml/c", "main", "g::2"))
    node.pod(10, UID, ID)
    node.pod(11, UID2, ID2)
    node.gpu("g", (10, 1), (11, 2))
    rows = node.owners()
    assert [row.get("pod", row.get("pod_uid")) for row in rows] == [UID, UID2, "a", "b", "c"]
    logs = node.root / "var/log"
    for pod, uid, id_ in (("a", UID, ID), ("b", UID2, ID2)):
        (logs / "pods" / f"ml_{pod}_{uid}").mkdir(parents=True)
        (logs / "containers" / f"{pod}_ml_main-{id_}.log").mkdir(parents=True)
    node.time += 10
    rows = node.owners()
    assert [(row["pod"], row.get("pod_uid")) for row in rows] == [("a", UID), ("b", UID2), ("c", None)]
    assert all(row["container"] == "main" for row in rows)


def test_row_stays_the_same_when_its_process_starts(node: OwnersHarness) -> None:
    logs = node.root / "var/log"
    (logs / "pods" / f"ml_a_{UID}").mkdir(parents=True)
    (logs / "containers" / f"a_ml_main-{ID}.log").mkdir(parents=True)
    node.pods = FakePodResources(("ml/a", "main", "g"))
    node.gpu("g")
    before = node.owners()
    node.pod(10, UID, ID)
    node.gpu("g", (10, 1))
    assert node.owners() == before
    assert before[0]["pod_uid"] == UID


def test_two_containers_of_one_pod(node: OwnersHarness) -> None:
    """Which of them a process is in is unknown, but the pod is known to be active."""
    node.pods = FakePodResources(("ml/a", "main", "g::0"), ("ml/a", "side", "g::1"))
    node.pod(10, UID, ID)
    node.gpu("g", (10, 1))
    assert [(row["pod"], row.get("container")) for row in node.owners()] == [("a", None)]


def test_allocated_mig_instance_also_allocates_its_parent(node: OwnersHarness) -> None:
    node.pods = FakePodResources(("ml/a", "main", "MIG-1"))
    node.gpu("g")
    node.gpu("MIG-1", parent="g")
    node.gpu("MIG-2", parent="g")
    assert node.collect()["gpu_allocated"] == {("g",): 1, ("MIG-1",): 1, ("MIG-2",): 0}


def test_unknown_device_makes_unallocated_gpus_absent(node: OwnersHarness) -> None:
    node.pods = FakePodResources(("ml/a", "main", "g"), ("ml/b", "main", "nvidia7/gi2"))
    node.gpu("g")
    node.gpu("h")
    found = node.collect()
    assert found["gpu_allocated"] == {("g",): 1}
    assert found["gpu_exporter_owner_unknown_devices"] == {(): 1}
    node.pods = FakePodResources(("ml/a", "main", "hca0"), resource="rdma/hca")
    assert node.collect()["gpu_exporter_owner_unknown_devices"] == {(): 0}


@pytest.mark.parametrize("state", ["absent", "failed", "no_permission"])
def test_unavailable_kubelet(node: OwnersHarness, state: str) -> None:
    node.pods = FakePodResources()
    node.pods.answer = PodResourcesStatus(state)
    node.pod(10, UID, ID)
    node.gpu("g", (10, 1))
    found = node.collect()
    assert "gpu_allocated" not in found
    assert "gpu_exporter_owner_unknown_devices" not in found
    assert ("pod_resources", state) in found["gpu_exporter_owner_source_info"]
    assert node.owners() == [{"uuid": "g", "kind": "kubernetes", "pod_uid": UID, "container_id": ID}]


def test_processes_that_cannot_be_looked_up(node: OwnersHarness, tmp_path: Path) -> None:
    node.proc.end(1)
    node.gpu("g", (10, 1))
    found = node.collect()
    assert "gpu_owner_info" not in found
    assert ("processes", "no_permission") in found["gpu_exporter_owner_source_info"]
    node.proc.add(1)
    (node.proc.root / "self/ns/pid").unlink()
    (node.proc.root / "self/ns/pid").symlink_to("pid:[4026532771]")
    assert ("processes", "no_host_pids") in node.collect()["gpu_exporter_owner_source_info"]


def test_unreadable_log_folders(node: OwnersHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pod_names, "_list_entries", refuse)
    node.pod(10, UID, ID)
    node.gpu("g", (10, 1))
    found = node.collect()
    assert ("pod_logs", "no_permission") in found["gpu_exporter_owner_source_info"]
    assert len(found["gpu_owner_info"]) == 1


def test_label_names_are_stable() -> None:
    """Stable names, and none that Prometheus sets itself."""
    assert {"owner_pod", "owner_namespace", "owner_container", "owner_user", "training_job"} <= set(
        metrics.OWNER_INFO.labels
    )
    for family in metrics.OWNER_FAMILIES:
        assert not {"job", "pod", "namespace", "instance"} & set(family.labels)


# Slurm


class FakeController:
    """Stands in for ScontrolClient."""

    def __init__(self, used: set[int], **jobs: set[int]) -> None:
        self.query = ScontrolQuery("")
        self.status = ScontrolStatus(
            "ok",
            ScontrolAnswer(
                frozenset(used),
                {
                    name[1:]: ScontrolJob(
                        name[1:], "", True, JobDetails(f"name-{name}", "ada", "lab", "gpu", ""), frozenset(gpus)
                    )
                    for name, gpus in jobs.items()
                },
            ),
        )

    def current(self) -> ScontrolStatus:
        return self.status


class SlurmHarness(OwnersHarness):
    """A node with four GPUs, g0 to g3, in the order of gres.conf."""

    controller: FakeController | None = None

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (root / "etc/slurm").mkdir()
        (root / "etc/slurm/gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
        for index in range(4):
            identity = DeviceIdentity(f"g{index}", str(index), "H100", "NVIDIA")
            self.devices.append(DeviceReading(identity))

    def build(self) -> OwnerCollector:
        settings = OwnerSettings(self.root / "proc", self.root / "sys", self.root, "n1")
        return OwnerCollector(
            lambda: self.devices, settings, self.pods, lambda: self.time, self.controller,  # type: ignore[arg-type]
        )  # fmt: skip

    def run(self, index: int, *pids: int) -> None:
        self.devices[index] = DeviceReading(
            self.devices[index].identity, processes=tuple(GpuProcess(pid, 1) for pid in pids)
        )

    def job(self, job: str, pid: int, step: str = "batch", **variables: str) -> None:
        """A job with one process, in a v2 cgroup."""
        path = f"system.slice/slurmstepd.scope/{job}/step_{step}/user/task_0"
        folder = self.root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(f"{pid}\n")
        environ = {f"SLURM_{name}": value for name, value in variables.items()} if variables else None
        self.proc.add(pid, f"0::/{path}\n", environ=environ)


@pytest.fixture
def slurm(tmp_path: Path) -> SlurmHarness:
    return SlurmHarness(tmp_path)


def test_job_has_a_row_on_each_of_its_gpus(slurm: SlurmHarness) -> None:
    slurm.job("s3A9M8KZQ0N500", 10, JOB_ID="9", JOB_SLUID="s3A9M8KZQ0N500", JOB_GPUS="1,2", JOB_NAME="fit",
              JOB_ACCOUNT="lab", JOB_PARTITION="gpu", ARRAY_JOB_ID="6", ARRAY_TASK_ID="3")  # fmt: skip
    slurm.run(2, 10)
    job = {
        "kind": "slurm", "user": "alice", "training_job": "9", "job_name": "fit", "account": "lab", "partition": "gpu",
        "array_task": "6_3",
    }  # fmt: skip
    assert slurm.owners() == [{"uuid": "g1", **job}, {"uuid": "g2", **job, "step": "batch"}]
    found = slurm.collect()
    assert found["gpu_allocated"] == {("g1",): 1, ("g2",): 1}, "without the controller, the others may be allocated"
    assert ("slurm_cgroups", "ok") in found["gpu_exporter_owner_source_info"]
    shutil.rmtree(slurm.root / "sys/fs/cgroup/system.slice/slurmstepd.scope/s3A9M8KZQ0N500")
    slurm.run(2)
    assert slurm.owners() == []


def test_jobs_are_distinct_while_only_their_sluids_are_known(slurm: SlurmHarness) -> None:
    """Two jobs of one user: neither environment nor slurmstepd can be read."""
    for pid, sluid in ((10, "s3A9M8KZQ0N500"), (11, "s3A9M8KZQ0N900")):
        slurm.proc.add(pid, f"0::/system.slice/slurmstepd.scope/{sluid}/step_0/user/task_0\n")
    slurm.run(0, 10, 11)
    rows = [{"uuid": "g0", "kind": "slurm", "user": "alice", "training_job": f"s3A9M8KZQ0N{n}00", "step": "0"}
            for n in (5, 9)]  # fmt: skip
    assert slurm.owners() == rows


def test_one_jobs_processes_that_disagree_on_its_name(slurm: SlurmHarness) -> None:
    """A process can change its environment: it cannot multiply the series of its job."""
    for pid in range(10, 14):
        path = f"0::/system.slice/slurmstepd.scope/job_9/step_0/user/task_{pid}\n"
        slurm.proc.add(pid, path, environ={"SLURM_JOB_ID": "9", "SLURM_JOB_NAME": f"name {pid}"})
    slurm.run(0, 10, 11, 12, 13)
    assert len(slurm.owners()) == 1


def test_controller_names_jobs_and_free_gpus(slurm: SlurmHarness) -> None:
    slurm.controller = FakeController({0, 1, 3}, j9={0}, j12={3})
    slurm.job("job_9", 10)  # its environment cannot be read
    slurm._collector = slurm.build()
    known = {"kind": "slurm", "user": "ada", "account": "lab", "partition": "gpu"}
    assert slurm.owners() == [
        {"uuid": "g0", **known, "training_job": "9", "job_name": "name-j9"},
        {"uuid": "g1", "kind": "slurm"},  # allocated, owner unknown
        {"uuid": "g3", **known, "training_job": "12", "job_name": "name-j12"},
    ]
    assert slurm.collect()["gpu_allocated"] == {("g0",): 1, ("g1",): 1, ("g2",): 0, ("g3",): 1}
    query = slurm.controller.query
    assert (query.node, query.jobs, query.detailed, query.unexplained) == (
        "n1", frozenset({"12"}), frozenset({"12"}), frozenset({1}),
    )  # fmt: skip


def test_job_whose_gpus_are_unknown_is_asked_for(slurm: SlurmHarness) -> None:
    slurm.controller = FakeController(set())
    slurm.job("job_9", 10)
    slurm.job("job_8", 11, JOB_ID="8", JOB_GPUS="0")
    slurm._collector = slurm.build()
    slurm.collect()
    query = slurm.controller.query
    assert query.jobs == frozenset({"8", "9"})
    assert query.detailed == frozenset({"9"}), "details load all nodes of the cluster"


def test_requeued_job_is_asked_for_again(slurm: SlurmHarness) -> None:
    slurm.controller = FakeController({0}, j9={0})
    slurm.job("job_9", 10)
    slurm._collector = slurm.build()
    assert [row["uuid"] for row in slurm.owners()] == ["g0"]
    assert slurm.controller.query.jobs == frozenset()
    shutil.rmtree(slurm.root / "sys/fs/cgroup/system.slice/slurmstepd.scope/job_9")
    assert slurm.owners() == [], "the answer of the controller is older"
    slurm.job("job_9", 11)
    slurm.collect()
    assert slurm.controller.query.detailed == {"9"}


def test_unknown_job_is_the_one_whose_process_is_there(slurm: SlurmHarness) -> None:
    """Slurm without cgroups: the process is known, what the job holds is not yet."""
    slurm.controller = FakeController({0})
    slurm.proc.add(10, environ={"SLURM_JOB_ID": "9", "SLURM_JOB_UID": "1000", "SLURM_STEP_ID": "0"})
    slurm.run(0, 10)
    slurm._collector = slurm.build()
    assert [(row["uuid"], row["training_job"]) for row in slurm.owners()] == [("g0", "9")]


def test_kubelet_and_slurm_on_one_node(slurm: SlurmHarness) -> None:
    """A GPU is free only if both say so."""
    slurm.pods = FakePodResources(("ml/a", "main", "g0"))
    slurm.job("job_9", 10, JOB_ID="9", JOB_GPUS="1")
    assert slurm.collect()["gpu_allocated"] == {("g0",): 1, ("g1",): 1}
    slurm.controller = FakeController({1}, j9={1})
    slurm._collector = slurm.build()
    assert slurm.collect()["gpu_allocated"] == {("g0",): 1, ("g1",): 1, ("g2",): 0, ("g3",): 0}


def test_device_of_a_claim_by_pool(node: OwnersHarness) -> None:
    """The CDI name says nothing, the names of pool and device do."""
    node.gpu("g")
    node.pods = FakePodResources()
    claim = DeviceAllocation("ml", "train-0", "main", "k8s.gpu.nvidia.com/claim", "opaque", ("node-1/gpu-0",))
    node.pods.answer = PodResourcesStatus("ok", frozenset({claim}))
    assert [(row["uuid"], row["pod"]) for row in node.owners()] == [("g", "train-0")]
    unknown = DeviceAllocation("ml", "train-0", "main", "gpu.nvidia.com", "node-1/gpu-7")
    node.pods.answer = PodResourcesStatus("ok", frozenset({unknown}))
    assert node.collect()["gpu_exporter_owner_unknown_devices"] == {(): 1}
