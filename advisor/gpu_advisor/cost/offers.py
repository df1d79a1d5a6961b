"""What the catalogue is made of: instance types with prices, and those that are no longer sold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gpu_advisor.cost.errors import CostError
from gpu_advisor.hardware.cluster_spec import GIB, GPU_MEMORY_GIB
from gpu_advisor.hardware.gpu_types import parse_gpu_type, sold_gb

ON_PREMISE = "on-premise"


@dataclass(frozen=True, slots=True)
class GpuVariant:
    """A GPU type in canonical form, as `A100`; `sold_gb` tells sizes of one type apart (None: any)."""

    name: str
    sold_gb: float | None = None

    def __str__(self) -> str:
        """As people write it: with the size only where the type comes in several."""
        several = len(GPU_MEMORY_GIB.get(self.name, ())) > 1 or self.name not in GPU_MEMORY_GIB
        return f"{self.name}-{self.sold_gb:g}GB" if several and self.sold_gb is not None else self.name

    def covers(self, other: GpuVariant) -> bool:
        """Whether `other` is one of what this names."""
        return self.name == other.name and self.sold_gb in (None, other.sold_gb)


@dataclass(frozen=True, slots=True)
class InstanceOffer:
    """An instance type in a region. Prices are those of the whole instance per hour, in one currency throughout.

    `gpu_memory_gib` is what each of its GPUs reports. `vcpus`, `memory_gib` (of the host) and the spot price are None
    where they are not known. `dated` is the day that the price is known not to be older than.
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
        """What makes an offer one and the same; an instance type may have several GPUs to attach."""
        return self.provider, self.region, normalize_instance_type(self.instance_type), self.gpu_type, self.gpu_count

    @property
    def gpu(self) -> GpuVariant:
        return GpuVariant(self.gpu_type, sold_gb(self.gpu_type, self.gpu_memory_gib * GIB))


@dataclass(frozen=True, slots=True)
class Retirement:
    """From that day on the provider does not sell the type."""

    provider: str
    instance_type: str
    retired_on: date
    source: str


def normalize_instance_type(instance_type: str) -> str:
    """For comparing: Azure's sizes are written with `Standard_` and without."""
    return instance_type.lower().removeprefix("standard_")


def parse_gpu(text: str) -> GpuVariant:
    """A type as people write it: A100-80GB, `NVIDIA A100-SXM4-80GB`, L4. Raises CostError."""
    found = parse_gpu_type(text)
    if not found.name:
        raise CostError(f"{text!r} names no GPU: say a type, as A100-80GB or L4")
    return GpuVariant(found.name.removesuffix("MEGA"), found.memory_gb)


def parse_exact_gpu(text: str) -> GpuVariant:
    """The same, of one size only: what was measured on one size does not hold for another. Raises CostError."""
    gpu = parse_gpu(text)
    sizes = GPU_MEMORY_GIB.get(gpu.name, ())
    if gpu.sold_gb is None and len(sizes) > 1:
        both = " or ".join(f"{gpu.name}-{size}GB" for size in sizes)
        raise CostError(f"{gpu.name} comes in {len(sizes)} sizes: say {both}")
    return gpu if gpu.sold_gb is not None or not sizes else GpuVariant(gpu.name, float(sizes[0]))
