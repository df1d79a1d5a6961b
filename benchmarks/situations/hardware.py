"""GPU models as far as the physics needs them. Figures are the vendor's own, from its data sheets."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2.0**30

#: One direction of 16 lanes, in bytes a second, by generation (PCI-SIG; after encoding).
PCIE_BYTES_PER_SECOND = {3: 15.8e9, 4: 31.5e9, 5: 63.0e9}


@dataclass(frozen=True, slots=True)
class Hardware:
    """A GPU model. Power in watts, clock in hertz, NVLink in bytes a second and one direction, 0 without one.

    `activity`: whether NVML itself gives the activity of SMs, tensor cores and memory (GPM: Hopper and newer);
    `profiling` whether DCGM does (Volta and newer data-centre GPUs).
    """

    name: str
    memory_bytes: float
    idle_watts: float
    limit_watts: float
    sm_clock: float
    nvlink: float
    pcie_generation: int
    activity: bool
    profiling: bool
    slowdown_celsius: float = 87.0

    @property
    def pcie(self) -> float:
        """Bytes a second, one direction."""
        return PCIE_BYTES_PER_SECOND[self.pcie_generation]


#: https://www.nvidia.com/en-us/data-center/h100/ h200/ l40s/ l4/ and the data sheets of A100, A10, V100 and T4 there;
#: https://www.nvidia.com/en-us/geforce/graphics-cards/40-series/rtx-4090/
MODELS: tuple[Hardware, ...] = (
    Hardware("NVIDIA H200", 141 * GIB, 76, 700, 1980e6, 450e9, 5, True, True),
    Hardware("NVIDIA H100 80GB HBM3", 80 * GIB, 70, 700, 1980e6, 450e9, 5, True, True),
    Hardware("NVIDIA A100-SXM4-80GB", 80 * GIB, 62, 400, 1410e6, 300e9, 4, False, True),
    Hardware("NVIDIA A100-SXM4-40GB", 40 * GIB, 55, 400, 1410e6, 300e9, 4, False, True),
    Hardware("NVIDIA L40S", 48 * GIB, 35, 350, 2520e6, 0, 4, False, True),
    Hardware("NVIDIA A10", 24 * GIB, 22, 150, 1695e6, 0, 4, False, True),
    Hardware("NVIDIA L4", 24 * GIB, 16, 72, 2040e6, 0, 4, False, True),
    Hardware("Tesla V100-SXM2-32GB", 32 * GIB, 42, 300, 1530e6, 150e9, 3, False, True),
    Hardware("Tesla T4", 16 * GIB, 10, 70, 1590e6, 0, 3, False, True),
    Hardware("NVIDIA GeForce RTX 4090", 24 * GIB, 20, 450, 2520e6, 0, 4, False, False),
)

#: How often each is met: newer ones more often, because that is what fleets buy.
WEIGHTS: tuple[float, ...] = (0.10, 0.30, 0.15, 0.06, 0.09, 0.07, 0.08, 0.07, 0.04, 0.04)
