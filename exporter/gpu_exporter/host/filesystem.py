"""Room and files on each mounted file system.

A mount that does not answer costs its own values and sets its device_error, never those of the others. All mounts of
one collection share one time limit, so that 10,000 of them cannot take for ever: those that were not reached have
device_error 1, because their statistics could not be had, and the collector as a whole has not failed.
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
FREE = MetricFamily("node_filesystem_free_bytes", "gauge", "Free space, what is kept for root included.", LABELS)
AVAILABLE = MetricFamily(
    "node_filesystem_avail_bytes", "gauge", "Free space that users other than root may fill.", LABELS
)
FILES = MetricFamily("node_filesystem_files", "gauge", "Most files that the file system can hold.", LABELS)
FILES_FREE = MetricFamily("node_filesystem_files_free", "gauge", "Files that can still be made.", LABELS)
READONLY = MetricFamily("node_filesystem_readonly", "gauge", "1 if the file system is mounted read-only.", LABELS)
DEVICE_ERROR = MetricFamily(
    "node_filesystem_device_error", "gauge", "1 if the file system did not give its statistics, or not in time.", LABELS
)
FAMILIES = (SIZE, FREE, AVAILABLE, FILES, FILES_FREE, READONLY, DEVICE_ERROR)

#: The kernel writes white space, backslash and # in a path as a backslash and three octal digits.
OCTAL_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system: the path to ask, what it may hang together with, and what is published of it."""

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
        # Mounts seldom change: with 10,000 of them, the table is what costs most.
        if table != self._table:
            self._mounts = self._parse(table)
            self._table = table
        groups: dict[str, list[str]] = {}
        for mount in self._mounts:
            groups.setdefault(mount.group, []).append(mount.path)
        answers = self._pool.query(groups)
        return samples_by_column(
            FAMILIES, {mount.labels: _values(mount, answers.get(mount.path)) for mount in self._mounts}
        )

    def _read(self) -> bytes:
        """The first process sees the host's mounts; our own may be a container's. Users may not read the former."""
        try:
            return read_file(f"{self._procfs}/1/mounts")
        except OSError:
            return read_file(f"{self._procfs}/self/mounts")

    def _parse(self, table: bytes) -> list[Mount]:
        lines = [fields for fields in (line.split(b" ") for line in table.split(b"\n")) if _is_mount_line(fields)]
        if not lines:
            raise ValueError(f"{self._procfs}/1/mounts or self/mounts: no line could be understood")
        # A later mount hides an earlier one on the same point, and the answer would be the later one's for both.
        visible = {self._strip_rootfs(_unescape(fields[1])): fields for fields in lines}
        # By labels: bytes that are not UTF-8 could make two points look the same.
        mounts = {mount.labels: mount for mount in (self._mount(*item) for item in visible.items())}
        wanted = [mount for mount in mounts.values() if not self._excluded(mount)]
        # Disks first: what lies on a network or in a user's process is likelier to hang and hold up the rest.
        return sorted(wanted, key=lambda mount: not mount.labels[0].startswith("/dev/"))

    def _mount(self, point: str, fields: list[bytes]) -> Mount:
        device, fstype = _unescape(fields[0]), _unescape(fields[2])
        path = (self._root + point.rstrip("/")) or "/"
        labels = (label_value(os.fsencode(device)), label_value(os.fsencode(point)), label_value(os.fsencode(fstype)))
        return Mount(path, _network_server(device) or point, b"ro" in fields[3].split(b","), labels)

    def _strip_rootfs(self, point: str) -> str:
        """The path as the host sees it, if this table is a container's that has the host's root at rootfs."""
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
    """The server of `server:/export` or `//server/share`, whose mounts hang together; empty for a local device."""
    if device.startswith("//"):
        return "//" + device[2:].partition("/")[0]
    server, colon, _ = device.partition(":/")
    return server + ":" if colon and not device.startswith("/") else ""


def _values(mount: Mount, answer: os.statvfs_result | None) -> tuple[float | None, ...]:
    """In the order of FAMILIES; None for what is not known."""
    size = free = available = files = files_free = None
    # A file system of no blocks, or that could hold no file, is one that does not count them.
    if answer and answer.f_blocks:
        # Counts are in fragments; on some file systems a block is larger.
        unit = float(answer.f_frsize)
        size, free, available = answer.f_blocks * unit, answer.f_bfree * unit, answer.f_bavail * unit
    if answer and answer.f_files:
        files, files_free = float(answer.f_files), float(answer.f_ffree)
    return size, free, available, files, files_free, float(mount.readonly), float(answer is None)
