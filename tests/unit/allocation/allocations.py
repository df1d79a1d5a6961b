"""Allocations as the service makes them, for tests of what is done with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpu_advisor.allocation.gpu_request import parse_request
from gpu_advisor.allocation.model import Allocation, NodeAllocation


def make_allocation(gpus: int = 2, memory_gb: float | None = 80.0, **request: Any) -> Allocation:
    """Of the first GPUs of node `a`, all A100; `request` are fields of the request."""
    indices = tuple(range(gpus))
    return Allocation(
        id="job-1",
        client_token="token-1",
        request=replace(parse_request(f"{gpus}xA100-80GB"), **request),
        shares=(NodeAllocation("a", indices, tuple(f"GPU-{index}" for index in indices)),),
        gpu_type="A100",
        vendor="nvidia",
        memory_per_gpu=memory_gb,
        made=0.0,
        expires=600.0,
    )
