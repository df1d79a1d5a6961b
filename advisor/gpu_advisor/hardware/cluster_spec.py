"""A cluster's GPUs from text: 8xA100-80GB, 2x4xH100, H100, 4x40GiB, 0.5xA10 or 2xA100-3g.20gb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_table import GPU_SPECS
from gpu_advisor.hardware.gpu_types import GIB, GPU_MEMORY_GIB, parse_gpu_type

_COUNT = r"\d+(?:\.\d+|/\d+)?"
_MIG_PROFILE = re.compile(r"(?i)[-_: ]*(?:mig[-_: ]*)?\d+g\.(\d+)gb(?:\+me)?$")


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Identical nodes with identical GPUs; `memory_bytes`: of one GPU, as the driver shows it.

    `card_ratio`: share of a card that one GPU is (1/2 for a die of an MI250X, less for a MIG instance or a partial
    card). `network_gbits`: between nodes, per GPU; None if not given.
    """

    gpu_type: str
    nodes: int
    gpus_per_node: int
    memory_bytes: int
    card_ratio: float = 1.0
    network_gbits: float | None = None

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def parse_cluster(text: str, gpus_per_node: int = 8) -> ClusterSpec:
    """From [NODESx]COUNTxTYPE[-MEMORY]. Without NODES, a COUNT above `gpus_per_node` is split into such nodes.

    A COUNT below 1 is part of a card, as clouds sell it: 0.5xA10, 1/6xA10. A card with several GPUs counts as these:
    8xMI250X are 16 GPUs of 64 GiB. Raises PlanError.
    """
    match = re.fullmatch(rf"(?:(\d+)x)?(?:({_COUNT})x)?(.+)", text.strip(), re.IGNORECASE)
    if not match:
        raise _not_gpus(text)
    counts = [_count(each, text) for each in (match[1], match[2]) if each]
    count = counts[-1] if counts else Fraction(1)
    part = count if count < 1 else Fraction(1)
    if (count > 1 and count.denominator != 1) or not count:
        raise _not_gpus(text)
    name, memory, ratio = _parse_gpu(match[3], part)
    cards = 1 if part < 1 else int(count)
    nodes = int(counts[0]) if len(counts) == 2 else 1
    if len(counts) < 2 and cards > gpus_per_node:
        if cards % gpus_per_node:
            raise PlanError(
                f"{cards} GPUs do not fill nodes of {gpus_per_node}: give the number of nodes, as in 2x{cards // 2}x..."
            )
        nodes, cards = cards // gpus_per_node, gpus_per_node
    if not nodes:
        raise _not_gpus(text)
    spec = GPU_SPECS.get(name)
    devices = spec.devices if spec and part == 1 and ratio == 1 else 1
    return ClusterSpec(name or f"{memory / GIB:g} GiB", nodes, cards * devices, memory // devices, ratio / devices)


def _not_gpus(text: str) -> PlanError:
    return PlanError(f"{text!r} is not a number of GPUs: write 8xA100-80GB, or 2x8xH100 for two nodes")


def _count(text: str, whole: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise _not_gpus(whole) from None


def _parse_gpu(text: str, part: Fraction) -> tuple[str, int, float]:
    """Canonical type ("" if only a size is given), bytes of one GPU, and its share of a card."""
    profile = _MIG_PROFILE.search(text)
    match = re.fullmatch(r"(?:(.*?)[-_ ])?(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)", text, re.IGNORECASE)
    stated_gib = float(profile[1]) if profile else float(match[2]) if match else None
    name = text[: profile.start()] if profile else (match[1] or "") if match else text
    # Also H100SXM5: a form factor without a separator, which parse_gpu_type keeps.
    compact = re.sub(r"(?i)sxm\d?|pcie|hbm\d?e?|(?<=\d)nvl", lambda form: f" {form[0]} ", name)
    parsed = parse_gpu_type(compact)
    spec = GPU_SPECS.get(parsed.name)
    if stated_gib is None or (spec and stated_gib > 1.07 * spec.sizes[-1]):  # the host's, as in GH200 480GB
        stated_gib = parsed.memory_gb
    if stated_gib is not None:
        if not 0.5 <= stated_gib <= 2000:
            raise PlanError(f"{text!r}: no GPU has {stated_gib:g} GiB; write 1 to 2000")
        sizes = spec.sizes if spec else ()
        whole = next((size for size in sizes if size >= stated_gib), None)
        ratio = stated_gib / whole if whole and (profile or stated_gib < 0.93 * sizes[0]) else 1.0
        return parsed.name, round(stated_gib * float(part) * GIB), ratio * float(part)
    sizes = GPU_MEMORY_GIB.get(parsed.name, ())
    if not sizes:
        raise PlanError(f"unknown GPU type {text!r}: add its memory, as in {text}-80GB")
    if len(sizes) > 1:
        both = " or ".join(f"{parsed.name}-{size}GB" for size in sizes)
        raise PlanError(f"{parsed.name} comes in {len(sizes)} sizes: write {both}")
    return parsed.name, round(sizes[0] * float(part) * GIB), float(part)
