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

from gpu_advisor.hardware.gpu_table import GPU_SPECS

GIB = 1 << 30

#: Reported memory relative to the nominal size.
_MIN_OF_NOMINAL, _MAX_OF_NOMINAL = 0.93, 1.07

#: Memory of each type in GiB; several sizes ascending. From the one list of GPU types, `gpu_table`.
GPU_MEMORY_GIB: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {name: spec.memory_gib for name, spec in GPU_SPECS.items()}
)

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

_VENDOR_PREFIXES = (("MI", "amd"), ("GAUDI", "intel"), ("MAX", "intel"), ("FLEX", "intel"), ("ASCEND", "huawei"))

#: Vendor, brand and form factor: what a name has besides the type.
_NOISE_PATTERN = re.compile(
    r"(?i)\b(?:nvidia|amd|intel|huawei|tesla|geforce|quadro|instinct|radeon|graphics|data\s*center\s*gpu|generation)\b"
    r"|\b(?:sxm\d?|pcie|hbm\d?e?|nvl|nvlink|oam|smc|ac|blackwell|(?:server|workstation)\s*edition)\b"
    r"|\bRTX(?=\s*A\d)"
)
#: Forms of a card that differ in memory from the plain name.
_FORM_GB = {("H100", "nvl"): 94.0}
#: How a card is built, as its name says it. The SXM form of the H100 is the only one with HBM3 that does not say NVL.
_FORM_PATTERNS = (
    ("nvl", re.compile(r"(?i)(?<![a-z])nvl(?![a-z])")),
    ("pcie", re.compile(r"(?i)(?<![a-z])pcie?(?![a-z])")),
    ("sxm", re.compile(r"(?i)(?<![a-z])(?:sxm\d?|hbm3)(?![a-z])")),
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
    return GpuType(name, vendor_of_type(name, text), _stated_gb(name, text, memory_match))


def _stated_gb(name: str, text: str, match: re.Match[str] | None) -> float | None:
    """Memory of the card in a text. More than the type has is the host's, as in `NVIDIA GH200 480GB`."""
    spec = GPU_SPECS.get(name)
    if match and not (spec and float(match[1]) > _MAX_OF_NOMINAL * spec.sizes[-1]):
        return float(match[1])
    words = re.findall(r"[a-z0-9]+", text.lower())
    return next((size for (type_, form), size in _FORM_GB.items() if type_ == name and form in words), None)


def form_factor(text: str) -> str:
    """`sxm`, `pcie` or `nvl`; empty if the name does not say it."""
    return next((form for form, pattern in _FORM_PATTERNS if pattern.search(text)), "")


def vendor_of_type(name: str, text: str) -> str:
    """From the original text if it names the vendor, else from the canonical name."""
    match = re.search(r"(?i)nvidia|amd|intel|huawei", text)
    if match:
        return match[0].lower()
    if name in GPU_SPECS:
        return GPU_SPECS[name].vendor
    return next((vendor for start, vendor in _VENDOR_PREFIXES if name.startswith(start)), "nvidia")


def known_gpu_types() -> frozenset[str]:
    """Types that are known without an inventory that has them."""
    return frozenset(GPU_SPECS)


def nominal_gb(name: str, reported_bytes: float) -> float:
    """Nominal GB from the reported memory: the one figure by which a card is known here.

    Drivers report less, since driver and ECC reserve some (15 GiB of a 16 GB T4); catalogues report raw sizes (192 GB
    of a GB200). If no size of the type is near, the reported GiB: part of a card, or a type that is not in the list.
    """
    gib = reported_bytes / GIB
    sizes = GPU_SPECS[name].sizes if name in GPU_SPECS else ()
    near = [size for size in sizes if _MIN_OF_NOMINAL <= gib / size <= _MAX_OF_NOMINAL]
    return float(min(near, key=lambda size: abs(gib / size - 1))) if near else round(gib, 2)
