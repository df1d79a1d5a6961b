"""MIG mode: instances and their parent, no double counting, changes while the exporter runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.devices.nvidia_gpu import PROCESS_INTERVAL_SECONDS
from gpu_exporter.devices.nvidia_mig import LIST_INTERVAL_SECONDS, profile_gigabytes
from gpu_exporter.snapshot import DeviceReading, DownReason, GpuProcess

from tests.simulated_nvml.control import NOT_SUPPORTED, UNKNOWN, SimulatedGpu, SimulatedMigInstance
from tests.simulated_nvml.device_values import absent, down_reasons, values
from tests.unit.devices.conftest import SimulatedMachine
from tests.unit.devices.test_nvidia_gpm import live_samples

MIB = 1024 * 1024


def h100_with_mig_instances() -> SimulatedGpu:
    """As in nvidia-smi: 3g, 2g, 1g, with free placements."""
    return SimulatedGpu(
        mig=True,
        memory_used=900,
        pids=[11, 12],
        pcie_rate=2**20,
        level=100,
        instances=[
            SimulatedMigInstance(
                "3g.40gb", memory_total=40448, memory_used=600, gpu_instance=2, sm_activity=75, pids=[11]
            ),
            SimulatedMigInstance("2g.20gb", memory_total=20096, memory_used=300, gpu_instance=3, place=2, pids=[12]),
            SimulatedMigInstance("1g.10gb", memory_total=9984, gpu_instance=9, place=6, placement=6),
        ],
    )


def read(machine: SimulatedMachine, *gpus: SimulatedGpu) -> tuple[DeviceReading, ...]:
    machine.control.gpus = list(gpus)
    machine.write()
    return machine.driver.read()


def test_instances_follow_their_parent_and_name_it(machine: SimulatedMachine) -> None:
    parent, *instances = read(machine, h100_with_mig_instances())
    assert parent.identity.parent_uuid == parent.identity.mig_profile == ""
    assert [(s.identity.index, s.identity.mig_profile) for s in instances] == [
        ("0:0", "3g.40gb"),
        ("0:2", "2g.20gb"),
        ("0:6", "1g.10gb"),
    ]
    # The driver says where the last one is.
    assert [s.identity.mig_placement for s in instances] == ["", "", "6"]
    assert {s.identity.parent_uuid for s in instances} == {parent.identity.uuid}
    assert {(s.identity.pci_bus_id, s.identity.name, s.identity.driver_version) for s in instances} == {
        (parent.identity.pci_bus_id, parent.identity.name, parent.identity.driver_version)
    }
    assert len({s.identity.uuid for s in (parent, *instances)}) == 4


def test_each_instance_has_its_own_memory_and_processes(machine: SimulatedMachine) -> None:
    parent, *instances = read(machine, h100_with_mig_instances())
    assert [values(s)["gpu_memory_total_bytes"] / MIB for s in instances] == [40448, 20096, 9984]
    assert [values(s)["gpu_memory_used_bytes"] / MIB for s in instances] == [600, 300, 0]
    assert [s.processes for s in instances] == [(GpuProcess(11, 600 * MIB),), (GpuProcess(12, 300 * MIB),), ()]
    assert parent.processes == ()  # each process once
    assert values(parent)["gpu_memory_used_bytes"] == 900 * MIB


def test_totals_over_gpus_without_a_parent_count_nothing_twice(machine: SimulatedMachine) -> None:
    devices = read(machine, h100_with_mig_instances(), SimulatedGpu(memory_used=100))
    whole = [device for device in devices if not device.identity.parent_uuid]
    parents = {device.identity.parent_uuid for device in devices}
    usable = [device for device in devices if device.identity.uuid not in parents]
    assert sum(values(device)["gpu_memory_used_bytes"] for device in whole) == 1000 * MIB
    assert sum(values(device)["gpu_memory_used_bytes"] for device in usable) == 1000 * MIB


def test_utilization_in_mig_mode_is_unsupported_never_zero(machine: SimulatedMachine) -> None:
    for device in read(machine, h100_with_mig_instances()):
        for family in ("gpu_utilization_ratio", "gpu_busy_seconds_total", "gpu_observed_seconds_total"):
            assert absent(device)[family] == "unsupported"
            assert family not in values(device)


def test_instances_have_activity_and_traffic_through_gpm(machine: SimulatedMachine) -> None:
    read(machine, h100_with_mig_instances())
    machine.wait(2.0)
    parent, first, second, _ = machine.driver.read()
    assert values(first)["gpu_sm_activity_ratio"] == 0.75
    assert values(second)["gpu_sm_activity_ratio"] == 0
    assert absent(parent)["gpu_sm_activity_ratio"] == "unsupported"
    assert values(first)["gpu_pcie_transmit_bytes_total"] == pytest.approx(2 * 2**20)
    assert absent(first)["gpu_nvlink_transmit_bytes_total"] == "unsupported"


def test_instances_do_not_list_board_metrics(machine: SimulatedMachine) -> None:
    _, first, *_ = read(machine, h100_with_mig_instances())
    families = set(values(first)) | set(absent(first))
    assert not families & {
        "gpu_power_watts",
        "gpu_temperature_celsius",
        "gpu_sm_clock_hertz",
        "gpu_energy_joules_total",
    }


def test_instances_of_an_older_gpu_without_gpm(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.gpm = 0
    _, first, *_ = read(machine, gpu)
    assert absent(first)["gpu_sm_activity_ratio"] == "unsupported"
    assert values(first)["gpu_memory_used_bytes"] == 600 * MIB


def test_mig_enabled_and_disabled_while_running(machine: SimulatedMachine, nvml_library: Path) -> None:
    before = live_samples(nvml_library)
    assert len(read(machine, SimulatedGpu(level=50))) == 1
    machine.wait(1.0)
    machine.control.gpus = [h100_with_mig_instances()]
    machine.wait(1.0)
    on = machine.driver.read()
    assert len(on) == 4
    assert absent(on[0])["gpu_utilization_ratio"] == "unsupported"
    assert absent(on[0])["gpu_nvlink_links"] == "unsupported"
    machine.control.gpus = [SimulatedGpu(level=50)]
    for _ in range(2):
        machine.wait(1.0)
        (off,) = machine.driver.read()
    assert values(off)["gpu_utilization_ratio"] == 0.5
    assert values(off)["gpu_sm_activity_ratio"] == 0
    assert values(off)["gpu_nvlink_links", "active"] == 18
    machine.driver.close()
    assert live_samples(nvml_library) == before


def test_busy_time_continues_after_mig_was_disabled(machine: SimulatedMachine) -> None:
    read(machine, SimulatedGpu(level=100))
    for gpus in ([SimulatedGpu(level=100)], [h100_with_mig_instances()], [SimulatedGpu(level=100)]):
        machine.control.gpus = gpus
        for _ in range(3):
            machine.wait(1.0)
            device = machine.driver.read()[0]
    assert 5 < values(device)["gpu_observed_seconds_total"] <= 9


def test_mig_instances_recreated_while_running(machine: SimulatedMachine, nvml_library: Path) -> None:
    before = live_samples(nvml_library)
    read(machine, h100_with_mig_instances())
    machine.gpus[0].instances = [SimulatedMigInstance("7g.80gb", uuid="MIG-whole", memory_total=80896, memory_used=1)]
    machine.wait(LIST_INTERVAL_SECONDS)
    _, only = machine.driver.read()
    assert (only.identity.uuid, only.identity.mig_profile) == ("MIG-whole", "7g.80gb")
    assert live_samples(nvml_library) == before + 2  # the samples of removed instances were freed
    machine.gpus[0].instances = []
    machine.wait(LIST_INTERVAL_SECONDS)
    assert len(machine.driver.read()) == 1


def test_recreated_instance_with_the_same_uuid_is_reopened(machine: SimulatedMachine) -> None:
    read(
        machine,
        SimulatedGpu(
            mig=True,
            instances=[
                SimulatedMigInstance(uuid="MIG-a", memory_used=1),
                SimulatedMigInstance(uuid="MIG-b", memory_used=2),
            ],
        ),
    )
    machine.gpus[0].instances = [
        SimulatedMigInstance(uuid="MIG-b", memory_used=20),
        SimulatedMigInstance(uuid="MIG-a", memory_used=10),
    ]
    machine.wait(LIST_INTERVAL_SECONDS)
    _, *instances = machine.driver.read()
    used = {slice_.identity.uuid: values(slice_)["gpu_memory_used_bytes"] / MIB for slice_ in instances}
    assert used == {"MIG-a": 10, "MIG-b": 20}


def test_removed_instance_is_down_until_the_next_listing(machine: SimulatedMachine) -> None:
    read(machine, h100_with_mig_instances())
    machine.gpus[0].instances = machine.gpus[0].instances[:2]
    machine.wait(1.0)
    assert down_reasons(machine.driver.read()) == [None, None, None, DownReason.ERROR]
    machine.wait(1.0)
    assert down_reasons(machine.driver.read()) == [None, None, None]


def test_instances_of_a_lost_gpu_are_lost(machine: SimulatedMachine) -> None:
    devices = read(machine, h100_with_mig_instances(), SimulatedGpu())
    machine.gpus[0].lost = True
    machine.wait(1.0)
    lost = machine.driver.read()
    assert down_reasons(lost) == [DownReason.LOST] * 4 + [None]
    assert [device.identity for device in lost] == [device.identity for device in devices]


def test_processes_belong_to_their_instance(machine: SimulatedMachine) -> None:
    assert read(machine, SimulatedGpu(pids=[5], memory_used=10))[0].processes == (GpuProcess(5, 10 * MIB),)
    machine.control.gpus = [h100_with_mig_instances()]
    machine.wait(PROCESS_INTERVAL_SECONDS)
    assert [len(device.processes) for device in machine.driver.read()] == [0, 1, 1, 0]


def test_a_driver_without_the_profile_in_the_name(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.instances = [SimulatedMigInstance("3g.40gb", memory_total=40448, memory_used=1)]
    gpu.name = "NVIDIA"
    _, only = read(machine, gpu)
    assert only.identity.mig_profile == "3g.40gb"


@pytest.mark.parametrize("code", [NOT_SUPPORTED, UNKNOWN])
def test_a_gpu_whose_mode_is_not_reported_is_whole(machine: SimulatedMachine, code: int) -> None:
    (device,) = read(machine, SimulatedGpu(level=30, errors={"nvmlDeviceGetMigMode": code}))
    assert values(device)["gpu_utilization_ratio"] == 0.3


def test_failed_listing_only_affects_the_instances(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.errors = {"nvmlDeviceGetMaxMigDeviceCount": UNKNOWN}
    assert down_reasons(read(machine, gpu)) == [None]


# ---- compute instances, and drivers that fail --------------------------------------------------------------------


def shared_gpu_instance() -> SimulatedGpu:
    """A GPU instance with two compute instances, listed second first."""
    return SimulatedGpu(
        mig=True,
        level=100,
        instances=[
            SimulatedMigInstance(
                "2c.3g.40gb", uuid="MIG-b", gpu_instance=2, compute_instance=1, memory_total=40448, memory_used=600,
                sm_activity=75, pids=[12, 13],
            ),
            SimulatedMigInstance(
                "1c.3g.40gb", uuid="MIG-a", gpu_instance=2, compute_instance=0, memory_total=40448, memory_used=600,
                sm_activity=75, pids=[11],
            ),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("lists_others", [0, 1])
def test_the_first_compute_instance_has_what_they_share(machine: SimulatedMachine, lists_others: int) -> None:
    gpu = shared_gpu_instance()
    for instance in gpu.instances:
        instance.lists_others = lists_others
    read(machine, gpu)
    machine.wait(1)
    _, second, first = machine.driver.read()
    assert [device.identity.gpu_instance_id for device in (first, second)] == ["2", "2"]
    assert values(first)["gpu_memory_used_bytes"] == 600 * MIB
    assert values(first)["gpu_sm_activity_ratio"] == 0.75
    assert set(values(second)) == {"gpu_processes"}
    for family in ("gpu_memory_total_bytes", "gpu_memory_used_bytes", "gpu_sm_activity_ratio"):
        assert absent(second)[family] == "shared"
    assert [[process.pid for process in device.processes] for device in (first, second)] == [[11], [12, 13]]


def test_when_the_first_compute_instance_is_removed_the_next_has_what_they_shared(machine: SimulatedMachine) -> None:
    gpu = shared_gpu_instance()
    read(machine, gpu)
    gpu.instances = gpu.instances[:1]
    for _ in range(2):
        machine.wait(LIST_INTERVAL_SECONDS)
        devices = machine.driver.read()
    assert values(devices[1])["gpu_memory_used_bytes"] == 600 * MIB


def test_a_profile_from_attributes_names_the_compute_slices(machine: SimulatedMachine) -> None:
    gpu = shared_gpu_instance()
    gpu.texts = {"nvmlDeviceGetName": b"NVIDIA"}
    assert [device.identity.mig_profile for device in read(machine, gpu)] == ["", "2c.3g.40gb", "1c.3g.40gb"]


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetUUID"]
)
def test_instances_stay_while_the_driver_fails_to_list_them(machine: SimulatedMachine, function: str) -> None:
    before = read(machine, h100_with_mig_instances())
    machine.gpus[0].errors = {function: UNKNOWN}
    machine.wait(LIST_INTERVAL_SECONDS)
    devices = machine.driver.read()
    assert [device.identity for device in devices] == [device.identity for device in before]
    assert down_reasons(devices) == [None] * 4


@pytest.mark.parametrize("code", [1, 15, UNKNOWN])
def test_a_failing_call_leaves_the_instance_up(machine: SimulatedMachine, code: int) -> None:
    gpu = h100_with_mig_instances()
    gpu.errors = {"nvmlDeviceGetMemoryInfo_v2": code}
    devices = read(machine, gpu)
    assert down_reasons(devices) == [None] * 4
    assert [absent(device)["gpu_memory_used_bytes"] for device in devices] == ["error"] * 4
    assert [values(device)["gpu_processes"] for device in devices[1:]] == [1, 1, 0]


def test_instances_without_the_newer_memory_call(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.errors = {"nvmlDeviceGetMemoryInfo_v2": NOT_SUPPORTED}
    devices = read(machine, gpu)
    assert down_reasons(devices) == [None] * 4
    assert [values(device)["gpu_memory_used_bytes"] / MIB for device in devices[1:]] == [600, 300, 0]


def test_an_instance_whose_ids_are_unknown_has_no_activity_of_another(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.errors = {"nvmlDeviceGetGpuInstanceId": UNKNOWN}
    read(machine, gpu)
    machine.wait(1)
    for device in machine.driver.read()[1:]:
        assert device.identity.gpu_instance_id == ""
        assert "gpu_sm_activity_ratio" not in values(device)


@pytest.mark.parametrize(
    ("gpu_mib", "instance_mib", "gigabytes"),
    [
        (40536, 4864, 5), (40536, 40192, 40), (81920, 9728, 10), (81920, 80896, 80), (24258, 5952, 6),
        (95830, 11008, 12), (95830, 47488, 47), (143771, 16384, 18), (143771, 71424, 71), (0, 9984, 10),
    ],
)  # fmt: skip
def test_size_in_the_name_of_a_profile(gpu_mib: int, instance_mib: int, gigabytes: int) -> None:
    """Profiles of A100, A30, H100 NVL and H200 (NVIDIA's MIG user guide): 7g.79gb would be none (dcgm-exporter#713)."""
    assert profile_gigabytes(instance_mib * MIB, gpu_mib * MIB) == gigabytes


def test_a_profile_without_a_device_name(machine: SimulatedMachine) -> None:
    gpu = h100_with_mig_instances()
    gpu.instances = [SimulatedMigInstance("7g.80gb", memory_total=80896, memory_used=1)]
    gpu.errors = {"nvmlDeviceGetName": NOT_SUPPORTED}
    _, only = read(machine, gpu)
    assert only.identity.mig_profile == "7g.80gb"
