"""GPU types for the simulator. Made by `python docs/build_gpu_types.py` from the advisor's list: do not edit."""

from __future__ import annotations

from typing import NamedTuple


class GpuType(NamedTuple):
    """`sizes_gib`: of a card, ascending; `devices`: GPUs that the driver shows per card; `link_bytes_per_second`: to
    the other GPUs of a node, in one direction; `driver_name`: with {gib} where the size belongs."""

    vendor: str
    sizes_gib: tuple[int, ...]
    devices: int
    watts: int
    link_bytes_per_second: float
    generation: str
    driver_name: str


GPU_TYPES: dict[str, GpuType] = {
    "P4": GpuType("nvidia", (8,), 1, 75, 16e9, "pascal", "Tesla P4"),
    "P100": GpuType("nvidia", (12, 16), 1, 250, 16e9, "pascal", "Tesla P100-PCIE-{gib}GB"),
    "K80": GpuType("nvidia", (12,), 1, 300, 16e9, "kepler", "Tesla K80"),
    "M60": GpuType("nvidia", (8,), 1, 300, 16e9, "maxwell", "Tesla M60"),
    "V100": GpuType("nvidia", (16, 32), 1, 300, 150e9, "volta", "Tesla V100-SXM2-{gib}GB"),
    "T4": GpuType("nvidia", (16,), 1, 70, 16e9, "turing", "Tesla T4"),
    "T4G": GpuType("nvidia", (16,), 1, 70, 16e9, "turing", "NVIDIA T4G"),
    "A2": GpuType("nvidia", (16,), 1, 60, 16e9, "ampere", "NVIDIA A2"),
    "A10": GpuType("nvidia", (24,), 1, 150, 32e9, "ampere", "NVIDIA A10"),
    "A10G": GpuType("nvidia", (24,), 1, 300, 32e9, "ampere", "NVIDIA A10G"),
    "A16": GpuType("nvidia", (16,), 1, 62, 32e9, "ampere", "NVIDIA A16"),
    "A30": GpuType("nvidia", (24,), 1, 165, 100e9, "ampere", "NVIDIA A30"),
    "A40": GpuType("nvidia", (48,), 1, 300, 56e9, "ampere", "NVIDIA A40"),
    "A100": GpuType("nvidia", (40, 80), 1, 400, 300e9, "ampere", "NVIDIA A100-SXM4-{gib}GB"),
    "A800": GpuType("nvidia", (40, 80), 1, 400, 200e9, "ampere", "NVIDIA A800-SXM4-{gib}GB"),
    "A4000": GpuType("nvidia", (16,), 1, 140, 32e9, "ampere", "NVIDIA RTX A4000"),
    "A4500": GpuType("nvidia", (20,), 1, 200, 32e9, "ampere", "NVIDIA RTX A4500"),
    "A5000": GpuType("nvidia", (24,), 1, 230, 32e9, "ampere", "NVIDIA RTX A5000"),
    "A6000": GpuType("nvidia", (48,), 1, 300, 56e9, "ampere", "NVIDIA RTX A6000"),
    "RTX3090": GpuType("nvidia", (24,), 1, 350, 32e9, "ampere", "NVIDIA GeForce RTX 3090"),
    "L4": GpuType("nvidia", (24,), 1, 72, 32e9, "ada", "NVIDIA L4"),
    "L40": GpuType("nvidia", (48,), 1, 300, 32e9, "ada", "NVIDIA L40"),
    "L40S": GpuType("nvidia", (48,), 1, 350, 32e9, "ada", "NVIDIA L40S"),
    "RTX4090": GpuType("nvidia", (24,), 1, 450, 32e9, "ada", "NVIDIA GeForce RTX 4090"),
    "RTX6000ADA": GpuType("nvidia", (48,), 1, 300, 32e9, "ada", "NVIDIA RTX 6000 Ada Generation"),
    "H20": GpuType("nvidia", (96, 141), 1, 500, 450e9, "hopper", "NVIDIA H20"),
    "H100": GpuType("nvidia", (80, 94, 96), 1, 700, 450e9, "hopper", "NVIDIA H100 80GB HBM3"),
    "H800": GpuType("nvidia", (80,), 1, 700, 200e9, "hopper", "NVIDIA H800"),
    "H200": GpuType("nvidia", (141,), 1, 700, 450e9, "hopper", "NVIDIA H200"),
    "GH200": GpuType("nvidia", (96, 144), 1, 900, 450e9, "hopper", "NVIDIA GH200 480GB"),
    "B200": GpuType("nvidia", (180,), 1, 1000, 900e9, "blackwell", "NVIDIA B200"),
    "B300": GpuType("nvidia", (270,), 1, 1100, 900e9, "blackwell", "NVIDIA B300 SXM6 AC"),
    "GB200": GpuType("nvidia", (186,), 1, 1200, 900e9, "blackwell", "NVIDIA GB200"),
    "GB300": GpuType("nvidia", (279,), 1, 1400, 900e9, "blackwell", "NVIDIA GB300"),
    "RTX5090": GpuType("nvidia", (32,), 1, 575, 64e9, "blackwell", "NVIDIA GeForce RTX 5090"),
    "RTXPRO6000": GpuType("nvidia", (96,), 1, 600, 64e9, "blackwell", "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
    "MI210": GpuType("amd", (64,), 1, 300, 150e9, "cdna", "AMD Instinct MI210"),
    "MI250": GpuType("amd", (128,), 2, 560, 350e9, "cdna", "AMD Instinct MI250"),
    "MI250X": GpuType("amd", (128,), 2, 560, 350e9, "cdna", "AMD Instinct MI250X"),
    "MI300A": GpuType("amd", (128,), 1, 760, 384e9, "cdna", "AMD Instinct MI300A"),
    "MI300X": GpuType("amd", (192,), 1, 750, 448e9, "cdna", "AMD Instinct MI300X"),
    "MI325X": GpuType("amd", (256,), 1, 1000, 448e9, "cdna", "AMD Instinct MI325X"),
    "MI350X": GpuType("amd", (288,), 1, 1000, 538e9, "cdna", "AMD Instinct MI350X"),
    "MI355X": GpuType("amd", (288,), 1, 1400, 538e9, "cdna", "AMD Instinct MI355X"),
    "GAUDI2": GpuType("intel", (96,), 1, 600, 262.5e9, "gaudi", "HL-225"),
    "GAUDI3": GpuType("intel", (128,), 1, 900, 525e9, "gaudi", "HL-325L"),
    "MAX1100": GpuType("intel", (48,), 1, 300, 53e9, "", "Intel Data Center GPU Max 1100"),
    "MAX1550": GpuType("intel", (128,), 2, 600, 53e9, "", "Intel Data Center GPU Max 1550"),
    "FLEX170": GpuType("intel", (16,), 1, 150, 32e9, "", "Intel Data Center GPU Flex 170"),
    "ASCEND910": GpuType("huawei", (32, 64), 1, 310, 30e9, "", "Ascend 910"),
}  # fmt: skip
