"""Prices and budget."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, Field

from gpu_advisor.hardware.gpu_types import known_gpu_types, parse_gpu_type
from gpu_advisor.settings.field_types import StrictModel

#: A name with one of these is taken as the driver's own, whether its type is in the list or not.
_DRIVER_NAME = re.compile(
    r"(?i)\b(nvidia|amd|intel|huawei|ascend|tesla|geforce|quadro|titan|radeon|instinct|data center gpu|hl-\d+)\b"
)


#: In any currency; sums over a fleet's history stay far from the largest float.
_Price = Annotated[float, Field(gt=0, le=1e12)]


def _known_gpu_names(prices: dict[str, float]) -> dict[str, float]:
    for name in prices:
        found = parse_gpu_type(name).name
        if found not in known_gpu_types() and not _DRIVER_NAME.search(name):
            near = get_close_matches(found, sorted(known_gpu_types()), 1, 0.5)
            raise ValueError(
                f"{name!r} is not a GPU type. {f'Did you mean {near[0]}? ' if near else ''}Give a type such as H100 or "
                "A100-80GB, or the full name that the driver reports, such as NVIDIA GeForce GTX 1080 Ti"
            )
    return prices


def _currency_code(code: str) -> str:
    if not re.fullmatch("[A-Z]{3}", code):
        fixed = code.strip().upper()
        guess = f" Did you mean {fixed}?" if re.fullmatch("[A-Z]{3}", fixed) else ""
        raise ValueError(f"{code!r} is not a code of ISO 4217, such as USD or EUR.{guess}")
    return code


class CostSettings(StrictModel):
    """Prices and budget. A GPU without a price here is estimated at list prices; else it is unknown, never zero."""

    currency: Annotated[str, AfterValidator(_currency_code)] = Field(
        "USD", description="of all prices here: a code of ISO 4217"
    )
    list_prices: bool = Field(
        True, description="estimate GPUs without a price at the shipped catalogue's list prices, which are in USD"
    )
    gpu_price_per_hour: Annotated[dict[str, _Price], AfterValidator(_known_gpu_names)] = Field(
        default_factory=dict,
        description="price by GPU type (H100, A100-80GB, H100 PCIe) or by the driver's name; the most specific wins",
    )
    budget_per_hour: float | None = Field(None, gt=0, description="for all GPUs, in `currency`")
    catalogue: str = Field(
        "", description="file (CSV or YAML) of your own instance types and machines, for `gpu-advisor cost`"
    )
    catalogue_stale_days: int = Field(90, gt=0, le=3650, description="each answer warns about prices older than this")
