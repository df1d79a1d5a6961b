"""Product names from pci.ids: the format, where the file is, and drivers that use them."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.devices.amd import AmdDriver
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.pci_names import PLACES, PciNames, find_name

from tests.unit.devices.fake_sysfs import FakeSysfs

IDS = """#
#\tList of PCI ID's
#
0001  SafeNet (wrong ID)
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t73ff  Navi 23 [Radeon RX 6600/6600 XT/6600M]
\t\t1043 05d5  Dual RX 6600
\t7550  Navi 48
8086  Intel Corporation
\t4c8a  RocketLake-S GT1 [UHD Graphics 750]
\te20b  Battlemage G21 [Arc B580]
C 03  Display controller
\t73ff  Not a device
"""


@pytest.mark.parametrize(
    ("pci_id", "name"),
    [
        ("1002:73ff", "Radeon RX 6600/6600 XT/6600M"),
        ("1002:7550", "Navi 48"),
        ("8086:4C8A", "UHD Graphics 750"),
        ("1002:4c8a", ""),
        ("10de:73ff", ""),
        ("1002:05d5", ""),
        ("", ""),
    ],
)
def test_find_name(pci_id: str, name: str) -> None:
    vendor, _, device = pci_id.lower().partition(":")
    found = find_name(IDS.encode().splitlines(keepends=True), vendor.encode(), device.encode())
    assert found.decode() == name


@pytest.mark.parametrize("place", PLACES)
def test_the_file_is_that_of_the_system_or_of_the_host(tmp_path: Path, place: str) -> None:
    host = tmp_path / "proc/1/root" / place
    host.parent.mkdir(parents=True)
    host.write_text(IDS)
    names = PciNames(str(tmp_path / "proc"), str(tmp_path / "container"))
    assert names.name("1002:7550") == "Navi 48"
    host.unlink()
    assert names.name("1002:7550") == "Navi 48", "read once"
    assert names.name("1002:73ff") == ""


def test_cards_without_a_name_of_their_own(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path)
    tree.card(0, "amdgpu", "1002:73FF", "pci0000:00/0000:03:00.0", {"gpu_busy_percent": "1\n"})
    tree.card(1, "i915", "8086:4C8A", "pci0000:00/0000:00:02.0", {})
    tree.write(tree.procfs, {f"1/root/{PLACES[0]}": IDS})
    (amd,) = AmdDriver(tree.sysfs, tree.procfs, tree.clock).read()
    assert amd.identity.name == "AMD Radeon RX 6600/6600 XT/6600M"
    intel = IntelDriver(tree.sysfs, tree.procfs, tree.clock)
    assert [device.identity.name for device in intel.read()] == ["Intel UHD Graphics 750"]
