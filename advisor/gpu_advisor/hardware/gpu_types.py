"""GPU types, their memory, and their spellings: `V100`, `NVIDIA A100-SXM4-80GB`, `rtx 4090`, `nvidia.com/gpu`.

Resource names are those of the vendors' Kubernetes device plug-ins:
https://github.com/NVIDIA/k8s-device-plugin, https://github.com/ROCm/k8s-device-plugin,
https://github.com/intel/intel-device-plugins-for-kubernetes/blob/main/cmd/gpu_plugin/README.md (i915, xe),
https://gitee.com/ascend/ascend-device-plugin (Ascend910); and other names in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GIB = 1 << 30

#: Memory of each type in GiB, from the vendors' data sheets; several sizes ascending.
GPU_MEMORY_GIB: Mapping[str, tuple[int, ...]] = MappingProxyType({
    "T4": (16,), "V100": (16, 32), "P100": (16,), "A10": (24,), "A10G": (24,), "A16": (16,), "A30": (24,), "A40": (48,),
    "A100": (40, 80), "A6000": (48,), "L4": (24,), "L40": (48,), "L40S": (48,), "H100": (80,), "H200": (141,),
    "B200": (180,), "RTX3090": (24,), "RTX4090": (24,), "MI250X": (128,), "MI300X": (192,), "GAUDI2": (96,),
})  # fmt: skip

#: Resource names in Kubernetes by vendor, the usual one first.
RESOURCE_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nvidia": ("nvidia.com/gpu",),
        "amd": ("amd.com/gpu",),
        "intel": ("gpu.intel.com/i915", "gpu.intel.com/xe", "intel.com/gpu"),
        "huawei": ("huawei.com/Ascend910", "huawei.com/npu"),
    }
)

#: Default of `allocation.gpu_memory_specs`: GB by type, the larger size, for nodes that do not report memory.
DEFAULT_MEMORY_GB: Mapping[str, float] = MappingProxyType({
    name: max(GPU_MEMORY_GIB[name]) for name in ("T4", "V100", "A100", "H100", "RTX3090", "RTX4090", "A6000", "A40")
})  # fmt: skip

_OTHER_TYPES = ("ASCEND910", "MAX1100", "MAX1550", "FLEX170", "MI210", "MI325X")
_VENDOR_PREFIXES = (("MI", "amd"), ("GAUDI", "intel"), ("MAX", "intel"), ("FLEX", "intel"), ("ASCEND", "huawei"))

#: Vendor, brand and form factor: what a name has besides the type.
_NOISE_PATTERN = re.compile(
    r"(?i)\b(?:nvidia|amd|intel|huawei|tesla|geforce|quadro|instinct|radeon|graphics|data\s*center\s*gpu|generation)\b"
    r"|\b(?:sxm\d?|pcie|hbm\d?e?|nvl|oam|smc)\b|\bRTX(?=\s*A\d)"
)
_MEMORY_PATTERN = re.compile(r"(?i)(?<![\w.])(\d{1,4}(?:\.\d+)?)\s*(?:GiB|GB|G)\b(?!\.)")


@dataclass(frozen=True, slots=True)
class GpuType:
    """`name` is canonical, as `A100` ("" if the text has only a vendor); `memory_gb`: in the text, if given."""

    name: str
    vendor: str
    memory_gb: float | None = None


def vendor_of_resource(text: str, names: Mapping[str, tuple[str, ...]] = RESOURCE_NAMES) -> str | None:
    """The vendor of a resource name; None if it is unknown."""
    resource = text.strip().lower()
    return next((vendor for vendor, known in names.items() if resource in {name.lower() for name in known}), None)


def parse_gpu_type(text: str) -> GpuType:
    """The canonical type of a text; an unknown type keeps its letters and digits, as `TITANV`."""
    memory_match = _MEMORY_PATTERN.search(text)
    rest = re.sub(r"[-_/]", " ", text)
    rest = _NOISE_PATTERN.sub(" ", _MEMORY_PATTERN.sub(" ", rest))
    name = re.sub(r"[^A-Za-z0-9.]", "", rest).upper()
    return GpuType(name, vendor_of_type(name, text), float(memory_match[1]) if memory_match else None)


def vendor_of_type(name: str, text: str = "") -> str:
    """From the original text if it names the vendor, else from the canonical name."""
    match = re.search(r"(?i)nvidia|amd|intel|huawei", text)
    if match:
        return match[0].lower()
    return next((vendor for start, vendor in _VENDOR_PREFIXES if name.startswith(start)), "nvidia")


def known_gpu_types() -> frozenset[str]:
    """Types that are known without an inventory that has them."""
    return frozenset({*GPU_MEMORY_GIB, *_OTHER_TYPES})


def nominal_gb(name: str, reported_bytes: float) -> float:
    """Nominal GB from the reported memory, which is a little less: driver and ECC reserve some.

    A 16 GB T4 reports 15 GiB, the largest gap among these types; if no size matches, the reported GiB.
    """
    gib = reported_bytes / GIB
    return next(
        (float(size) for size in GPU_MEMORY_GIB.get(name, ()) if 0.93 * size <= gib <= 1.01 * size), round(gib, 2)
    )
