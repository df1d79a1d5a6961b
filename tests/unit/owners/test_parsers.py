"""cgroup paths of each manager, and their owners."""

from __future__ import annotations

import pytest
from gpu_exporter.owners import parse_owner
from gpu_exporter.owners.base import Owner, OwnerKind
from hypothesis import given
from hypothesis import strategies as st

K, S, C, D, U = OwnerKind.KUBERNETES, OwnerKind.SLURM, OwnerKind.CONTAINER, OwnerKind.SYSTEMD, OwnerKind.USER
UID = "0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11"
UID_ = UID.replace("-", "_")
STATIC = "1d9a3b5c7e8f0a2b4c6d8e0f1a3b5c7d"
ID = "7c5f0f5d8f3f1f0b9c1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778"
OTHER = "f" * 64

#: cgroup path -> kind, pod uid, container id, job, step, unit
PATHS: dict[str, tuple[OwnerKind, str, str, str, str, str]] = {
    # kubelet, systemd driver: containerd, CRI-O (with a child cgroup), cri-dockerd, kind, a static pod
    f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope": (
        K, UID, ID, "", "", f"cri-containerd-{ID}.scope"),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope/container": (
        K, UID, ID, "", "", f"crio-{ID}.scope"),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope": (
        K, UID, ID, "", "", f"docker-{ID}.scope"),
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope": (
        K, UID, ID, "", "", f"cri-containerd-{ID}.scope"),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope": (
        K, STATIC, ID, "", "", f"cri-containerd-{ID}.scope"),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope": (K, UID, "", "", "", f"crio-conmon-{ID}.scope"),
    # kubelet, cgroupfs driver: guaranteed, burstable, besteffort
    f"/kubepods/pod{UID}/{ID}": (K, UID, ID, "", "", ""),
    f"/kubepods/burstable/pod{UID}/{ID}": (K, UID, ID, "", "", ""),
    f"/kubepods/besteffort/pod{UID}/crio-{ID}": (K, UID, ID, "", "", ""),
    f"/docker/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}": (K, UID, ID, "", "", ""),
    # containerd without its systemd setting
    f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}": (
        K, UID, ID, "", "", "containerd.service"),
    # a sibling, seen from within a pod; and Docker in a pod
    f"/../../pod{UID}/{ID}": (K, UID, ID, "", "", ""),
    f"/../../kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope": (K, UID, ID, "", "", f"cri-containerd-{ID}.scope"),
    f"/kubepods/pod{UID}/{ID}/docker/{OTHER}": (K, UID, ID, "", "", ""),
    # Slurm, version 1 and 2
    "/slurm/uid_1000/job_4242/step_0/task_3": (S, "", "", "4242", "0", ""),
    "/slurm_node7/uid_1000/job_4242/step_batch": (S, "", "", "4242", "batch", ""),
    "/slurm/uid_1000/job_4242": (S, "", "", "4242", "", ""),
    "/system.slice/slurmstepd.scope/job_4242/step_extern/user/task_special": (
        S, "", "", "4242", "extern", "slurmstepd.scope"),
    "/system.slice/node7_slurmstepd.scope/job_4242/step_interactive/user/task_0": (
        S, "", "", "4242", "interactive", "node7_slurmstepd.scope"),
    "/../job_4242/step_1/user/task_0": (S, "", "", "4242", "1", ""),
    "/system.slice/slurmstepd.scope/job_4242/step_0+1/user/task_0": (S, "", "", "4242", "0+1", "slurmstepd.scope"),
    # since 26.05: the SLUID; in another slice, in a container, from within the scope, the job's own cgroup
    "/system.slice/slurmstepd.scope/s0K1KKYAYG5D00/step_0/user/task_0": (
        S, "", "", "s0K1KKYAYG5D00", "0", "slurmstepd.scope"),
    "/hpc.slice/gpu01_slurmstepd.scope/sFKNKTV3WPV5ZZ/step_batch/slurm": (
        S, "", "", "sFKNKTV3WPV5ZZ", "batch", "gpu01_slurmstepd.scope"),
    "/lxc.payload.c1/system.slice/slurmstepd.scope/s3A9M8KZQ0N500/step_extern/user/task_special": (
        S, "", "c1", "s3A9M8KZQ0N500", "extern", "slurmstepd.scope"),
    "/../s3A9M8KZQ0N500/step_interactive/user/task_0": (S, "", "", "s3A9M8KZQ0N500", "interactive", ""),
    "/system.slice/slurmstepd.scope/s3A9M8KZQ0N500": (S, "", "", "s3A9M8KZQ0N500", "", "slurmstepd.scope"),
    # no SLUIDs: a letter outside of base 32, too large a first digit, too short; and slurmd itself
    "/system.slice/slurmstepd.scope/s3A9M8KZQ0N5I0/x": (D, "", "", "", "", "slurmstepd.scope"),
    "/system.slice/slurmstepd.scope/sZA9M8KZQ0N500/x": (D, "", "", "", "", "slurmstepd.scope"),
    "/system.slice/slurmstepd.scope/s3A9M8KZQ0N50/x": (D, "", "", "", "", "slurmstepd.scope"),
    "/system.slice/n1_slurmstepd.scope/slurmd": (D, "", "", "", "", "n1_slurmstepd.scope"),
    "/s3A9M8KZQ0N500/x": (U, "", "", "", "", ""),
    f"/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/libpod-{ID}": (S, "", ID, "7", "0", "slurmstepd.scope"),
    # containers
    f"/docker/{ID}": (C, "", ID, "", "", ""),
    f"/system.slice/docker-{ID}.scope": (C, "", ID, "", "", f"docker-{ID}.scope"),
    f"/system.slice/nerdctl-{ID}.scope": (C, "", ID, "", "", f"nerdctl-{ID}.scope"),
    f"/docker/{ID}/docker/{OTHER}": (C, "", ID, "", "", ""),
    f"/default/{ID}": (C, "", ID, "", "", ""),
    f"/machine.slice/libpod-{ID}.scope/container": (C, "", ID, "", "", f"libpod-{ID}.scope"),
    f"/libpod_parent/libpod-{ID}": (C, "", ID, "", "", ""),
    f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope": (
        C, "", ID, "", "", f"libpod-{ID}.scope"),
    "/lxc/web/system.slice/x.service": (C, "", "web", "", "", "x.service"),
    "/lxc.payload.web/init.scope": (C, "", "web", "", "", "init.scope"),
    "/lxc.payload/web": (C, "", "web", "", "", ""),
    # units and users
    "/system.slice/ollama.service": (D, "", "", "", "", "ollama.service"),
    "/system.slice/system-jupyter.slice/jupyter@ada.service (deleted)": (D, "", "", "", "", "jupyter@ada.service"),
    "/system.slice/vm.service/user.slice/x.scope": (D, "", "", "", "", "x.scope"),
    "/init.scope": (D, "", "", "", "", "init.scope"),
    "/training.slice": (D, "", "", "", "", ""),
    "/user.slice/user-1000.slice/session-3.scope": (U, "", "", "", "", "session-3.scope"),
    "/user.slice/user-1000.slice/user@1000.service/app.slice/train.service": (U, "", "", "", "", "train.service"),
    # no known owner, and similar names
    "/": (U, "", "", "", "", ""),
    "/somewhere/job_42": (U, "", "", "", "", ""),
    f"/pod{UID}x/{ID[:-1]}": (U, "", "", "", "", ""),
    "/lxc": (U, "", "", "", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "text",
    [
        "0::{}\n",
        "12:devices:{}\n11:memory:{}\n1:name=systemd:{}\n0::/\n",
        "0::{}",
    ],
)
def test_paths_of_each_manager(path: str, text: str) -> None:
    found = parse_owner(text.replace("{}", path))
    known = (found.kind, found.pod_uid, found.container_id, found.slurm_job, found.slurm_step, found.unit)
    assert known == PATHS[path]


def test_hierarchies_that_differ() -> None:
    """cgroup v1 with Slurm: systemd's hierarchy and some controllers lack the job."""
    found = parse_owner(
        "9:cpuset:/slurm/uid_1000/job_5\n8:devices:/slurm/uid_1000/job_5/step_2/task_0\n7:pids:/\n"
        "1:name=systemd:/system.slice/slurmd.service\n0::/system.slice/slurmd.service\n"
    )
    assert found == Owner(S, slurm_job="5", slurm_step="2", unit="slurmd.service", slice="system.slice")


def test_slice_of_a_user() -> None:
    path = "/user.slice/user-1000.slice/user@1000.service/app.slice/train.service"
    assert parse_owner(f"0::{path}\n").slice == "user-1000.slice"


@given(st.text())
def test_any_text_has_an_owner(text: str) -> None:
    assert isinstance(parse_owner(text), Owner)


@given(st.lists(st.sampled_from(sorted(PATHS)), min_size=1, max_size=5))
def test_most_specific_kind_wins(paths: list[str]) -> None:
    kind = parse_owner("".join(f"{i}:c{i}:{path}\n" for i, path in enumerate(paths, 1))).kind
    order = list(OwnerKind)
    assert order.index(kind) == min(order.index(PATHS[path][0]) for path in paths)
