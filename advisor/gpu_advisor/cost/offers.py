"""What the catalogue is made of: instance types with prices, and those that are no longer sold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gpu_advisor.cost.errors import CostError
from gpu_advisor.hardware.gpu_types import sold_gb, type_name
from gpu_advisor.hardware.machines import CARDS, GIB

ON_PREMISE = "on-premise"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU type in canonical form, as `A100`; `sold_gb` tells sizes of one type apart (None: any)."""

    name: str
    sold_gb: float | None = None

    def __str__(self) -> str:
        """As people write it: with the size only where the type comes in several."""
        several = len(CARDS.get(self.name, ())) > 1 or self.name not in CARDS
        return f"{self.name}-{self.sold_gb:g}GB" if several and self.sold_gb is not None else self.name

    def covers(self, other: Gpu) -> bool:
        """Whether `other` is one of what this names."""
        return self.name == other.name and self.sold_gb in (None, other.sold_gb)


@dataclass(frozen=True, slots=True)
class Offer:
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
        return self.provider, self.region, plain(self.instance_type), self.gpu_type, self.gpu_count

    @property
    def gpu(self) -> Gpu:
        return Gpu(self.gpu_type, sold_gb(self.gpu_type, self.gpu_memory_gib * GIB))


@dataclass(frozen=True, slots=True)
class Retirement:
    """From that day on the provider does not sell the type."""

    provider: str
    instance_type: str
    retired_on: date
    source: str


def plain(instance_type: str) -> str:
    """For comparing: Azure's sizes are written with `Standard_` and without."""
    return instance_type.lower().removeprefix("standard_")


def gpu_of(text: str) -> Gpu:
    """A type as people write it: A100-80GB, `NVIDIA A100-SXM4-80GB`, L4. Raises CostError."""
    found = type_name(text)
    if not found.name:
        raise CostError(f"{text!r} names no GPU: say a type, as A100-80GB or L4")
    return Gpu(found.name.removesuffix("MEGA"), found.memory_gb)


def exact_gpu_of(text: str) -> Gpu:
    """The same, of one size only: what was measured on one size does not hold for another. Raises CostError."""
    gpu = gpu_of(text)
    sizes = CARDS.get(gpu.name, ())
    if gpu.sold_gb is None and len(sizes) > 1:
        both = " or ".join(f"{gpu.name}-{size}GB" for size in sizes)
        raise CostError(f"{gpu.name} comes in {len(sizes)} sizes: say {both}")
    return gpu if gpu.sold_gb is not None or not sizes else Gpu(gpu.name, float(sizes[0]))
