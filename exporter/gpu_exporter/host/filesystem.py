"""Space and inodes of each mounted file system.

A mount that does not respond lacks its own values and has device_error 1; the others are unaffected. All mounts of one
collection share one time limit, so that 10,000 of them cannot block it: those not reached in time also have
device_error 1, and the collector still succeeds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import compile_exclude_pattern, label_value, read_file, samples_by_column
from gpu_exporter.host.statvfs import StatvfsPool
from gpu_exporter.metrics import FamilySamples, MetricFamily

LABELS = ("device", "mountpoint", "fstype")
SIZE = MetricFamily("node_filesystem_size_bytes", "gauge", "Size of the file system.", LABELS)
FREE = MetricFamily("node_filesystem_free_bytes", "gauge", "Free space, including the space reserved for root.", LABELS)
AVAILABLE = MetricFamily(
    "node_filesystem_avail_bytes", "gauge", "Free space available to users other than root.", LABELS
)
FILES = MetricFamily("node_filesystem_files", "gauge", "Total number of inodes.", LABELS)
FILES_FREE = MetricFamily("node_filesystem_files_free", "gauge", "Number of free inodes.", LABELS)
READONLY = MetricFamily("node_filesystem_readonly", "gauge", "1 if the file system is mounted read-only.", LABELS)
DEVICE_ERROR = MetricFamily(
    "node_filesystem_device_error", "gauge", "1 if the statistics of the file system could not be read in time.", LABELS
)
FAMILIES = (SIZE, FREE, AVAILABLE, FILES, FILES_FREE, READONLY, DEVICE_ERROR)

#: After an error, ext4 refuses writes while its mount options still have `rw` (fs/ext4/super.c, emergency_ro).
READONLY_OPTIONS = frozenset((b"ro", b"emergency_ro"))
#: The kernel escapes white space, backslash and # in paths as a backslash and three octal digits.
OCTAL_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system. Mounts of the same `group` may hang together, as those of one NFS server do."""

    path: str
    group: str
    readonly: bool
    labels: tuple[str, str, str]


class FilesystemCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._procfs = settings.procfs
        self._root = "" if str(settings.rootfs) == "/" else str(settings.rootfs)
        self._mount_points_exclude = compile_exclude_pattern(settings.mount_points_exclude, "mount_points_exclude")
        self._fs_types_exclude = compile_exclude_pattern(settings.fs_types_exclude, "fs_types_exclude")
        self._pool = StatvfsPool()
        self._table: bytes | None = None
        self._mounts: list[Mount] = []

    def collect(self) -> list[FamilySamples]:
        """Gauges by mount. Raises OSError or ValueError if the table of mounts cannot be read."""
        table = self._read()
        # Mounts rarely change, and with 10,000 of them parsing the table is the main cost.
        if table != self._table:
            self._mounts = self._parse(table)
            self._table = table
        groups: dict[str, list[str]] = {}
        for mount in self._mounts:
            groups.setdefault(mount.group, []).append(mount.path)
        statistics = self._pool.query(groups)
        return samples_by_column(
            FAMILIES, {mount.labels: _values(mount, statistics.get(mount.path)) for mount in self._mounts}
        )

    def _read(self) -> bytes:
        """The host's mounts are those of process 1, which needs root; our own may be those of a container."""
        try:
            return read_file(f"{self._procfs}/1/mounts")
        except OSError:
            return read_file(f"{self._procfs}/self/mounts")

    def _parse(self, table: bytes) -> list[Mount]:
        lines = [fields for fields in (line.split(b" ") for line in table.split(b"\n")) if _is_mount_line(fields)]
        if not lines:
            raise ValueError(f"{self._procfs}/1/mounts or self/mounts: no line could be parsed")
        # A later mount on the same point hides the earlier one, and statvfs would return the later one for both.
        visible = {self._strip_rootfs(_unescape(fields[1])): fields for fields in lines}
        # Unique by labels: replacing bytes that are not UTF-8 may make two mount points equal.
        mounts = {mount.labels: mount for mount in (self._mount(*item) for item in visible.items())}
        wanted = [mount for mount in mounts.values() if not self._excluded(mount)]
        # Local disks first: network and FUSE file systems are more likely to hang and delay the rest.
        return sorted(wanted, key=lambda mount: not mount.labels[0].startswith("/dev/"))

    def _mount(self, point: str, fields: list[bytes]) -> Mount:
        device, fstype = _unescape(fields[0]), _unescape(fields[2])
        path = (self._root + point.rstrip("/")) or "/"
        labels = (label_value(os.fsencode(device)), label_value(os.fsencode(point)), label_value(os.fsencode(fstype)))
        readonly = not READONLY_OPTIONS.isdisjoint(fields[3].split(b","))
        return Mount(path, _network_server(device) or point, readonly, labels)

    def _strip_rootfs(self, point: str) -> str:
        """The path on the host, if this is the table of a container with the host's root mounted at rootfs."""
        if self._root and (point == self._root or point.startswith(self._root + "/")):
            return point[len(self._root) :] or "/"
        return point

    def _excluded(self, mount: Mount) -> bool:
        _, point, fstype = mount.labels
        return bool(
            (self._mount_points_exclude and self._mount_points_exclude.search(point))
            or (self._fs_types_exclude and self._fs_types_exclude.search(fstype))
        )


def _is_mount_line(fields: list[bytes]) -> bool:
    return len(fields) >= 4 and fields[1].startswith(b"/")


def _unescape(field: bytes) -> str:
    if b"\\" in field:
        field = OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)


def _network_server(device: str) -> str:
    """The server of `server:/export` or `//server/share`; empty for a local device."""
    if device.startswith("//"):
        return "//" + device[2:].partition("/")[0]
    server, colon, _ = device.partition(":/")
    return server + ":" if colon and not device.startswith("/") else ""


def _values(mount: Mount, stats: os.statvfs_result | None) -> tuple[float | None, ...]:
    """Values in the order of FAMILIES, None where unknown."""
    size = free = available = files = files_free = None
    # A file system with 0 blocks or 0 inodes does not count them.
    if stats and stats.f_blocks:
        # f_blocks counts fragments; f_bsize is larger on some file systems.
        unit = float(stats.f_frsize)
        size, free, available = stats.f_blocks * unit, stats.f_bfree * unit, stats.f_bavail * unit
    if stats and stats.f_files:
        files, files_free = float(stats.f_files), float(stats.f_ffree)
    return size, free, available, files, files_free, float(mount.readonly), float(stats is None)
