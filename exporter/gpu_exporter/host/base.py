"""The interface of a host collector."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gpu_exporter.metrics import FamilySamples

#: node_exporter's defaults (collector/filesystem_linux.go and collector/diskstats_common.go).
MOUNT_POINTS_EXCLUDE = r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
FS_TYPES_EXCLUDE = (
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay"
    r"|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$"
)
DISK_EXCLUDE = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Mount points of the host's file systems, and exclude patterns. The flags are node_exporter's."""

    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    rootfs: Path = Path("/")
    udev_data: Path = Path("/run/udev/data")
    nodename: str = ""  # overrides uname
    mount_points_exclude: str = MOUNT_POINTS_EXCLUDE
    fs_types_exclude: str = FS_TYPES_EXCLUDE
    disk_exclude: str = DISK_EXCLUDE
    net_exclude: str = ""

    @property
    def net(self) -> str:
        """The folder of the host's network statistics.

        `net` itself shows the network namespace of the reader: in a container that is not the host's, but that of
        process 1 is, where the host's procfs is mounted.
        """
        folder = f"{self.procfs}/1/net"
        return folder if os.path.isdir(folder) else f"{self.procfs}/net"


class HostCollector(Protocol):
    """Reads one part of the host. The sampler calls `collect` at its interval, always from the same thread."""

    def collect(self) -> Iterable[FamilySamples]:
        """Families under node_exporter's names and labels, without those that the kernel does not support.

        Raises OSError or ValueError if the collector failed as a whole.
        """
        ...


@runtime_checkable
class ScrapeTimeCollector(Protocol):
    """A host collector with values that must be those of the scrape, and that cost next to nothing."""

    def collect_at_scrape(self) -> Iterable[FamilySamples]:
        """Families beside those of `collect`. Called during a scrape: must not wait for anything."""
        ...
