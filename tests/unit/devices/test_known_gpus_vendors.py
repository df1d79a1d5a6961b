"""AMD, Intel and Ascend: lost GPUs keep their identity across restarts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.base import Driver, DriverSettings, DriverUnavailable
from gpu_exporter.devices.persistent import PersistentDriver
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DownReason, DriverState

from tests.simulated_nvml.device_values import down_reasons
from tests.unit.devices.fake_sysfs import FakeSysfs


@dataclass
class FakeVendorDriver:
    """A fake driver. `state` is why it is unavailable, None while it is available."""

    gpus: tuple[DeviceIdentity, ...]
    state: DriverState | None = None
    vendor: str = "amd"

    def read(self) -> tuple[DeviceReading, ...]:
        if self.state:
            raise DriverUnavailable(self.state, "away")
        return tuple(map(DeviceReading, self.gpus))

    def close(self) -> None: ...


FIRST, SECOND = (DeviceIdentity(f"AMD-{i}", str(i), "MI300X", "amd", f"00000000:0{i}:00.0") for i in (1, 2))


def restart_exporter(machine: FakeVendorDriver, folder: Path | None) -> Driver:
    return PersistentDriver(machine, folder / "amd.json" if folder else None)


def test_a_gpu_lost_while_the_exporter_was_stopped(tmp_path: Path) -> None:
    restart_exporter(FakeVendorDriver((FIRST, SECOND)), tmp_path).read()
    devices = restart_exporter(FakeVendorDriver((SECOND,)), tmp_path).read()
    assert {(device.identity, device.down) for device in devices} == {(SECOND, None), (FIRST, DownReason.LOST)}


def test_identities_are_lost_without_a_file() -> None:
    restart_exporter(FakeVendorDriver((FIRST, SECOND)), None).read()
    assert down_reasons(restart_exporter(FakeVendorDriver((SECOND,)), None).read()) == [None]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (DriverState.ABSENT, DownReason.DRIVER_GONE),
        (DriverState.FAILED, DownReason.DRIVER_GONE),
        (DriverState.NO_PERMISSION, DownReason.ERROR),
        (DriverState.HUNG, DownReason.HUNG),
    ],
)
def test_the_driver_does_not_come_back(tmp_path: Path, state: DriverState, reason: DownReason) -> None:
    restart_exporter(FakeVendorDriver((FIRST, SECOND)), tmp_path).read()
    assert down_reasons(restart_exporter(FakeVendorDriver((), state), tmp_path).read()) == [reason, reason]


def test_a_machine_that_never_had_one(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable):
        restart_exporter(FakeVendorDriver((), DriverState.ABSENT), tmp_path).read()


def test_replaced_card_is_forgotten(tmp_path: Path) -> None:
    restart_exporter(FakeVendorDriver((FIRST,)), tmp_path).read()
    other = DeviceIdentity("AMD-9", "1", "MI300X", "amd", FIRST.pci_bus_id)
    devices = restart_exporter(FakeVendorDriver((other,)), tmp_path).read()
    assert [(device.identity, device.down) for device in devices] == [(other, None)]


def test_registered_drivers_are_persistent(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path)
    for number, slot in enumerate(("0000:03:00.0", "0000:04:00.0")):
        tree.card(number, "amdgpu", "1002:744C", f"pci0000:00/{slot}", {"gpu_busy_percent": "7\n"})
    there = DriverSettings(tree.sysfs, tree.procfs, tmp_path / "state")
    before = [device.identity for device in DRIVERS["amd"](there).read()]
    tree.remove(1)
    first, lost = DRIVERS["amd"](there).read()
    assert (first.down, lost.down, lost.identity) == (None, DownReason.LOST, before[1])
