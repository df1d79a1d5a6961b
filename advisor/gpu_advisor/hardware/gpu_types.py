"""GPU types in the many ways they are written: `V100`, `NVIDIA A100-SXM4-80GB`, `rtx 4090`, `nvidia.com/gpu`.

Resource names are those that the vendors' Kubernetes device plug-ins announce:
https://github.com/NVIDIA/k8s-device-plugin, https://github.com/ROCm/k8s-device-plugin,
https://github.com/intel/intel-device-plugins-for-kubernetes/blob/main/cmd/gpu_plugin/README.md (i915, xe),
https://gitee.com/ascend/ascend-device-plugin (Ascend910); the plain ones are what people write down beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gpu_advisor.hardware.cluster_spec import GPU_MEMORY_GIB

#: Resource names in Kubernetes by vendor, the usual one first.
RESOURCE_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nvidia": ("nvidia.com/gpu",),
        "amd": ("amd.com/gpu",),
        "intel": ("gpu.intel.com/i915", "gpu.intel.com/xe", "intel.com/gpu"),
        "huawei": ("huawei.com/Ascend910", "huawei.com/npu"),
    }
)

#: GB by type, for machines that do not tell: the inventory's own figure always wins. Where a type is sold in two sizes,
#: the usual one.
DEFAULT_MEMORY_GB: Mapping[str, float] = MappingProxyType(
    {"T4": 16, "V100": 32, "A100": 80, "H100": 80, "RTX3090": 24, "RTX4090": 24, "A6000": 48, "A40": 48}
)

_OTHER_TYPES = ("ASCEND910", "MAX1100", "MAX1550", "FLEX170", "MI210", "MI325X")
_VENDOR_PREFIXES = (("MI", "amd"), ("GAUDI", "intel"), ("MAX", "intel"), ("FLEX", "intel"), ("ASCEND", "huawei"))

#: What is left of a name when vendor, brand and form are taken away says the type.
_NOISE_PATTERN = re.compile(
    r"(?i)\b(?:nvidia|amd|intel|huawei|tesla|geforce|quadro|instinct|radeon|graphics|data\s*center\s*gpu|generation)\b"
    r"|\b(?:sxm\d?|pcie|hbm\d?e?|nvl|oam|smc)\b|\bRTX(?=\s*A\d)"
)
_MEMORY_PATTERN = re.compile(r"(?i)(?<![\w.])(\d{1,4}(?:\.\d+)?)\s*(?:GiB|GB|G)\b(?!\.)")


@dataclass(frozen=True, slots=True)
class GpuType:
    """`name` is canonical, as `A100` ("" if only a vendor was named); `memory_gb` is what the text said, if it did."""

    name: str
    vendor: str
    memory_gb: float | None = None


def vendor_of_resource(text: str, names: Mapping[str, tuple[str, ...]] = RESOURCE_NAMES) -> str | None:
    """The vendor whose resource name this is; None if it is nobody's."""
    wanted = text.strip().lower()
    return next((vendor for vendor, known in names.items() if wanted in {name.lower() for name in known}), None)


def parse_gpu_type(text: str) -> GpuType:
    """What a type is called here, known or not: an unknown one keeps its letters and digits, as `TITANV`."""
    memory_match = _MEMORY_PATTERN.search(text)
    rest = re.sub(r"[-_/]", " ", text)
    rest = _NOISE_PATTERN.sub(" ", _MEMORY_PATTERN.sub(" ", rest))
    name = re.sub(r"[^A-Za-z0-9.]", "", rest).upper()
    return GpuType(name, vendor_of_type(name, text), float(memory_match[1]) if memory_match else None)


def vendor_of_type(name: str, text: str = "") -> str:
    """Of a canonical name, or of the text it was read from, where that says it."""
    found = re.search(r"(?i)nvidia|amd|intel|huawei", text)
    if found:
        return found[0].lower()
    return next((vendor for start, vendor in _VENDOR_PREFIXES if name.startswith(start)), "nvidia")


def known_gpu_types() -> frozenset[str]:
    """Types whose names are understood without an inventory that has them."""
    return frozenset({*GPU_MEMORY_GIB, *_OTHER_TYPES})


def sold_gb(name: str, reported_bytes: float) -> float:
    """GB as sold for what a card reports, which is a little less: drivers and ECC keep some.

    A T4 of 16 GB reports 15 GiB, the largest such gap among the types here; anything else is told as it is, in GiB.
    """
    gib = reported_bytes / (1 << 30)
    return next(
        (float(size) for size in GPU_MEMORY_GIB.get(name, ()) if 0.93 * size <= gib <= 1.01 * size), round(gib, 2)
    )
