"""The one list of GPU types: memory, peak throughput, links and power, as vendors publish them.

Planner, allocator, catalogue and back-test read it here; the exporter's simulator has a copy that
`python -m docs.build_gpu_types` writes (`exporter/gpu_exporter/devices/gpu_types.py`).

Sources are the vendors' data sheets: https://www.nvidia.com/en-us/data-center/ (a100, h100, h200, l4, l40, l40s, t4,
v100, grace-hopper-superchip, gb200-nvl72), https://resources.nvidia.com/en-us-blackwell-architecture (B200, B300),
https://www.amd.com/en/products/accelerators/instinct.html (MI200, MI300, MI350), and, for Gaudi,
https://docs.habana.ai/en/latest/Gaudi_Overview/Gaudi_Architecture.html. The 16-bit peaks of H20, MI250X, MI300X,
MI325X, MI355X, GB200, GB300 and the H100 variants are those that torchtitan computes MFU with
(https://github.com/pytorch/torchtitan/blob/main/torchtitan/tools/utils.py). Others:
A2, A16 (a quarter of the card): https://hmc-tech.com/gpu/nvidia-a2-vs-nvidia-a40,
https://hmc-tech.com/gpu/nvidia-a16-vs-nvidia-a40
A10G: https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf
GeForce and RTX, with float32 accumulation, NVIDIA's papers on the architectures:
https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf,
https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf,
https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf
Ascend 910: https://pureai.com/articles/2019/09/03/nws-huawei-ascend-910-processor.aspx
Second readings of most: https://github.com/stas00/ml-engineering/tree/master/compute/accelerator
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One type of card.

    `memory_gib`: sizes in which the type is sold under this very name, ascending; `other_gib`: sizes of variants that a
    plain name does not mean (H100 NVL has 94). `devices`: GPUs that the driver shows per card; memory and peaks are of
    the whole card. `tflops`: dense 16-bit tensor peak, None if not published. `link_gb_per_second`: bandwidth to the
    other GPUs of a node in one direction (NVLink, Infinity Fabric; else PCIe). `network_gbits`: of one GPU's share of
    the usual cluster network. `watts`: the board's power limit. Blackwell's memory is what software can use; data
    sheets also quote the raw 192 and 288.
    """

    name: str
    vendor: str
    memory_gib: tuple[int, ...]
    tflops: float | None = None
    link_gb_per_second: float = 32.0
    network_gbits: float = 12.5
    watts: int = 300
    generation: str = ""
    other_gib: tuple[int, ...] = ()
    devices: int = 1
    driver_name: str = ""
    """As the driver spells it; {gib} is the size."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes, ascending."""
        return tuple(sorted({*self.memory_gib, *self.other_gib}))


def _nvidia(name: str, memory: tuple[int, ...], generation: str, **more: Any) -> GpuSpec:
    return GpuSpec(name, "nvidia", memory, generation=generation, **more)


def _amd(name: str, memory: int, tflops: float, link: float, watts: int, **more: Any) -> GpuSpec:
    return GpuSpec(name, "amd", (memory,), tflops, link, 400.0 if memory >= 192 else 200.0, watts, "cdna",
                   driver_name=f"AMD Instinct {name}", **more)  # fmt: skip


_SPECS = (
    # Pascal, Volta, Turing
    _nvidia("P4", (8,), "pascal", watts=75, link_gb_per_second=16, driver_name="Tesla P4"),
    _nvidia("P100", (16,), "pascal", tflops=18.7, other_gib=(12,), watts=250, link_gb_per_second=16,
            driver_name="Tesla P100-PCIE-{gib}GB"),
    _nvidia("K80", (12,), "kepler", watts=300, link_gb_per_second=16, driver_name="Tesla K80"),
    _nvidia("M60", (8,), "maxwell", watts=300, link_gb_per_second=16, driver_name="Tesla M60"),
    _nvidia("V100", (16, 32), "volta", tflops=125, link_gb_per_second=150, watts=300,
            driver_name="Tesla V100-SXM2-{gib}GB"),
    _nvidia("T4", (16,), "turing", tflops=65, link_gb_per_second=16, watts=70, driver_name="Tesla T4"),
    _nvidia("T4G", (16,), "turing", tflops=65, link_gb_per_second=16, watts=70, driver_name="NVIDIA T4G"),
    # Ampere
    _nvidia("A2", (16,), "ampere", tflops=18, link_gb_per_second=16, watts=60, driver_name="NVIDIA A2"),
    _nvidia("A10", (24,), "ampere", tflops=125, watts=150, driver_name="NVIDIA A10"),
    _nvidia("A10G", (24,), "ampere", tflops=70, watts=300, driver_name="NVIDIA A10G"),
    _nvidia("A16", (16,), "ampere", tflops=17.4, watts=62, driver_name="NVIDIA A16"),
    _nvidia("A30", (24,), "ampere", tflops=165, link_gb_per_second=100, watts=165, driver_name="NVIDIA A30"),
    _nvidia("A40", (48,), "ampere", tflops=149.7, link_gb_per_second=56, watts=300, driver_name="NVIDIA A40"),
    _nvidia("A100", (40, 80), "ampere", tflops=312, link_gb_per_second=300, network_gbits=200, watts=400,
            driver_name="NVIDIA A100-SXM4-{gib}GB"),
    _nvidia("A800", (40, 80), "ampere", tflops=312, link_gb_per_second=200, network_gbits=200, watts=400,
            driver_name="NVIDIA A800-SXM4-{gib}GB"),
    _nvidia("A4000", (16,), "ampere", tflops=76.7, watts=140, driver_name="NVIDIA RTX A4000"),
    _nvidia("A4500", (20,), "ampere", tflops=94.6, watts=200, driver_name="NVIDIA RTX A4500"),
    _nvidia("A5000", (24,), "ampere", tflops=111.1, watts=230, driver_name="NVIDIA RTX A5000"),
    _nvidia("A6000", (48,), "ampere", tflops=154.8, link_gb_per_second=56, watts=300, driver_name="NVIDIA RTX A6000"),
    _nvidia("RTX3090", (24,), "ampere", tflops=71, watts=350, driver_name="NVIDIA GeForce RTX 3090"),
    # Ada
    _nvidia("L4", (24,), "ada", tflops=121, watts=72, driver_name="NVIDIA L4"),
    _nvidia("L40", (48,), "ada", tflops=181, watts=300, driver_name="NVIDIA L40"),
    _nvidia("L40S", (48,), "ada", tflops=362, watts=350, driver_name="NVIDIA L40S"),
    _nvidia("RTX4090", (24,), "ada", tflops=165.2, watts=450, driver_name="NVIDIA GeForce RTX 4090"),
    _nvidia("RTX6000ADA", (48,), "ada", tflops=364.2, watts=300, driver_name="NVIDIA RTX 6000 Ada Generation"),
    # Hopper
    _nvidia("H20", (96,), "hopper", tflops=148, other_gib=(141,), link_gb_per_second=450, network_gbits=400, watts=500,
            driver_name="NVIDIA H20"),
    _nvidia("H100", (80,), "hopper", tflops=989, other_gib=(94, 96), link_gb_per_second=450, network_gbits=400,
            watts=700, driver_name="NVIDIA H100 80GB HBM3"),
    _nvidia("H800", (80,), "hopper", tflops=989, link_gb_per_second=200, network_gbits=400, watts=700,
            driver_name="NVIDIA H800"),
    _nvidia("H200", (141,), "hopper", tflops=989, link_gb_per_second=450, network_gbits=400, watts=700,
            driver_name="NVIDIA H200"),
    _nvidia("GH200", (96,), "hopper", tflops=989, other_gib=(144,), link_gb_per_second=450, network_gbits=400,
            watts=900, driver_name="NVIDIA GH200 480GB"),
    # Blackwell
    _nvidia("B200", (180,), "blackwell", tflops=2250, link_gb_per_second=900, network_gbits=400,
            watts=1000, driver_name="NVIDIA B200"),
    _nvidia("B300", (270,), "blackwell", tflops=2250, link_gb_per_second=900, network_gbits=800,
            watts=1100, driver_name="NVIDIA B300 SXM6 AC"),
    _nvidia("GB200", (186,), "blackwell", tflops=2500, link_gb_per_second=900, network_gbits=400,
            watts=1200, driver_name="NVIDIA GB200"),
    _nvidia("GB300", (279,), "blackwell", tflops=2500, link_gb_per_second=900, network_gbits=800,
            watts=1400, driver_name="NVIDIA GB300"),
    _nvidia("RTX5090", (32,), "blackwell", tflops=209.5, link_gb_per_second=64, watts=575,
            driver_name="NVIDIA GeForce RTX 5090"),
    _nvidia("RTXPRO6000", (96,), "blackwell", tflops=503.8, link_gb_per_second=64, watts=600,
            driver_name="NVIDIA RTX PRO 6000 Blackwell Server Edition"),
    # AMD; the driver shows the two dies of an MI250X as two GPUs of half its memory
    _amd("MI210", 64, 181, 150, 300),
    _amd("MI250", 128, 362.1, 350, 560, devices=2),
    _amd("MI250X", 128, 383, 350, 560, devices=2),
    _amd("MI300A", 128, 980.6, 384, 760),
    _amd("MI300X", 192, 1307.4, 448, 750),
    _amd("MI325X", 256, 1307.4, 448, 1000),
    _amd("MI350X", 288, 2300, 538, 1000),
    _amd("MI355X", 288, 2500, 538, 1400),
    # Others
    GpuSpec("GAUDI2", "intel", (96,), 432, 262.5, 300, 600, "gaudi", driver_name="HL-225"),
    GpuSpec("GAUDI3", "intel", (128,), 1678, 525, 600, 900, "gaudi", driver_name="HL-325L"),
    GpuSpec("MAX1100", "intel", (48,), None, 53, watts=300, driver_name="Intel Data Center GPU Max 1100"),
    GpuSpec("MAX1550", "intel", (128,), None, 53, watts=600, devices=2, driver_name="Intel Data Center GPU Max 1550"),
    GpuSpec("FLEX170", "intel", (16,), None, watts=150, driver_name="Intel Data Center GPU Flex 170"),
    GpuSpec("ASCEND910", "huawei", (32,), 256, 30, watts=310, other_gib=(64,), driver_name="Ascend 910"),
)  # fmt: skip

GPU_SPECS: Mapping[str, GpuSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
