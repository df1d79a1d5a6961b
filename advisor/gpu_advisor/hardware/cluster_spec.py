"""A cluster's GPUs from text: 8xA100-80GB, 2x4xH100, H100 or 4x40GiB."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB, GPU_MEMORY_GIB, parse_gpu_type


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Identical nodes with identical GPUs; `memory_bytes`: of one GPU."""

    gpu_type: str
    nodes: int
    gpus_per_node: int
    memory_bytes: int

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def parse_cluster(text: str, gpus_per_node: int = 8) -> ClusterSpec:
    """From [NODESx]COUNTxTYPE[-MEMORY]. Without NODES, a COUNT above `gpus_per_node` is split into such nodes.

    Raises PlanError.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(?:(\d+)x)?(.+)", text.strip(), re.IGNORECASE)
    counts = [int(count) for count in (match[1], match[2]) if count] if match else []
    if not match or 0 in counts:
        raise PlanError(f"{text!r} is not a number of GPUs: write 8xA100-80GB, or 2x8xH100 for two nodes")
    name, memory = _parse_gpu(match[3])
    count = counts[-1] if counts else 1
    if len(counts) == 2:
        return ClusterSpec(name, counts[0], count, memory)
    if count <= gpus_per_node:
        return ClusterSpec(name, 1, count, memory)
    if count % gpus_per_node:
        raise PlanError(
            f"{count} GPUs do not fill nodes of {gpus_per_node}: give the number of nodes, as in 2x{count // 2}x..."
        )
    return ClusterSpec(name, count // gpus_per_node, gpus_per_node, memory)


def _parse_gpu(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(.*?)[-_ ]?)?(\d+)\s*(?:GB|GiB|G)", text, re.IGNORECASE)
    name, stated_gib = (match[1] or "", int(match[2])) if match else (text, 0)
    # Also H100SXM5: a form factor without a separator, which parse_gpu_type keeps.
    gpu_type = parse_gpu_type(re.sub(r"(?i)nvidia|amd|tesla|geforce|sxm\d?|pcie|hbm\d?e?|[-_ ]", "", name)).name
    sizes = GPU_MEMORY_GIB.get(gpu_type, ())
    if match:
        if stated_gib < 1 or stated_gib > 2000:
            raise PlanError(f"{text!r}: no GPU has {stated_gib} GiB; write 1 to 2000")
        return (gpu_type or f"{stated_gib} GiB", stated_gib * GIB)
    if not sizes:
        raise PlanError(f"unknown GPU type {text!r}: add its memory, as in {text}-80GB")
    if len(sizes) > 1:
        both = " or ".join(f"{gpu_type}-{size}GB" for size in sizes)
        raise PlanError(f"{gpu_type} comes in {len(sizes)} sizes: write {both}")
    return gpu_type, sizes[0] * GIB
