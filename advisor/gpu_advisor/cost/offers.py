"""Entries of the catalogue: instance types with prices, and retired types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gpu_advisor.cost.errors import CostError
from gpu_advisor.hardware.gpu_types import GIB, GPU_MEMORY_GIB, nominal_gb, parse_gpu_type

ON_PREMISE = "on-premise"


@dataclass(frozen=True, slots=True)
class GpuVariant:
    """A canonical GPU type, as `A100`, with its nominal `memory_gb` (None: any size)."""

    name: str
    memory_gb: float | None = None

    def __str__(self) -> str:
        """With the memory size unless the plain name means it."""
        plain = GPU_MEMORY_GIB.get(self.name, ())
        unstated = self.memory_gb is None or (len(plain) == 1 and self.memory_gb == plain[0])
        return self.name if unstated else f"{self.name}-{self.memory_gb:g}GB"

    def covers(self, other: GpuVariant) -> bool:
        """Whether `other` is of this type, and of this size if there is one."""
        return self.name == other.name and self.memory_gb in (None, other.memory_gb)


@dataclass(frozen=True, slots=True)
class InstanceOffer:
    """An instance type in a region. Prices are per instance and hour, all in one currency.

    `gpu_memory_gib`: reported by each GPU. `vcpus`, `memory_gib` (of the host) and the spot price are None if unknown.
    `dated`: date of the price.
    """

    provider: str
    region: str
    instance_type: str
    gpu_type: str
    gpu_count: int
    gpu_memory_gib: float
    vcpus: float | None
    memory_gib: float | None
    price_per_hour: float
    spot_price_per_hour: float | None
    dated: date
    source: str

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """Identity of an offer; an instance type may come with different GPUs."""
        return self.provider, self.region, normalize_instance_type(self.instance_type), self.gpu_type, self.gpu_count

    @property
    def card_ratio(self) -> float:
        """Share of a card that each GPU is: below 1 for partial cards, as Azure's sixths of an A10."""
        sizes = GPU_MEMORY_GIB.get(self.gpu_type, ())
        return min(1.0, self.gpu_memory_gib / sizes[0]) if sizes and self.gpu.memory_gb not in sizes else 1.0

    @property
    def gpu(self) -> GpuVariant:
        return GpuVariant(self.gpu_type, nominal_gb(self.gpu_type, self.gpu_memory_gib * GIB))


@dataclass(frozen=True, slots=True)
class Retirement:
    """An instance type that the provider no longer offers from `retired_on` on."""

    provider: str
    instance_type: str
    retired_on: date
    source: str


def normalize_instance_type(instance_type: str) -> str:
    """For comparison: Azure's sizes occur with and without `Standard_`."""
    return instance_type.lower().removeprefix("standard_")


def parse_gpu(text: str) -> GpuVariant:
    """A GPU type in any spelling: A100-80GB, `NVIDIA A100-SXM4-80GB`, L4. Raises CostError."""
    parsed = parse_gpu_type(text)
    if not parsed.name:
        raise CostError(f"{text!r} is not a GPU type: give one such as A100-80GB or L4")
    return GpuVariant(parsed.name.removesuffix("MEGA"), parsed.memory_gb)


def parse_exact_gpu(text: str) -> GpuVariant:
    """The same with a definite size: a measurement on one size does not apply to another. Raises CostError."""
    gpu = parse_gpu(text)
    sizes = GPU_MEMORY_GIB.get(gpu.name, ())
    if gpu.memory_gb is None and len(sizes) > 1:
        both = " or ".join(f"{gpu.name}-{size}GB" for size in sizes)
        raise CostError(f"{gpu.name} comes in {len(sizes)} sizes: write {both}")
    return gpu if gpu.memory_gb is not None or not sizes else GpuVariant(gpu.name, float(sizes[0]))
