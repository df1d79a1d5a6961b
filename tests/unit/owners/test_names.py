"""Device ids -> GPUs; pod uids and container ids -> names."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.owners import pod_names
from gpu_exporter.owners.device_ids import DeviceIdResolver, is_gpu_resource
from gpu_exporter.owners.pod_names import Container, Pod, PodLogIndex, match_by_elimination
from gpu_exporter.snapshot import DeviceIdentity
from hypothesis import given
from hypothesis import strategies as st

UID = "0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11"
GPUS = (
    DeviceIdentity("GPU-a", "0", "H100", "NVIDIA", pci_bus_id="00000000:0A:00.0"),
    DeviceIdentity("GPU-b", "1", "H100", "NVIDIA", pci_bus_id="00000000:0B:00.0"),
    DeviceIdentity("MIG-c", "1.0", "H100", "NVIDIA", pci_bus_id="00000000:0B:00.0", parent_uuid="GPU-b"),
    DeviceIdentity("amd-d", "2", "MI300X", "AMD", pci_bus_id="0000:c1:00.0"),
    DeviceIdentity("intel-e", "3", "Max 1550", "Intel", pci_bus_id="0001:3a:00.0"),
)


@pytest.mark.parametrize(
    ("device_id", "uuid"),
    [
        ("GPU-a", "GPU-a"),
        ("GPU-a::7", "GPU-a"),
        ("MIG-c", "MIG-c"),
        ("MIG-c::1", "MIG-c"),
        ("nvidia1", "GPU-b"),
        ("nvidia1/vgpu3", "GPU-b"),
        ("nvidia1/gi1", ""),
        ("nvidia2", ""),
        ("0000:0a:00.0", "GPU-a"),
        ("0b:00.0", "GPU-b"),
        ("0000:C1:00.0", "amd-d"),
        ("amdgpu_xcp_3", ""),
        ("card7-0", "intel-e"),
        ("card7-12", "intel-e"),
        ("renderD135-0", "intel-e"),
        ("0001:3a:00.0", "intel-e"),
        ("3a:00.0", ""),
        ("card8-0", ""),
        ("", ""),
        ("GPU-", ""),
    ],
)
def test_device_ids(tmp_path: Path, device_id: str, uuid: str) -> None:
    for name in ("card7", "renderD135"):
        (tmp_path / "class/drm" / name).mkdir(parents=True)
        (tmp_path / "class/drm" / name / "device").symlink_to("../../../0001:3a:00.0")
    assert DeviceIdResolver(GPUS, tmp_path).resolve(device_id) == uuid


def test_gpus_without_an_address_or_a_device_link(tmp_path: Path) -> None:
    ids = DeviceIdResolver([DeviceIdentity("x", "0", "", "Other")], tmp_path)
    assert (ids.resolve(""), ids.resolve("card0-0"), ids.resolve("nvidia0"), ids.resolve("x")) == ("", "", "", "x")


def test_which_resources_are_gpus() -> None:
    gpus = ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/gpu", "gpu.intel.com/xe")
    assert all(map(is_gpu_resource, gpus))
    assert not any(map(is_gpu_resource, ("rdma/hca_shared", "intel.com/sriov", "example.com/fpga")))


# Names


def logs(root: Path, *pods: str, containers: tuple[str, ...] = ()) -> None:
    for folder, names in (("pods", pods), ("containers", containers)):
        for name in names:
            (root / folder / name).mkdir(parents=True, exist_ok=True)


def test_names_from_log_folders(tmp_path: Path) -> None:
    id_ = "ab" * 32
    logs(
        tmp_path, f"ml_train-0.a_{UID}", "not a pod", containers=(f"train-0.a_ml_main-loop-{id_}.log", "cut-short.log")
    )
    known = PodLogIndex(tmp_path)
    known.refresh({UID}, {id_}, set(), 0)
    assert known.pods == {UID: Pod("ml", "train-0.a")}
    assert known.containers == {id_: Container(Pod("ml", "train-0.a"), "main-loop")}


def test_folders_are_listed_for_new_ids_at_a_limited_rate(tmp_path: Path) -> None:
    known = PodLogIndex(tmp_path)
    known.refresh({UID}, set(), set(), 0)
    assert known.pods == {}
    logs(tmp_path, f"ml_a_{UID}")
    known.refresh({UID}, set(), set(), pod_names.MIN_RELIST_SECONDS - 1)
    assert known.pods == {}
    known.refresh({UID}, set(), set(), pod_names.MIN_RELIST_SECONDS)
    assert known.pods == {UID: Pod("ml", "a")}
    logs(tmp_path, f"ml_b_{'1' * 32}")
    known.refresh({UID}, set(), set(), 100)
    assert len(known.pods) == 1
    known.refresh(set(), set(), {Container(Pod("ml", "b"), "main")}, 100)
    assert len(known.pods) == 2


A, B, C = Pod("x", "a"), Pod("x", "b"), Pod("x", "c")


@pytest.mark.parametrize(
    ("used", "given_", "known", "named"),
    [
        ({"1": {"g0"}}, {"g0": {A}}, {}, {"1": A}),
        ({"1": {"g0"}}, {"g0": {A, B}}, {}, {}),
        # two pods on a shared GPU are distinguished by their other GPUs
        ({"1": {"g0", "g1"}, "2": {"g0"}}, {"g0": {A, B}, "g1": {A}}, {}, {"1": A, "2": B}),
        ({"1": {"g0"}, "2": {"g0"}}, {"g0": {A, B}}, {"1": A}, {"2": B}),
        ({"1": {"g0"}, "2": {"g0"}}, {"g0": {A, B}}, {}, {}),
        # two uids for one name: one pod has no allocation
        ({"1": {"g0"}, "2": {"g0"}}, {"g0": {A}}, {}, {}),
        ({"1": {"g0"}}, {}, {}, {}),
        ({"1": {"g0", "g1"}}, {"g0": {A}, "g1": {B}}, {}, {}),
        ({"1": {"g0"}}, {"g0": {A}}, {"1": C}, {}),
    ],
)
def test_elimination(used, given_, known, named) -> None:
    assert match_by_elimination(used, given_, known) == named


@given(st.data())
def test_elimination_is_correct_if_pods_use_their_allocations(data: st.DataObject) -> None:
    """Any pods and GPUs, some idle, some known: an assigned name is the right one."""
    truth = {str(n): Pod("x", str(n)) for n in range(data.draw(st.integers(1, 6)))}
    has = {uid: data.draw(st.sets(st.integers(0, 5), min_size=1)) for uid in truth}
    uses = {uid: data.draw(st.sets(st.sampled_from(sorted(gpus)))) for uid, gpus in has.items()}
    used = {uid: {str(gpu) for gpu in gpus} for uid, gpus in uses.items() if gpus}
    given_ = {str(gpu): {truth[uid] for uid, gpus in has.items() if gpu in gpus} for gpu in range(6)}
    known = {uid: pod for uid, pod in truth.items() if data.draw(st.booleans())}
    named = match_by_elimination(used, given_, known)
    assert all(truth[uid] == pod for uid, pod in named.items())
    assert not named.keys() & known.keys()
