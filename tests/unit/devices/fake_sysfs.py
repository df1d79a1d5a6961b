"""Makes up sysfs trees with the kernel's layout: PCI devices below bridges, DRM cards that link to them, sensors.

The shapes, and the documents that they come from, are in docs/devices.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gpu_exporter.snapshot import DeviceReading

Files = dict[str, str | bytes]


class FakeSysfs:
    """A machine's /sys and /proc below a test's folder."""

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
        """`path` below /sys/devices ends with the PCI address. Returns the PCI device's folder."""
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
    """Name of the family, with its label if it has rows -> value."""
    return {" ".join((reading.family.name, *reading.labels)): reading.value for reading in device.readings}


def absent(device: DeviceReading) -> dict[str, str]:
    return {absence.family.name: absence.reason.value for absence in device.absences}
