"""Device ids -> GPUs; pod uids and container ids -> names."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.owners import pod_names
from gpu_exporter.owners.device_ids import DeviceIdResolver, is_gpu_resource, nvidia_minors
from gpu_exporter.owners.pod_names import Container, Pod, PodLogIndex, match_by_elimination
from gpu_exporter.snapshot import DeviceIdentity
from hypothesis import given
from hypothesis import strategies as st

UID = "0b6a4b1e-53f5-4b5c-9d4f-2d0c6f6a7e11"
GPUS = (
    DeviceIdentity("GPU-a", "0", "H100", "NVIDIA", pci_bus_id="00000000:0A:00.0"),
    DeviceIdentity("GPU-b", "1", "H100", "NVIDIA", pci_bus_id="00000000:0B:00.0"),
    DeviceIdentity(
        "MIG-c",
        "1:0",
        "H100",
        "NVIDIA",
        pci_bus_id="00000000:0B:00.0",
        parent_uuid="GPU-b",
        mig_profile="1g.10gb",
        gpu_instance_id="7",
    ),
    DeviceIdentity(
        "MIG-f",
        "1:1",
        "H100",
        "NVIDIA",
        pci_bus_id="00000000:0B:00.0",
        parent_uuid="GPU-b",
        mig_profile="2g.20gb",
        gpu_instance_id="3",
    ),
    DeviceIdentity(
        "MIG-g",
        "1:2",
        "H100",
        "NVIDIA",
        pci_bus_id="00000000:0B:00.0",
        parent_uuid="GPU-b",
        mig_profile="2g.20gb",
        gpu_instance_id="5",
    ),
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
        ("nvidia1/gi7", "MIG-c"),
        ("nvidia1/gi3/vgpu0", "MIG-f"),
        ("nvidia0/gi7", ""),
        ("GPU-a-3", "GPU-a"),
        ("GPU-a-_-12", "GPU-a"),
        ("GPU-a-_2", "GPU-a"),
        ("GPU-x-1", ""),
        # dynamic resource allocation: bare, in a pool, in a CDI name
        ("gpu-1", "GPU-b"),
        ("gpu-7", ""),
        ("node-1/gpu-0", "GPU-a"),
        ("pool/with/slashes/gpu-0", "GPU-a"),
        ("5f7a1d3c-1111-2222-3333-444455556666-gpu-0", "GPU-a"),
        ("gpu-1-mig-1g10gb-0", "MIG-c"),
        ("gpu-1-mig-1g10gb-19-0", "MIG-c"),
        ("gpu-1-mig-1g.10gb-0", "MIG-c"),
        ("node-1/gpu-1-mig-1g10gb-19-0", "MIG-c"),
        ("5f7a1d3c-1111-2222-3333-444455556666-gpu-1-mig-1g10gb-19-0", "MIG-c"),
        ("gpu-1-mig-2g20gb-14-2", ""),  # one of two: the placement is not known
        ("gpu-0-mig-1g10gb-0", ""),
        ("gpu-7-135", "intel-e"),
        ("0001-3a-00-0-0x0bd5", "intel-e"),
        ("node-1/0001-3a-00-0-0x0bd5", "intel-e"),
        ("0001-3b-00-0-0x0bd5", ""),
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


def partitioned_machine(sysfs: Path) -> list[DeviceIdentity]:
    """Two MI300X: one whole, one with three partitions. The platform devices are numbered in another order."""
    locations = {129: 0xC1 << 8, 130: 0xE3 << 8, 131: 0xE3 << 8 | 1 << 28, 132: 0xE3 << 8 | 2 << 28}
    for node, (minor, location) in enumerate(locations.items(), start=1):
        folder = sysfs / f"class/kfd/kfd/topology/nodes/{node}"
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"cpu_cores_count 0\nlocation_id {location}\ndomain 0\n"
                                           f"drm_render_minor {minor}\n")  # fmt: skip
    cpu = sysfs / "class/kfd/kfd/topology/nodes/0"
    cpu.mkdir()
    (cpu / "properties").write_text("cpu_cores_count 96\nlocation_id 0\ndrm_render_minor 0\n")
    for name, minor in (("amdgpu_xcp_7", 131), ("amdgpu_xcp_3", 132), ("amdgpu_xcp_9", 140)):
        device = sysfs / "devices/platform" / name
        for file in (f"card{minor - 128}", f"renderD{minor}"):
            (device / "drm" / file).mkdir(parents=True)
            (sysfs / "class/drm" / file).mkdir(parents=True)
            (sysfs / "class/drm" / file / "device").symlink_to(device)
    gpus = [
        DeviceIdentity(f"AMD-{name}", str(index), "MI300X", "amd", pci_bus_id=f"0000:{name}:00.0")
        for index, name in enumerate(("c1", "e3"))
    ]
    return [
        *gpus,
        *(
            DeviceIdentity(f"AMD-e3-cpx{n}", f"1:{n}", "MI300X", "amd", "0000:e3:00.0", parent_uuid="AMD-e3")
            for n in range(3)
        ),
    ]


@pytest.mark.parametrize(
    ("device_id", "uuid"),
    [
        ("amdgpu_xcp_7", "AMD-e3-cpx1"),
        ("amdgpu_xcp_3", "AMD-e3-cpx2"),
        ("0000:e3:00.0", "AMD-e3-cpx0"),
        ("renderD130", "AMD-e3-cpx0"),
        ("renderD131", "AMD-e3-cpx1"),
        ("card3", "AMD-e3-cpx1"),
        ("gpu-4-132", "AMD-e3-cpx2"),
        ("node-1/gpu-4-132", "AMD-e3-cpx2"),
        ("5f7a1d3c-1111-2222-3333-444455556666-gpu-3-131", "AMD-e3-cpx1"),
        ("0000:c1:00.0", "AMD-c1"),
        ("amdgpu_xcp_9", ""),  # KFD has no node of it: not in use
        ("amdgpu_xcp_1", ""),
        ("amdgpu_xcp_", ""),
        ("renderD133", ""),
    ],
)
def test_partitions_of_amd_gpus(tmp_path: Path, device_id: str, uuid: str) -> None:
    assert DeviceIdResolver(partitioned_machine(tmp_path), tmp_path).resolve(device_id) == uuid


def test_mig_instances_by_placement(tmp_path: Path) -> None:
    gpu = DeviceIdentity("GPU-b", "0", "H100", "nvidia")
    instances = [
        DeviceIdentity(f"MIG-{n}", f"0:{n}", "H100", "nvidia", parent_uuid="GPU-b", mig_profile="1g.10gb",
                       gpu_instance_id=str(9 - n), mig_placement=str(2 * n))
        for n in range(3)
    ]  # fmt: skip
    ids = DeviceIdResolver([gpu, *instances], tmp_path)
    assert [ids.resolve(f"gpu-0-mig-1g10gb-19-{start}") for start in (0, 2, 4, 6)] == ["MIG-0", "MIG-1", "MIG-2", ""]
    alone = DeviceIdResolver([gpu, instances[1]], tmp_path)
    assert (alone.resolve("gpu-0-mig-1g10gb-2"), alone.resolve("gpu-0-mig-1g10gb-0")) == ("MIG-1", "")


def test_device_files_by_minor_number(tmp_path: Path) -> None:
    """The driver numbers its files by another order than NVML."""
    for address, minor in (("0000:0a:00.0", 1), ("0000:0b:00.0", 0)):
        folder = tmp_path / "driver/nvidia/gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n")
    (tmp_path / "driver/nvidia-caps").mkdir()
    (tmp_path / "driver/nvidia-caps/mig-minors").write_text(
        "config 1\nmonitor 2\ngpu0/gi7/access 66\ngpu0/gi7/ci0/access 67\ngpu0/gi3/access 30\ngpu1/gi7/access 99\n"
    )
    (tmp_path / "devices").write_text("Character devices:\n  1 mem\n195 nvidia\n237 nvidia-caps\n\nBlock devices:\n")
    ids = DeviceIdResolver(GPUS, tmp_path, tmp_path, nvidia_minors(tmp_path))
    assert (ids.resolve("nvidia1"), ids.resolve("nvidia0/gi7"), ids.resolve("nvidia1/gi7")) == ("GPU-a", "MIG-c", "")
    names = {(195, 0): "nvidia0", (195, 255): "", (195, 254): "", (237, 66): "nvidia-cap66", (1, 3): "", (226, 0): "",
             (226, 128): "renderD128"}  # fmt: skip
    assert {number: ids.file_name(*number) for number in names} == names
    assert ids.resolve_device_files(["nvidia1"]) == (frozenset({"GPU-a"}), 0)
    assert ids.resolve_device_files(["nvidia0", "nvidia-cap66", "nvidia-cap67"]) == (frozenset({"MIG-c"}), 0)
    assert ids.resolve_device_files(["nvidia0", "nvidia-cap66", "nvidia-cap30"]) == (frozenset({"MIG-c", "MIG-f"}), 0)
    # The whole of a GPU in MIG mode, and a GPU that is not there.
    assert ids.resolve_device_files(["nvidia0"]) == (frozenset(), 1)
    assert ids.resolve_device_files(["nvidia9", ""]) == (frozenset(), 1)


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
