"""Parsing and validation of catalogue rows. A missing or zero price is an error, never free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import ON_PREMISE, InstanceOffer, parse_gpu
from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB

CATALOGUE_COLUMNS = (
    "provider", "region", "instance_type", "gpu_type", "gpu_count", "gpu_memory_gib", "vcpus", "memory_gib",
    "price_per_hour", "spot_price_per_hour", "date", "source",
)  # fmt: skip
ON_PREMISE_KEYS = ("name", "gpu_type", "gpu_count", "gpu_memory_gib", "price_per_gpu_hour", "date", "source")

CatalogueRow = Mapping[str, Any]


def parse_offer(row: CatalogueRow) -> InstanceOffer:
    """A row with CATALOGUE_COLUMNS. Raises CostError, which names the column."""
    _check_keys(row, CATALOGUE_COLUMNS)
    price = parse_number(row, "price_per_hour")
    spot = parse_number(row, "spot_price_per_hour", optional=True)
    if spot is not None and spot > price:
        raise CostError(f"spot_price_per_hour {spot:g} is above price_per_hour {price:g}: one of the two is wrong")
    return InstanceOffer(
        provider=parse_text(row, "provider").lower(),
        region=parse_text(row, "region"),
        instance_type=parse_text(row, "instance_type"),
        gpu_type=parse_gpu(parse_text(row, "gpu_type")).name,
        gpu_count=parse_integer(row, "gpu_count"),
        gpu_memory_gib=parse_gpu_memory(row),
        vcpus=parse_number(row, "vcpus", optional=True),
        memory_gib=parse_number(row, "memory_gib", optional=True),
        price_per_hour=price,
        spot_price_per_hour=spot,
        dated=parse_date(row, "date"),
        source=parse_text(row, "source"),
    )


def parse_on_premise(row: CatalogueRow) -> InstanceOffer:
    """On-premise nodes, with ON_PREMISE_KEYS, priced per GPU-hour. Raises CostError."""
    _check_keys(row, ON_PREMISE_KEYS)
    count = parse_integer(row, "gpu_count")
    return InstanceOffer(
        provider=ON_PREMISE,
        region=ON_PREMISE,
        instance_type=parse_text(row, "name"),
        gpu_type=parse_gpu(parse_text(row, "gpu_type")).name,
        gpu_count=count,
        gpu_memory_gib=parse_gpu_memory(row),
        vcpus=None,
        memory_gib=None,
        price_per_hour=parse_number(row, "price_per_gpu_hour") * count,
        spot_price_per_hour=None,
        dated=parse_date(row, "date"),
        source=parse_text(row, "source") if row.get("source") else "your catalogue",
    )


def parse_text(row: CatalogueRow, name: str) -> str:
    value = row.get(name)
    if value is None or not str(value).strip():
        raise CostError(f"{name} is missing: fill it in")
    found = str(value).strip()
    if not found.isprintable():
        raise CostError(f"{name} {found!r} has unprintable characters: remove them")
    return found


def parse_number(row: CatalogueRow, name: str, optional: bool = False) -> Any:
    """A number above 0; None if it is optional and missing."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        if optional:
            return None
        raise CostError(f"{name} is missing, which means unknown, not zero: fill it in or remove the row")
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise CostError(f"{name} {value!r} is not a number: write it as in 3.06")
    if found <= 0:
        raise CostError(f"{name} {found:g} must be above 0: correct it, or remove the row")
    return found


def parse_integer(row: CatalogueRow, name: str) -> int:
    found: float = parse_number(row, name)
    if found != int(found):
        raise CostError(f"{name} {found:g} must be an integer")
    return int(found)


def parse_date(row: CatalogueRow, name: str) -> date:
    value = row.get(name)
    if isinstance(value, date):  # from YAML, also a datetime
        return date(value.year, value.month, value.day)
    try:
        return date.fromisoformat(parse_text(row, name))
    except ValueError as error:
        raise CostError(
            f"{name} {value!r} is not a date: write it as in 2026-03-31, the day the price was looked up"
        ) from error


def parse_gpu_memory(row: CatalogueRow) -> float:
    """GiB of one GPU: from the row, or from its type."""
    found: float | None = parse_number(row, "gpu_memory_gib", optional=True)
    if found is not None:
        return found
    gpu = parse_gpu(parse_text(row, "gpu_type"))
    sizes = GPU_MEMORY_GIB.get(gpu.name, ())
    if gpu.memory_gb is not None:
        return gpu.memory_gb
    if len(sizes) != 1:
        raise CostError(f"gpu_memory_gib is missing, and the memory of {gpu.name} is not known: fill it in")
    return float(sizes[0])


def _check_keys(row: CatalogueRow, names: Sequence[str]) -> None:
    unknown = sorted(str(key) for key in row if key not in names)
    if unknown:
        raise CostError(f"unknown key {unknown[0]!r}; known are {', '.join(names)}")
