"""A simulated model by name: those described in full, and every other type of the list with its generation's clocks."""

from __future__ import annotations

import re
from typing import NamedTuple

from gpu_exporter.devices.gpu_types import GPU_TYPES, GpuType
from gpu_exporter.devices.simulated_scenarios import MODELS, GpuModel


class _Generation(NamedTuple):
    """Clocks in MHz; the interval over which the driver averages utilization, in seconds."""

    sm_clock: float
    sm_clock_idle: float
    memory_clock: float
    averaging_seconds: float
    pcie_generation: int
    has_activity: bool = False
    has_row_remapping: bool = False


_OLD = _Generation(1328, 135, 715, 1.0, 3)
_GENERATIONS = {
    "volta": _Generation(1530, 135, 877, 1.0, 3),
    "turing": _Generation(1590, 300, 5001, 1.0, 3),
    "ampere": _Generation(1695, 210, 6251, 1 / 6, 4, has_row_remapping=True),
    "ada": _Generation(2520, 210, 9001, 1 / 6, 4, has_row_remapping=True),
    "hopper": _Generation(1980, 345, 2619, 1 / 6, 5, has_activity=True, has_row_remapping=True),
    "blackwell": _Generation(1965, 120, 3996, 1 / 6, 5, has_activity=True, has_row_remapping=True),
    "cdna": _Generation(2100, 132, 1300, 1.0, 5),
    "gaudi": _Generation(1650, 200, 1600, 1.0, 4),
}
#: Faster links than PCIe are NVLink or its like.
_PCIE_BYTES_PER_SECOND = 64e9
_IDLE_SHARE, _RESERVED_SHARE = 0.11, 0.007


def find_model(text: str) -> GpuModel | None:
    """`V100-16GB`, `V100` (its largest size) or `mi300x`; None if no type of the list has this name."""
    described = {name.upper(): model for name, model in MODELS.items()}
    wanted = re.sub(r"-(\d+)(?:GIB|GB|G)$", r"-\1GB", text.strip().upper().replace("_", "-"))
    if wanted in described:
        return described[wanted]
    match = re.fullmatch(r"(.+?)(?:-(\d+)GB)?", wanted)
    name = match[1].replace("-", "") if match else ""
    gpu_type = GPU_TYPES.get(name)
    if not match or gpu_type is None:
        return None
    # Without a size: the largest that is described in full, else the largest.
    sizes = [size for size in gpu_type.sizes_gib if f"{name}-{size}GB" in described] or list(gpu_type.sizes_gib)
    size = int(match[2]) if match[2] else sizes[-1]
    return described.get(f"{name}-{size}GB") or (_model(gpu_type, size) if size in gpu_type.sizes_gib else None)


def _model(gpu_type: GpuType, gib: int) -> GpuModel:
    clocks = _GENERATIONS.get(gpu_type.generation, _OLD)
    memory_mib = gib * 1024.0 / gpu_type.devices
    watts = gpu_type.watts / gpu_type.devices
    linked = gpu_type.link_bytes_per_second > _PCIE_BYTES_PER_SECOND
    return GpuModel(
        gpu_type.driver_name.replace("{gib}", str(gib)),
        memory_mib,
        round(_RESERVED_SHARE * memory_mib),
        round(_IDLE_SHARE * watts),
        watts,
        clocks.sm_clock,
        clocks.sm_clock_idle,
        clocks.memory_clock,
        clocks.averaging_seconds,
        nvlink_bytes_per_second=gpu_type.link_bytes_per_second if linked else 0.0,
        pcie_generation=clocks.pcie_generation,
        has_activity=clocks.has_activity,
        has_row_remapping=clocks.has_row_remapping,
        vendor=gpu_type.vendor,
    )
