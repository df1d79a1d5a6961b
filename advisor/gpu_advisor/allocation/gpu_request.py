"""A GPU request: the fields of the API's bodies, validated, with a canonical GPU type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES, known_gpu_types, parse_gpu_type, vendor_of_resource

#: More than any fleet of one advisor.
MAX_GPUS = 100_000
MAX_MEMORY_GB = 10_000.0
DEFAULT_MEMORY_FRACTION = 0.9


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A request. `gpu_type` and `vendor` are canonical; "" means any.

    `memory_gb`: minimum nominal memory of each GPU. `distributed_training` allows several nodes. `gpu_memory_fraction`
    (0..1): share of a GPU's memory that the framework may use; it excludes no GPU. `cpu_fallback`: return an allocation
    without GPUs instead of an error if no GPU is available.
    """

    gpu_count: int = 1
    gpu_type: str = ""
    memory_gb: float | None = None
    distributed_training: bool = False
    mixed_precision: bool = False
    gpu_memory_fraction: float = DEFAULT_MEMORY_FRACTION
    cpu_fallback: bool = False
    vendor: str = ""


ResourceNames = Mapping[str, tuple[str, ...]]

_FIELDS = ("gpu_count", "gpu_type", "memory_gb", "distributed_training", "mixed_precision", "gpu_memory_fraction",
           "cpu_fallback")  # fmt: skip


def parse_request(
    given: str | Mapping[str, Any], types: frozenset[str] = frozenset(), names: ResourceNames = RESOURCE_NAMES
) -> GpuRequest:
    """A request from text (`2xA100-80GB`, `V100`, `nvidia.com/gpu: 2`), a body's fields, or resource limits.

    `types`: canonical names in the inventory, in addition to the known ones. Raises InvalidRequestError.
    """
    if isinstance(given, str):
        return validate_request(_request_from_text(given, names), types)
    limits = {key: value for key, value in given.items() if isinstance(key, str) and vendor_of_resource(key, names)}
    fields = {key: value for key, value in given.items() if key not in limits}
    unknown = sorted(str(key) for key in fields if key not in _FIELDS)
    if unknown:
        raise InvalidRequestError(
            unknown[0], f"unknown field; known are {', '.join(_FIELDS)}, and resource names such as nvidia.com/gpu"
        )
    if len(limits) > 1:
        raise InvalidRequestError(
            "gpu_type", f"{' and '.join(limits)}: request one of them, an allocation has one kind of GPU"
        )
    for name, count in limits.items():
        if fields.keys() & {"gpu_count", "gpu_type"}:
            raise InvalidRequestError(name, "already sets type and count: remove gpu_type and gpu_count")
        fields |= {"gpu_type": name, "gpu_count": _count(count, name)}
    return validate_request(_request_from_fields(fields, names), types)


def validate_request(request: GpuRequest, types: frozenset[str] = frozenset()) -> GpuRequest:
    """Return the request if it is valid for any inventory. Raises InvalidRequestError."""
    if not 1 <= request.gpu_count <= MAX_GPUS:
        raise InvalidRequestError("gpu_count", f"{request.gpu_count}: must be an integer from 1 to {MAX_GPUS}")
    memory = request.memory_gb
    if memory is not None and not 0 < memory <= MAX_MEMORY_GB:
        raise InvalidRequestError(
            "memory_gb", f"{memory:g}: must be above 0 and at most {MAX_MEMORY_GB:g} GB for each GPU"
        )
    if not 0 < request.gpu_memory_fraction <= 1:
        raise InvalidRequestError(
            "gpu_memory_fraction", f"{request.gpu_memory_fraction:g}: must be above 0 and at most 1"
        )
    known = known_gpu_types() | types
    if request.gpu_type and request.gpu_type not in known:
        raise InvalidRequestError(
            "gpu_type", f"unknown type {request.gpu_type!r}; known are {', '.join(sorted(known))}"
        )
    return request


def split_count_and_type(text: str) -> tuple[int, str]:
    """Count and type of `2xA100-80GB`, `A100-80GB` or `nvidia.com/gpu: 2`. Raises InvalidRequestError."""
    match = re.fullmatch(r"\s*(?:(-?\d+)\s*[xX*]\s*)?(.*?)\s*(?:[:=]\s*(\S+))?\s*", text, re.DOTALL)
    if not match or not match[2] or (match[1] and match[3]):
        raise InvalidRequestError(
            "gpu_type", f"{text!r} is not a request: write 2xA100-80GB, V100 or nvidia.com/gpu: 2"
        )
    return _count(match[1] or match[3] or 1, "gpu_count"), match[2]


def with_gpu_type(request: GpuRequest, text: str, names: ResourceNames = RESOURCE_NAMES) -> GpuRequest:
    """The request with the GPU type in a text: `A100-SXM4-80GB` also requires at least 80 GB."""
    if not text.strip():
        return replace(request, gpu_type="", vendor="")
    if vendor := vendor_of_resource(text, names):
        return replace(request, gpu_type="", vendor=vendor)
    if "/" in text:
        known = ", ".join(name for resources in names.values() for name in resources)
        raise InvalidRequestError("gpu_type", f"{text!r} is not a known resource name; known are {known}")
    parsed = parse_gpu_type(text)
    if not parsed.name and not (parsed.memory_gb or text.strip().lower() in names):
        raise InvalidRequestError(
            "gpu_type", f"{text!r} is not a GPU type: give one such as A100-80GB, or none for any"
        )
    sizes = [size for size in (parsed.memory_gb, request.memory_gb) if size is not None]
    vendor = parsed.vendor if parsed.name or text.strip().lower() in names else ""
    return replace(request, gpu_type=parsed.name, vendor=vendor, memory_gb=max(sizes, default=None))


def _request_from_text(text: str, names: ResourceNames) -> GpuRequest:
    count, kind = split_count_and_type(text)
    return with_gpu_type(GpuRequest(gpu_count=count), kind, names)


def _request_from_fields(fields: Mapping[str, Any], names: ResourceNames) -> GpuRequest:
    memory = fields.get("memory_gb")
    kind = fields.get("gpu_type")
    if kind is not None and not isinstance(kind, str):
        raise InvalidRequestError("gpu_type", f"{kind!r}: must be a string such as A100-80GB, or absent for any")
    request = GpuRequest(
        gpu_count=_count(fields.get("gpu_count", 1), "gpu_count"),
        memory_gb=None if memory is None else _number(memory, "memory_gb"),
        distributed_training=_boolean(fields, "distributed_training"),
        mixed_precision=_boolean(fields, "mixed_precision"),
        gpu_memory_fraction=_number(fields.get("gpu_memory_fraction", DEFAULT_MEMORY_FRACTION), "gpu_memory_fraction"),
        cpu_fallback=_boolean(fields, "cpu_fallback"),
    )
    return with_gpu_type(request, kind or "", names)


def _count(value: object, field: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(field, f"{value!r}: must be an integer, the number of GPUs")
    return value


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequestError(field, f"{value!r}: must be a number")
    return float(value)


def _boolean(fields: Mapping[str, Any], field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise InvalidRequestError(field, f"{value!r}: must be true or false")
    return value
