"""Families of NVIDIA GPUs that differ in what a plausible value is, or in where their memory is. One table.

Power: the highest limit of a board of the family, from NVIDIA's data sheets. Averages of a second exceed a limit
slightly, so that up to half as much again is believed.

Memory: a GPU with memory of its own reports it. One that shares the CPU's memory has no framebuffer, and NVML reports
none (DGX Spark user guide, "Known issues"): its total and used memory are those of the machine, as in NVIDIA's own
guidance there and in tegrastats. Grace superchips have both: coherent memory with the CPU, and a framebuffer that
nvidia-smi shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

POWER_MARGIN = 1.5
"""Multiple of a family's highest power limit that is still plausible."""


class MemoryKind(Enum):
    """Where a GPU's memory is."""

    OWN = "own"
    COHERENT = "coherent"
    """Memory of its own, and the CPU's in the same address space: Grace."""
    SHARED = "shared"
    """None of its own."""

    @property
    def unified(self) -> str:
        """The label of gpu_info."""
        return "" if self is MemoryKind.OWN else "true"


@dataclass(frozen=True, slots=True)
class GpuFamily:
    """GPUs whose name matches `pattern`. `max_watts` is the highest power limit of a board of the family."""

    pattern: str
    max_watts: float
    memory: MemoryKind = MemoryKind.OWN

    @property
    def plausible_watts(self) -> float:
        """Power above this is not a measurement."""
        return POWER_MARGIN * self.max_watts


_SHARED, _COHERENT = MemoryKind.SHARED, MemoryKind.COHERENT

FAMILIES: tuple[GpuFamily, ...] = (
    GpuFamily(r"GB10|RTX Spark|N1X", 140, _SHARED),  # the whole chip
    GpuFamily(r"Thor", 130, _SHARED),
    GpuFamily(r"Orin|Xavier|Tegra|nvgpu|Jetson", 75, _SHARED),
    GpuFamily(r"GH200|Grace Hopper", 1000, _COHERENT),
    GpuFamily(r"GB[23]00|Grace Blackwell", 1400, _COHERENT),
    GpuFamily(r"VR[23]00|Vera Rubin", 2300, _COHERENT),
    GpuFamily(r"B100|B200|B300", 1400),
    GpuFamily(r"H100|H200|H800|H20", 700),
    GpuFamily(r"A100|A800|PG506|DRIVE", 500),
    GpuFamily(r"V100", 450),
    GpuFamily(r"P100", 300),
    GpuFamily(r"L40|L20|A40|A30|A10|A16|RTX A\d|P40|M60|M40|K80", 350),
    GpuFamily(r"L4|L2|T4|A2|P4|P6|T1000|T400|T600", 75),
    GpuFamily(r"GeForce|TITAN|RTX|GTX|Quadro", 600),
)
"""The first that matches is used."""

UNKNOWN_FAMILY = GpuFamily("", 2300)
"""For names of none of the families, such as those of new GPUs or those that cannot be read."""

_PATTERNS = tuple((re.compile(rf"(?<![A-Za-z0-9])(?:{family.pattern})(?![0-9])"), family) for family in FAMILIES)


def family_of(name: str) -> GpuFamily:
    """The family of a GPU, by the name that NVML has for it."""
    return next((family for pattern, family in _PATTERNS if pattern.search(name)), UNKNOWN_FAMILY)
