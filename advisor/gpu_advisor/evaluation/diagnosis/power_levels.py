"""Power levels of GPU models: the default limit, and what a GPU draws while no kernel runs.

Power shows how much of a GPU works where SM activity is missing, but only between two bounds: a GPU without work draws
its idle power, or, while a process keeps its clocks up, considerably more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gpu_advisor.hardware.gpu_table import GPU_SPECS
from gpu_advisor.text_cache import cache_texts

#: Default limits in watts of boards that share a type's name in the list of GPU types but not its limit, by the
#: driver's exact name. NVIDIA's product briefs: https://www.nvidia.com/en-us/data-center/a100/ (PCIe: 250 and 300 W),
#: https://www.nvidia.com/en-us/data-center/h100/ (PCIe 350 W, NVL 400 W), https://www.nvidia.com/en-us/data-center/v100/.
_OTHER_BOARDS = {
    "NVIDIA A100-PCIE-40GB": 250.0,
    "NVIDIA A100 80GB PCIe": 300.0,
    "NVIDIA H100 PCIe": 350.0,
    "NVIDIA H100 NVL": 400.0,
    "Tesla V100-PCIE-16GB": 250.0,
    "Tesla V100-PCIE-32GB": 250.0,
}


class IdleShares(NamedTuple):
    """Power without work, as shares of the limit: at the lowest clocks, and with clocks up."""

    lowest: float
    clocks_up: float


#: The first pattern found in a GPU's name counts. From nvidia-smi on idle and lightly loaded GPUs, rounded outwards:
#: https://github.com/utkuozdemir/nvidia_gpu_exporter/tree/main/internal/integration/testdata has such readings.
_IDLE_SHARES: tuple[tuple[str, IdleShares], ...] = (
    (r"\b(G?H[128]00|G?B[23]00|H20)\b", IdleShares(0.10, 0.18)),
    (r"\b(A100|A800|A30)\b", IdleShares(0.14, 0.22)),
    (r"\bV100\b", IdleShares(0.12, 0.22)),
    (r"\bL4$", IdleShares(0.20, 0.42)),
    (r"\bT4", IdleShares(0.12, 0.40)),
    (r"\b(L40S?|A40|A10G?)\b", IdleShares(0.08, 0.32)),
    (r"GeForce RTX [45]0\d\d", IdleShares(0.04, 0.20)),
    (r"Instinct MI", IdleShares(0.10, 0.24)),
)
_UNKNOWN_MODEL = IdleShares(0.04, 0.45)


@cache_texts(1024)
def default_limit_watts(name: str) -> float | None:
    """The power limit that a model leaves the factory with, by the driver's name for it; None if unknown.

    NVIDIA's names must match in full: a laptop GPU or a PCIe board has another limit than its namesake.
    """
    if name in _OTHER_BOARDS:
        return _OTHER_BOARDS[name]
    for spec in GPU_SPECS.values():
        names = {spec.driver_name.replace("{gib}", str(size)) for size in spec.sizes} if spec.driver_name else set()
        if name in names or (spec.vendor == "amd" and any(name.startswith(f"{each} ") for each in names)):
            return spec.watts / spec.devices
    return None


@cache_texts(1024)
def idle_shares(name: str) -> IdleShares:
    return next((shares for pattern, shares in _IDLE_SHARES if re.search(pattern, name)), _UNKNOWN_MODEL)
