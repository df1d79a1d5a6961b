"""The closed set of reductions, and the scopes of series."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["last", "mean", "min", "max", "quantile", "rate", "increase", "coverage", "samples"]


ScopeName = Literal["gpu", "node"]
