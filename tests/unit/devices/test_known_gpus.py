"""Lost NVIDIA GPUs keep their identity across restarts, until another card is in their slot."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.snapshot import DeviceIdentity, DownReason

from tests.simulated_nvml.control import SimulatedGpu
from tests.simulated_nvml.device_values import down_reasons
from tests.unit.devices.conftest import SimulatedMachine


@pytest.fixture
def file(machine: SimulatedMachine, tmp_path: Path) -> Path:
    machine.state_file = tmp_path / "state" / "nvidia.json"
    machine.restart()
    return machine.state_file


def card(uuid: str, bus: str = "00000000:10:00.0", index: str = "0") -> DeviceIdentity:
    return DeviceIdentity(uuid, index, "NVIDIA H100", "nvidia", bus, "590.48.01")


def start(machine: SimulatedMachine, *gpus: SimulatedGpu) -> None:
    machine.control.gpus = list(gpus)
    machine.write()
    machine.driver.read()


def test_gpu_lost_during_a_restart_keeps_its_identity(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(), SimulatedGpu(), SimulatedGpu())
    before = [device.identity for device in machine.driver.read()]
    machine.gpus[1].lost = True
    machine.write()
    machine.driver.close()
    machine.restart()
    devices = machine.driver.read()
    assert down_reasons(devices) == [None, DownReason.LOST, None]
    assert [device.identity for device in devices] == before


def test_without_a_file_it_is_forgotten(machine: SimulatedMachine) -> None:
    start(machine, SimulatedGpu(), SimulatedGpu())
    machine.gpus[1].missing = True
    machine.write()
    machine.driver.close()
    machine.restart()
    assert down_reasons(machine.driver.read()) == [None]


def test_all_gpus_are_down_if_the_driver_does_not_load_after_a_reboot(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(), SimulatedGpu())
    machine.control.loaded = False
    machine.write()
    machine.driver.close()
    machine.restart()
    assert down_reasons(machine.driver.read()) == [DownReason.DRIVER_GONE] * 2


def test_replaced_card_is_forgotten(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(), SimulatedGpu())
    machine.driver.close()
    machine.control.gpus[1] = SimulatedGpu(uuid="GPU-new")
    machine.write()
    for _ in range(2):
        machine.restart()
        devices = machine.driver.read()
        assert [device.identity.uuid for device in devices][1:] == ["GPU-new"]
        assert down_reasons(devices) == [None, None]
        machine.driver.close()
    assert "000000000001" not in file.read_text()


def test_moved_card_is_the_same(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(uuid="GPU-a"), SimulatedGpu(uuid="GPU-b"))
    machine.driver.close()
    machine.control.gpus = [SimulatedGpu(uuid="GPU-b"), SimulatedGpu(uuid="GPU-a")]
    machine.write()
    machine.restart()
    devices = machine.driver.read()
    assert {device.identity.uuid: device.identity.index for device in devices} == {"GPU-a": "1", "GPU-b": "0"}
    assert down_reasons(devices) == [None, None]


def test_mig_instances_are_not_persisted(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu(mig=True))
    assert [gpu["parent_uuid"] for gpu in json.loads(file.read_text())["gpus"]] == [""]


def test_the_file_is_written_only_when_something_changed(machine: SimulatedMachine, file: Path) -> None:
    start(machine, SimulatedGpu())
    written = file.stat()
    for _ in range(3):
        machine.driver.close()
        machine.driver.read()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"format": 2, "gpus": []}', '{"format": 1}', '{"format": 1, "gpus": [{"uuid": "GPU-x"}]}',
        '{"format": 1, "gpus": [7]}', '{"format": 1, "gpus": {}}', "\x00\xff",
        json.dumps({"format": 1, "gpus": [{**dict.fromkeys(DeviceIdentity.__slots__, ""), "index": 3}]}),
        json.dumps({"format": 1, "gpus": [dict.fromkeys(DeviceIdentity.__slots__, "")]}),
    ],
)  # fmt: skip
def test_invalid_file_is_reported_and_overwritten(
    machine: SimulatedMachine, file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        start(machine, SimulatedGpu())
    assert str(file) in caplog.text
    assert len(json.loads(file.read_text())["gpus"]) == 1


def test_unwritable_file_does_not_fail_readings(
    machine: SimulatedMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in the way").write_text("")
    machine.state_file = tmp_path / "in the way" / "nvidia.json"
    machine.restart()
    with caplog.at_level(logging.WARNING):
        for gpus in ([SimulatedGpu()], [SimulatedGpu(), SimulatedGpu()]):
            start(machine, *gpus)
    assert down_reasons(machine.driver.read()) == [None, None]
    assert sum("forgotten at a restart" in record.getMessage() for record in caplog.records) == 1


def test_without_driver_and_known_gpus_the_driver_is_absent(machine: SimulatedMachine, file: Path) -> None:
    machine.control.loaded = False
    machine.write()
    with pytest.raises(DriverUnavailable):
        machine.driver.read()
    assert not file.exists()


def test_constructing_touches_no_file(tmp_path: Path) -> None:
    inventory = DeviceInventory(tmp_path / "state.json")
    assert list(inventory) == []
    assert os.listdir(tmp_path) == []


def test_which_gpu_was_replaced(tmp_path: Path) -> None:
    inventory = DeviceInventory()
    assert inventory.remember([card("a"), card("b", "00000000:20:00.0")]) == []
    assert inventory.remember([card("b", "00000000:20:00.0")]) == []
    assert inventory.remember([card("a", "00000000:20:00.0"), card("b")]) == []  # swapped
    assert inventory.remember([card("a"), card("b", "00000000:20:00.0")]) == []
    assert inventory.remember([card("c")]) == ["a"]
    assert [identity.uuid for identity in inventory] == ["b", "c"]
