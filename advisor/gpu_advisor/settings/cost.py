"""Prices and budget."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gpu_advisor.settings.field_types import StrictModel


class CostSettings(StrictModel):
    """Prices and budget. Without prices, cost is unknown, never zero."""

    gpu_price_per_hour: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="price by GPU model name, in your currency"
    )
    budget_per_hour: float | None = Field(None, gt=0, description="for all GPUs, in your currency")
    catalogue: str = Field(
        "", description="file (CSV or YAML) of your own instance types and machines, for `gpu-advisor cost`"
    )
    catalogue_stale_days: int = Field(90, gt=0, le=3650, description="each answer warns about prices older than this")
