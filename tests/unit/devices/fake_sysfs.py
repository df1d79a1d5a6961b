"""Creates fake sysfs trees: PCI devices below bridges, DRM cards that link to them, hwmon sensors.

Formats and sources: docs/devices.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gpu_exporter.snapshot import DeviceReading

Files = dict[str, str | bytes]


class FakeSysfs:
    """A machine's /sys and /proc in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.sysfs = root / "sys"
        self.procfs = root / "proc"
        self.time = 1000.0
        (self.sysfs / "class/drm").mkdir(parents=True)
        self.write(self.procfs, {"sys/kernel/osrelease": "6.12.0\n", "sys/kernel/hostname": "node-1\n"})

    def clock(self) -> float:
        return self.time

    @staticmethod
    def write(folder: Path, files: Files) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def bridge(self, path: str, vendor: str, speed: str, width: int) -> None:
        link: Files = {"current_link_speed": f"{speed} GT/s PCIe\n", "current_link_width": f"{width}\n"}
        self.write(self.sysfs / "devices" / path, {"vendor": f"{vendor}\n", "class": "0x060400\n", **link})

    def card(self, number: int, driver: str, pci_id: str, path: str, files: Files) -> Path:
        """`path` is relative to /sys/devices and ends with the PCI address. Returns the folder of the PCI device."""
        device = self.sysfs / "devices" / path
        drm = device / "drm" / f"card{number}"
        drm.mkdir(parents=True)
        (drm / "device").symlink_to("../..")
        (drm / f"card{number}-DP-1").mkdir()
        link = self.sysfs / f"class/drm/card{number}"
        link.symlink_to(os.path.relpath(drm, link.parent))
        connector = self.sysfs / f"class/drm/card{number}-DP-1"
        connector.symlink_to(os.path.relpath(drm / connector.name, link.parent))
        (self.sysfs / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        vendor = pci_id.partition(":")[0]
        uevent = f"DRIVER={driver}\nPCI_CLASS=38000\nPCI_ID={pci_id}\nPCI_SLOT_NAME={device.name}\n"
        common: Files = {"uevent": uevent, "vendor": f"0x{vendor.lower()}\n", "class": "0x038000\n"}
        self.write(device, {**common, "power/runtime_status": "active\n", **files})
        return device

    def remove(self, number: int) -> None:
        link = self.sysfs / f"class/drm/card{number}"
        shutil.rmtree(link.resolve().parent.parent)
        link.unlink()
        (self.sysfs / f"class/drm/card{number}-DP-1").unlink()


def values(device: DeviceReading) -> dict[str, float]:
    """Family name, with its label if it has one -> value."""
    return {" ".join((reading.family.name, *reading.labels)): reading.value for reading in device.readings}


def absent(device: DeviceReading) -> dict[str, str]:
    return {absence.family.name: absence.reason.value for absence in device.absences}
