"""Software RAID: state, disks and progress of each array.

Kernel document: Documentation/admin-guide/md.rst; /proc/mdstat is written by drivers/md/md.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_file, read_label, read_number, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

STATE = MetricFamily("node_md_state", "gauge", "1 for the state that the array is in, else 0.", ("device", "state"))
DISKS = MetricFamily("node_md_disks", "gauge", "Disks of the array by state.", ("device", "state"))
DISKS_REQUIRED = MetricFamily("node_md_disks_required", "gauge", "Disks that the array needs.", ("device",))
BLOCKS = MetricFamily("node_md_blocks", "gauge", "Size of the array in blocks of 1 KiB.", ("device",))
BLOCKS_SYNCED = MetricFamily("node_md_blocks_synced", "gauge", "Blocks that are in sync.", ("device",))
DEGRADED = MetricFamily("node_md_degraded", "gauge", "Disks that the array lacks.", ("device",))
RAID_DISKS = MetricFamily("node_md_raid_disks", "gauge", "Disks that the array was made of.", ("device",))

STATES = ("active", "inactive", "recovering", "resync", "check")
ACTIVITY_STATES = {"recovery": "recovering", "reshape": "recovering", "resync": "resync", "check": "check"}

#: `md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]`
HEADER = re.compile(r"(md\S*) : (active|inactive)\b(.*)")
DISK = re.compile(r"\S+\[\d+\]((?:\(\w\))*)")
#: `195310144 blocks super 1.2 [2/1] [U_]`
SIZE = re.compile(r"\s+(\d+) blocks\b(?:.*\[(\d+)/(\d+)\] \[[U_]+\])?")
#: `[=>....]  recovery =  8.5% (16775552/195310144) finish=...`, `resync=DELAYED`
ACTIVITY = re.compile(r"\s+(?:\[\S*\]\s+)?(recovery|reshape|resync|check)\s*=\s*(?:\w+$|\S+%\s+\((\d+)/\d+\))")


@dataclass
class Array:
    """An array of /proc/mdstat. Sizes are in blocks of 1 KiB."""

    name: str
    state: str
    failed: int
    spare: int
    members: int
    required: int | None = None
    active: int | None = None
    blocks: int = 0
    synced: int | None = None


def parse_mdstat(text: str) -> Iterator[Array]:
    """The arrays of /proc/mdstat; lines of unknown form are ignored."""
    array: Array | None = None
    for line in text.splitlines():
        if match := HEADER.match(line):
            if array:
                yield array
            flags = [each[1] for each in DISK.finditer(match[3])]
            failed, spare = sum("(F)" in each for each in flags), sum("(S)" in each for each in flags)
            array = Array(match[1], match[2], failed, spare, len(flags))
        elif array and (match := SIZE.match(line)):
            array.blocks = int(match[1])
            if match[2]:
                array.required, array.active = int(match[2]), int(match[3])
        elif array and (match := ACTIVITY.match(line)):
            array.state = ACTIVITY_STATES[match[1]]
            array.synced = int(match[2] or 0)
    if array:
        yield array


class MdadmCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/mdstat"
        self._block_folder = f"{settings.sysfs}/block"

    def collect(self) -> list[FamilySamples]:
        """Gauges by array; empty on a node without software RAID. Raises OSError."""
        try:
            arrays = list(parse_mdstat(read_file(self._path).decode("utf-8", "replace")))
        except FileNotFoundError:
            arrays = []
        by_state: dict[tuple[str, ...], list[float]] = {}
        disks: dict[tuple[str, ...], list[float]] = {}
        totals: dict[tuple[str, ...], list[float]] = {}
        for array in arrays:
            for state in STATES:
                by_state[array.name, state] = [float(array.state == state)]
            # RAID 0 and linear arrays have no [required/active]: they need all their disks.
            inactive = array.state == "inactive"
            used = 0 if inactive else array.members - array.failed - array.spare
            active = used if array.active is None or inactive else array.active
            required = used if array.required is None or inactive else array.required
            for state, count in (("active", active), ("failed", array.failed), ("spare", array.spare)):
                disks[array.name, state] = [float(count)]
            synced = array.blocks if array.synced is None else array.synced
            totals[(array.name,)] = [float(required), float(array.blocks), float(synced)]
        return [
            *samples_by_column((STATE,), by_state),
            *samples_by_column((DISKS,), disks),
            *samples_by_column((DISKS_REQUIRED, BLOCKS, BLOCKS_SYNCED), totals),
            *self._attributes(),
        ]

    def _attributes(self) -> list[FamilySamples]:
        rows: dict[tuple[str, ...], list[float]] = {}
        for name in list_folder(self._block_folder, r"md.*"):
            folder = f"{self._block_folder}/{name}/md"
            raid_disks = _raid_disks(f"{folder}/raid_disks")
            if raid_disks is not None:
                # RAID 0 and linear arrays cannot be degraded, and have no such file.
                rows[(name,)] = [read_number(f"{folder}/degraded") or 0.0, raid_disks]
        return samples_by_column((DEGRADED, RAID_DISKS), rows)


def _raid_disks(path: str) -> float | None:
    """The number of disks that an array has, or will have: a reshape reads `4 (3)`, the present number in brackets."""
    number, _, _ = read_label(path).partition(" ")
    return float(number) if number.isdigit() else None
