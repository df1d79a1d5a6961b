"""Which GPU is which, where the driver does not say so, says so later, or says the same of two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pynvml
import pytest
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.nvidia import LOST_GPU_RETRY_SECONDS
from gpu_exporter.devices.nvidia_xid import XidListener
from gpu_exporter.snapshot import DeviceReading, DownReason

from tests.simulated_nvml.control import NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, SimulatedGpu
from tests.simulated_nvml.device_values import down_reasons, values
from tests.unit.devices.conftest import SimulatedMachine

UUID, ADDRESS, NAME = "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetName"
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
MACHINE = "35971be6"  # of node-1


def start(machine: SimulatedMachine, *gpus: SimulatedGpu) -> tuple[DeviceReading, ...]:
    machine.control.gpus = list(gpus)
    machine.write()
    return machine.driver.read()


def later(machine: SimulatedMachine) -> tuple[DeviceReading, ...]:
    """The second reading after GPUs are tried again."""
    machine.wait(LOST_GPU_RETRY_SECONDS + 1)
    machine.driver.read()
    machine.wait(1)
    return machine.driver.read()


def uuids(devices: tuple[DeviceReading, ...]) -> list[str]:
    return [device.identity.uuid for device in devices]


@pytest.fixture
def file(machine: SimulatedMachine, tmp_path: Path) -> Path:
    machine.state_file = tmp_path / "state" / "nvidia.json"
    machine.restart()
    return machine.state_file


def test_names_that_fail_are_read_later(machine: SimulatedMachine) -> None:
    (device,) = start(machine, SimulatedGpu(uuid="GPU-a", errors={NAME: UNKNOWN}))
    assert (device.identity.name, device.down) == ("", None)
    machine.gpus[0].errors = {}
    (device,) = later(machine)
    assert (device.identity.name, device.identity.uuid) == ("NVIDIA H100 80GB HBM3", "GPU-a")


def test_a_known_gpu_keeps_its_identity_when_the_driver_fails_to_say_it(machine: SimulatedMachine, file: Path) -> None:
    before = start(machine, SimulatedGpu(uuid="GPU-a"), SimulatedGpu(uuid="GPU-b"))
    machine.driver.close()
    machine.restart()
    machine.gpus[0].errors = {UUID: UNKNOWN, NAME: UNKNOWN}
    machine.gpus[1].errors = {ADDRESS: UNKNOWN}
    machine.wait(1)
    devices = machine.driver.read()
    assert [device.identity for device in devices] == [device.identity for device in before]
    assert down_reasons(devices) == [None, None]


def test_the_uuid_that_is_made_up_is_given_up_for_the_drivers(machine: SimulatedMachine) -> None:
    (device,) = start(machine, SimulatedGpu(uuid="GPU-a", errors={UUID: UNKNOWN}))
    assert (device.identity.uuid, device.down) == (f"NVIDIA-{MACHINE}-00000000:10:00.0", None)
    machine.gpus[0].errors = {}
    assert uuids(later(machine)) == ["GPU-a"]


def test_asking_again_loses_no_events(machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each registration misses what happens meanwhile: a GPU that never has a uuid must not cause one each minute."""
    registered = []
    restart = XidListener.restart

    def count_and_restart(listener: XidListener, names: Mapping[int | None, str] | None = None) -> None:
        registered.append(names)
        restart(listener, names)

    monkeypatch.setattr(XidListener, "restart", count_and_restart)
    start(machine, SimulatedGpu(errors={UUID: NOT_SUPPORTED}))
    for _ in range(3):
        later(machine)
    assert len(registered) == 1
    machine.gpus[0].errors = {}
    later(machine)
    assert len(registered) == 2


def test_machines_have_different_uuids_for_gpus_without_one(machine: SimulatedMachine) -> None:
    gpu = SimulatedGpu(errors={UUID: NOT_SUPPORTED, ADDRESS: NOT_SUPPORTED})
    first = uuids(start(machine, gpu))
    machine.driver.close()
    (machine.paths.procfs / "sys/kernel/hostname").write_text("node-2\n")
    machine.restart()
    assert len({*first, *uuids(start(machine, gpu))}) == 2
    serial = machine.paths.sysfs / "firmware/devicetree/base/serial-number"
    serial.parent.mkdir(parents=True)
    serial.write_bytes(b"1424321001234\0")  # as on Jetson
    machine.driver.close()
    machine.restart()
    assert len({*first, *uuids(start(machine, gpu))}) == 2


def test_two_gpus_of_one_uuid_are_two(machine: SimulatedMachine, file: Path) -> None:
    twins = [SimulatedGpu(uuid="GPU-t", power=100), SimulatedGpu(uuid="GPU-t", power=200)]
    devices = start(machine, *twins)
    assert uuids(devices) == ["GPU-t-00000000:10:00.0", "GPU-t-00000000:11:00.0"]
    assert [values(device)["gpu_power_watts"] for device in devices] == [100, 200]
    # After a restart only the second one is left: it is not the first one now.
    machine.driver.close()
    machine.restart()
    twins[0].missing = True
    machine.wait(1)
    first, second = machine.driver.read()
    assert (first.identity.uuid, first.down) == ("GPU-t-00000000:10:00.0", DownReason.LOST)
    assert (second.identity.uuid, values(second)["gpu_power_watts"]) == ("GPU-t-00000000:11:00.0", 200)


def test_a_twin_that_is_found_later_renames_the_other(machine: SimulatedMachine) -> None:
    twins = [SimulatedGpu(uuid="GPU-t"), SimulatedGpu(uuid="GPU-t", errors={HANDLE: UNKNOWN})]
    assert uuids(start(machine, *twins))[0] == "GPU-t"
    twins[1].errors = {}
    machine.wait(1)
    devices = machine.driver.read()
    assert uuids(devices) == ["GPU-t-00000000:10:00.0", "GPU-t-00000000:11:00.0"]
    assert down_reasons(devices) == [None, None]


def test_gpus_without_an_address_differ_by_their_index(machine: SimulatedMachine, file: Path) -> None:
    gpus = [SimulatedGpu(uuid=f"GPU-{letter}", errors={ADDRESS: NOT_SUPPORTED}) for letter in "ab"]
    assert uuids(start(machine, *gpus)) == ["GPU-a", "GPU-b"]
    machine.driver.close()
    gpus[1].uuid = "GPU-c"  # replaced
    machine.restart()
    assert uuids(start(machine, *gpus)) == ["GPU-a", "GPU-c"]


# ---- GPUs that a device cgroup forbids ---------------------------------------------------------------------------


def test_a_forbidden_gpu_is_no_fault_and_costs_nothing(
    machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    initialize = pynvml.nvmlInit

    def count_and_initialize() -> None:
        opened.append(1)
        initialize()

    monkeypatch.setattr(pynvml, "nvmlInit", count_and_initialize)
    devices = start(machine, SimulatedGpu(), SimulatedGpu(errors={HANDLE: NO_PERMISSION}))
    assert down_reasons(devices) == [None, DownReason.NO_PERMISSION]
    for _ in range(3):
        assert down_reasons(later(machine)) == [None, DownReason.NO_PERMISSION]
    assert len(opened) == 1  # a new session each minute would not help
    machine.gpus[1].errors = {}
    assert down_reasons(later(machine)) == [None, None]


def test_a_gpu_that_becomes_forbidden_keeps_its_identity(machine: SimulatedMachine, file: Path) -> None:
    before = start(machine, SimulatedGpu(), SimulatedGpu())
    machine.driver.close()
    machine.restart()
    machine.gpus[1].errors = {HANDLE: NO_PERMISSION}
    machine.wait(1)
    devices = machine.driver.read()
    assert uuids(devices) == uuids(before)
    assert down_reasons(devices) == [None, DownReason.NO_PERMISSION]


# ---- counts that are wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 200, 2**32 - 1])
def test_a_wrong_count_neither_loses_nor_adds_gpus(machine: SimulatedMachine, count: int) -> None:
    before = start(machine, SimulatedGpu(), SimulatedGpu())
    machine.control.raw = {"nvmlDeviceGetCount_v2": count}
    machine.wait(1)
    assert uuids(machine.driver.read()) == uuids(before)
    assert down_reasons(machine.driver.read()) == [None, None]
    machine.control.raw = {}
    machine.wait(1)
    assert down_reasons(machine.driver.read()) == [None, None]


def test_a_driver_that_counts_gpus_and_has_none_is_unavailable(machine: SimulatedMachine) -> None:
    machine.control.raw = {"nvmlDeviceGetCount_v2": 5}
    machine.write()
    with pytest.raises(DriverUnavailable, match="a handle for none"):
        machine.driver.read()


def test_a_file_of_an_earlier_version_is_read(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(uuid="GPU-a"), SimulatedGpu(uuid="GPU-b"))
    machine.driver.close()
    document = json.loads(file.read_text())
    for gpu in document["gpus"]:
        del gpu["unified"], gpu["gpu_instance_id"]
    file.write_text(json.dumps(document))
    machine.gpus[1].missing = True
    machine.wait(1)
    machine.restart()
    assert down_reasons(machine.driver.read()) == [None, DownReason.LOST]
