"""The dtype for mixed precision, by GPU type.

NVIDIA's tensor cores have float16 from Volta (7.0) and bfloat16 from Ampere (8.0) on:
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html. float16 needs a gradient
scaler, bfloat16 has float32's range and needs none: https://docs.pytorch.org/docs/stable/amp.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16", "auto"]

_FLOAT16_TYPES = frozenset({"V100", "TITANV", "T4", "T4G", "RTX2080", "RTX2080TI", "RTX6000", "RTX8000", "TITANRTX"})
_NO_MIXED_PRECISION_TYPES = frozenset({"P100", "P40", "P4", "K80", "K40", "M60", "M40", "GTX1080", "GTX1080TI"})
_BFLOAT16_TYPES = frozenset(
    {"A2", "A10", "A10G", "A16", "A30", "A40", "A100", "A800", "A4000", "A4500", "A5000", "A6000", "L4", "L40", "L40S",
     "H20", "H100", "H200", "H800", "GH200", "B100", "B200", "B300", "GB200", "GB300",
     "RTX3080", "RTX3090", "RTX4080", "RTX4090", "RTX5080", "RTX5090", "RTX6000ADA", "RTXPRO6000",
     "MI210", "MI250", "MI250X", "MI300A", "MI300X", "MI325X", "MI350X", "MI355X",
     "GAUDI2", "GAUDI3", "MAX1100", "MAX1550", "FLEX170", "ASCEND910"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MixedPrecision:
    """`dtype` float32: no mixed precision; auto: detected on the device. `grad_scaler` None: depends on the dtype."""

    dtype: Precision
    grad_scaler: bool | None
    why: str


def choose_mixed_precision(requested: bool, gpu_type: str, on_cpu: bool = False) -> MixedPrecision:
    """`gpu_type` is canonical, as `A100`; "" if unknown."""
    if not requested:
        return MixedPrecision("float32", False, "not requested")
    if on_cpu:
        return MixedPrecision("bfloat16", False, "CPUs support bfloat16")
    if gpu_type in _BFLOAT16_TYPES:
        return MixedPrecision("bfloat16", False, f"{gpu_type} supports bfloat16, which has the range of float32")
    if gpu_type in _FLOAT16_TYPES:
        return MixedPrecision("float16", True, f"{gpu_type} has tensor cores for float16, not for bfloat16")
    if gpu_type in _NO_MIXED_PRECISION_TYPES:
        return MixedPrecision("float32", False, f"{gpu_type} has no tensor cores: mixed precision gains little")
    return MixedPrecision("auto", None, f"{gpu_type or 'unknown GPU type'}: detected on the device")
