"""GPUs as people write them down: 8xA100-80GB, 2x4xH100, H100 or 4x40GiB."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpu_advisor.hardware.errors import PlanError

GIB = 1 << 30

#: Memory of each type in GiB, from the vendors' data sheets. A type that comes in two sizes must be said with its size.
GPU_MEMORY_GIB: dict[str, tuple[int, ...]] = {
    "T4": (16,), "V100": (16, 32), "P100": (16,), "A10": (24,), "A10G": (24,), "A16": (16,), "A30": (24,), "A40": (48,),
    "A100": (40, 80), "A6000": (48,), "L4": (24,), "L40": (48,), "L40S": (48,), "H100": (80,), "H200": (141,),
    "B200": (180,), "RTX3090": (24,), "RTX4090": (24,), "MI250X": (128,), "MI300X": (192,), "GAUDI2": (96,),
}  # fmt: skip
_ALIASES = {"RTXA6000": "A6000"}


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Equal nodes of equal GPUs; `memory_bytes` is that of one GPU."""

    gpu_type: str
    nodes: int
    gpus_per_node: int
    memory_bytes: int

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def machines(text: str, gpus_per_node: int = 8) -> ClusterSpec:
    """From [NODESx]COUNTxTYPE[-MEMORY]. Without nodes, a count above `gpus_per_node` is that many to a node.

    Raises PlanError.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(?:(\d+)x)?(.+)", text.strip(), re.IGNORECASE)
    counts = [int(count) for count in (found[1], found[2]) if count] if found else []
    if not found or 0 in counts:
        raise PlanError(f"{text!r} are no GPUs: say 8xA100-80GB, or 2x8xH100 for two nodes")
    name, memory = _parse_gpu(found[3])
    count = counts[-1] if counts else 1
    if len(counts) == 2:
        return ClusterSpec(name, counts[0], count, memory)
    if count <= gpus_per_node:
        return ClusterSpec(name, 1, count, memory)
    if count % gpus_per_node:
        raise PlanError(
            f"{count} GPUs do not fill nodes of {gpus_per_node}: say how many nodes, as in 2x{count // 2}x..."
        )
    return ClusterSpec(name, count // gpus_per_node, gpus_per_node, memory)


def _parse_gpu(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:(.*?)[-_ ]?)?(\d+)\s*(?:GB|GiB|G)", text, re.IGNORECASE)
    name, stated_gib = (found[1] or "", int(found[2])) if found else (text, 0)
    plain = re.sub(r"(?i)nvidia|amd|tesla|geforce|sxm\d?|pcie|hbm\d?e?|[-_ ]", "", name).upper()
    plain = _ALIASES.get(plain, plain)
    sizes = GPU_MEMORY_GIB.get(plain, ())
    if found:
        if stated_gib < 1 or stated_gib > 2000:
            raise PlanError(f"{text!r}: {stated_gib} GiB is no card's memory")
        return (plain or f"{stated_gib} GiB", stated_gib * GIB)
    if not sizes:
        raise PlanError(f"unknown GPU type {text!r}: say its memory too, as in {text}-80GB")
    if len(sizes) > 1:
        both = " or ".join(f"{plain}-{size}GB" for size in sizes)
        raise PlanError(f"{plain} comes in {len(sizes)} sizes: say {both}")
    return plain, sizes[0] * GIB
