"""Generations of NVIDIA drivers, as data: what each library has, and the sizes of what it writes.

Sources: nvml.h of each release, as recorded in the history of NVIDIA/go-nvml (gen/nvml/nvml.h, CUDA 11.4 to 13.1), and
for the lists of processes the history of nvidia-settings that XuehaiPan/nvitop#89 summarizes.

Readings depend on this table only where a call cannot find out by itself: a driver that writes longer entries than its
header declares does so without an error. What a driver lacks or refuses is found out by calling it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Version = tuple[float, ...]

MINIMUM_VERSION: Version = (470,)
"""The oldest driver branch in the tests. Older ones may work: NVML keeps its functions."""


def parse_version(text: str) -> Version:
    """`580.82.07` -> (580, 82, 7); a text that is no version -> ()."""
    return tuple(int(part) for part in text.split(".") if part.isascii() and part.isdigit() and len(part) < 10)


MEMORY_INFO_V2 = "nvmlDeviceGetMemoryInfo_v2"
EVENT_REASONS = "nvmlDeviceGetCurrentClocksEventReasons"
ADDRESSING_MODE = "nvmlDeviceGetAddressingMode"
PROCESSES_V3 = "nvmlDeviceGetComputeRunningProcesses_v3"
PROCESSES_V2 = "nvmlDeviceGetComputeRunningProcesses_v2"
PROCESSES_V1 = "nvmlDeviceGetComputeRunningProcesses"
GPM_FUNCTIONS = frozenset({
    "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleFree", "nvmlGpmSampleGet", "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet",
})  # fmt: skip

PROCESS_ENTRY_BYTES: Mapping[str, int] = {PROCESSES_V3: 24, PROCESSES_V2: 24, PROCESSES_V1: 16}
"""Functions that list processes, newest first, and the size of their entries by NVML's header."""


@dataclass(frozen=True, slots=True)
class DriverBranch:
    """Driver versions from `since` up to the next branch.

    `missing` are the functions of ours that the library lacks, `fields` is one more than the highest field number.
    `entry_bytes` has the size of a list's entries where the driver writes another than the header declares.
    """

    name: str
    since: Version
    missing: frozenset[str] = frozenset()
    fields: int = 0
    entry_bytes: Mapping[str, int] = field(default_factory=dict)


MPS_PROCESS_ENTRY_BYTES: Mapping[str, int] = {
    name.replace("GetCompute", "GetMPSCompute"): size for name, size in PROCESS_ENTRY_BYTES.items()
}
"""The same for clients of the multi-process service (MPS), which the other functions do not list."""
MPS_PROCESSES_V3 = next(iter(MPS_PROCESS_ENTRY_BYTES))

_BEFORE_580 = frozenset({ADDRESSING_MODE})
_BEFORE_535 = _BEFORE_580 | {EVENT_REASONS}
_BEFORE_520 = _BEFORE_535 | GPM_FUNCTIONS
_BEFORE_510 = _BEFORE_520 | {MEMORY_INFO_V2, PROCESSES_V3, MPS_PROCESSES_V3}

_LONGER_ENTRIES = {PROCESSES_V3: 32, MPS_PROCESSES_V3: 32}

BRANCHES: tuple[DriverBranch, ...] = (
    DriverBranch("470", (470,), _BEFORE_510, fields=161),
    DriverBranch("510", (510,), _BEFORE_520, fields=161),
    DriverBranch("525", (525,), _BEFORE_535, fields=170),
    # Entries became longer without a new name of the function ...
    DriverBranch("535.43", (535, 43), _BEFORE_580, fields=197, entry_bytes=_LONGER_ENTRIES),
    # ... the function was removed, and came back with the former entries.
    DriverBranch("535.98", (535, 98), _BEFORE_580 | _LONGER_ENTRIES.keys(), fields=197),
    DriverBranch("535.104", (535, 104), _BEFORE_580, fields=197),
    DriverBranch("550", (550,), _BEFORE_580, fields=200),
    DriverBranch("570", (570,), _BEFORE_580, fields=269),
    DriverBranch("575", (575,), _BEFORE_580, fields=274),
    DriverBranch("580", (580,), fields=274),
    DriverBranch("590", (590,), fields=289),
)
"""Oldest first."""


def branch_of(version: Version) -> DriverBranch | None:
    """The branch of a version; None if it is unknown, or older than all of them."""
    return next((branch for branch in reversed(BRANCHES) if version >= branch.since), None)


class ProcessFunction(NamedTuple):
    """A function that lists processes, and the size of its entries in bytes."""

    name: str
    entry_bytes: int


def process_functions(
    version: Version, declared: Mapping[str, int] = PROCESS_ENTRY_BYTES
) -> tuple[ProcessFunction, ...]:
    """The functions of a list to try in turn. Those whose entries are as declared come first, and so do newer ones.

    A driver of unknown version may be one with longer entries: the second version is the same everywhere.
    """
    branch = branch_of(version)
    deviating = branch.entry_bytes if branch else {name: declared.get(name, 0) for name in _LONGER_ENTRIES}
    functions = [ProcessFunction(name, deviating.get(name, size)) for name, size in declared.items()]
    return tuple(sorted(functions, key=lambda function: function.name in deviating))  # stable: newest first
