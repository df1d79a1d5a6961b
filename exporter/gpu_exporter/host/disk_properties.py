"""Properties of disks: model, serial number, path, device mapper name, file system.

From udev's database where it can be read (its properties: systemd's 60-persistent-storage.rules and lvm2's rules); in a
container without it from sysfs, which has the model, the serial number and the names of multipath and LVM devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpu_exporter.host.kernel_files import label_value, read_file, read_label
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family

INFO = MetricFamily(
    "node_disk_info",
    "gauge",
    "Model, serial number and place of the disk, always 1.",
    ("device", "major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"),
)
FILE_SYSTEM_INFO = MetricFamily(
    "node_disk_filesystem_info",
    "gauge",
    "File system on the disk, always 1.",
    ("device", "type", "usage", "uuid", "version"),
)
DEVICE_MAPPER_INFO = MetricFamily(
    "node_disk_device_mapper_info",
    "gauge",
    "Name of a device mapper device (LVM, multipath, encryption), always 1.",
    ("device", "name", "uuid", "vg_name", "lv_name", "lv_layer"),
)
WRITE_CACHE = MetricFamily("node_disk_ata_write_cache", "gauge", "1 if the disk has a write cache.", ("device",))
WRITE_CACHE_ENABLED = MetricFamily(
    "node_disk_ata_write_cache_enabled", "gauge", "1 if the disk's write cache is enabled.", ("device",)
)
ROTATION_RATE = MetricFamily(
    "node_disk_ata_rotation_rate_rpm", "gauge", "Rotation rate of the disk; 0 for solid-state disks.", ("device",)
)

#: udev's properties in the order of the labels.
FILE_SYSTEM_PROPERTIES = ("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION")
MAPPER_PROPERTIES = ("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")
#: Of the serial numbers, the first that there is.
SERIAL_PROPERTIES = ("SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL")
ATA_PROPERTIES = {
    "ID_ATA_WRITE_CACHE": WRITE_CACHE,
    "ID_ATA_WRITE_CACHE_ENABLED": WRITE_CACHE_ENABLED,
    "ID_ATA_ROTATION_RATE_RPM": ROTATION_RATE,
}
#: udev's property -> file in /sys/block/NAME.
SYSFS_PROPERTIES = {
    "ID_MODEL": "device/model",
    "ID_SERIAL_SHORT": "device/serial",
    "ID_WWN": "wwid",
    "ID_REVISION": "device/firmware_rev",
    "DM_NAME": "dm/name",
    "DM_UUID": "dm/uuid",
}
#: The same for SCSI disks.
SCSI_PROPERTIES = {"ID_WWN": "device/wwid", "ID_REVISION": "device/rev"}

Row = tuple[MetricFamily, tuple[str, ...], float]


class DiskProperties:
    def __init__(self, sysfs: Path, udev_data: Path) -> None:
        self._block_folder = f"{sysfs}/block"
        self._udev_data = str(udev_data)

    def read(self, disks: Mapping[tuple[str], tuple[str, str]]) -> list[FamilySamples]:
        """Info families of these disks; `disks` are major and minor numbers by the disk's label."""
        return group_by_family(
            row for (device,), (major, minor) in disks.items() for row in self._rows(device, major, minor)
        )

    def _rows(self, device: str, major: str, minor: str) -> list[Row]:
        folder = f"{self._block_folder}/{device}"
        found = self._udev(major, minor) or _sysfs_properties(folder)
        serial = next(filter(None, map(found.get, SERIAL_PROPERTIES)), "") or ""
        # A partition has no folder of its own here, and node_exporter says 0 then, too.
        rotational = read_label(f"{folder}/queue/rotational") or "0"
        path, wwn, model, revision = (found.get(f"ID_{name}", "") for name in ("PATH", "WWN", "MODEL", "REVISION"))
        rows: list[Row] = [(INFO, (device, major, minor, path, wwn, model, serial, revision, rotational), 1.0)]
        for family, properties in ((FILE_SYSTEM_INFO, FILE_SYSTEM_PROPERTIES), (DEVICE_MAPPER_INFO, MAPPER_PROPERTIES)):
            if found.get(properties[0]):
                rows.append((family, (device, *(found.get(name, "") for name in properties)), 1.0))
        if found.get("ID_ATA"):
            for name, family in ATA_PROPERTIES.items():
                if found.get(name, "").isdigit():
                    rows.append((family, (device,), float(found[name])))
        return rows

    def _udev(self, major: str, minor: str) -> dict[str, str]:
        """The properties in udev's database, lines such as `E:ID_MODEL=...`; empty if it cannot be read."""
        try:
            lines = read_file(f"{self._udev_data}/b{major}:{minor}").split(b"\n")
        except OSError:
            return {}
        pairs = (line[2:].partition(b"=") for line in lines if line.startswith(b"E:"))
        return {label_value(name): label_value(value) for name, _, value in pairs}


def _sysfs_properties(folder: str) -> dict[str, str]:
    found = {name: read_label(f"{folder}/{file}") for name, file in SYSFS_PROPERTIES.items()}
    for name, file in SCSI_PROPERTIES.items():
        found[name] = found[name] or read_label(f"{folder}/{file}")
    return found
