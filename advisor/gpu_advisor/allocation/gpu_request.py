"""What somebody asks for: the fields of the API's bodies, checked, with the GPU's type in canonical form."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES, known_gpu_types, parse_gpu_type, vendor_of_resource

#: More than any machine park that one service looks after.
MAX_GPUS = 100_000
MAX_MEMORY_GB = 10_000.0
DEFAULT_MEMORY_FRACTION = 0.9


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What is asked for. `gpu_type` is canonical ("" for any), and so is `vendor`.

    `memory_gb` is the least memory of each GPU, as cards are sold. `distributed_training` allows several nodes.
    `gpu_memory_fraction` (0..1) is how much of a GPU the framework may take: it rules no GPU out. With `cpu_fallback`,
    where no GPU can be had, there is an allocation without GPUs instead of an error.
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

    `types` are canonical names that are known besides the usual ones: those of the inventory. Raises InvalidRequestError,
    which names the field and the mend.
    """
    if isinstance(given, str):
        return validate_request(_request_from_text(given, names), types)
    limits = {key: value for key, value in given.items() if isinstance(key, str) and vendor_of_resource(key, names)}
    fields = {key: value for key, value in given.items() if key not in limits}
    unknown = sorted(str(key) for key in fields if key not in _FIELDS)
    if unknown:
        raise InvalidRequestError(
            unknown[0], f"unknown; there are {', '.join(_FIELDS)}, and resource names as nvidia.com/gpu"
        )
    if len(limits) > 1:
        raise InvalidRequestError(
            "gpu_type", f"{' and '.join(limits)}: ask for one of them, an allocation has one kind of GPU"
        )
    for name, count in limits.items():
        if fields.keys() & {"gpu_count", "gpu_type"}:
            raise InvalidRequestError(name, "says type and count already: leave out gpu_type and gpu_count")
        fields |= {"gpu_type": name, "gpu_count": _count(count, name)}
    return validate_request(_request_from_fields(fields, names), types)


def validate_request(request: GpuRequest, types: frozenset[str] = frozenset()) -> GpuRequest:
    """The request itself, if it makes sense on any machines at all. Raises InvalidRequestError."""
    if not 1 <= request.gpu_count <= MAX_GPUS:
        raise InvalidRequestError("gpu_count", f"{request.gpu_count}: give a whole number from 1 to {MAX_GPUS}")
    memory = request.memory_gb
    if memory is not None and not 0 < memory <= MAX_MEMORY_GB:
        raise InvalidRequestError("memory_gb", f"{memory:g}: give GB of each GPU, above 0, at most {MAX_MEMORY_GB:g}")
    if not 0 < request.gpu_memory_fraction <= 1:
        raise InvalidRequestError(
            "gpu_memory_fraction", f"{request.gpu_memory_fraction:g}: give a share above 0, at most 1"
        )
    known = known_gpu_types() | types
    if request.gpu_type and request.gpu_type not in known:
        raise InvalidRequestError(
            "gpu_type", f"unknown type {request.gpu_type!r}; there are {', '.join(sorted(known))}"
        )
    return request


def split_count_and_type(text: str) -> tuple[int, str]:
    """`2xA100-80GB`, `A100-80GB` and `nvidia.com/gpu: 2` taken apart. Raises InvalidRequestError."""
    found = re.fullmatch(r"\s*(?:(-?\d+)\s*[xX*]\s*)?(.*?)\s*(?:[:=]\s*(\S+))?\s*", text, re.DOTALL)
    if not found or not found[2] or (found[1] and found[3]):
        raise InvalidRequestError("gpu_type", f"{text!r} is no request: say 2xA100-80GB, V100 or nvidia.com/gpu: 2")
    return _count(found[1] or found[3] or 1, "gpu_count"), found[2]


def with_gpu_type(request: GpuRequest, text: str, names: ResourceNames = RESOURCE_NAMES) -> GpuRequest:
    """The request with the type that a text names: `A100-SXM4-80GB` asks for at least 80 GB too."""
    if not text.strip():
        return replace(request, gpu_type="", vendor="")
    if vendor := vendor_of_resource(text, names):
        return replace(request, gpu_type="", vendor=vendor)
    if "/" in text:
        every = ", ".join(name for known in names.values() for name in known)
        raise InvalidRequestError("gpu_type", f"{text!r} is no resource name that is known here; there are {every}")
    found = parse_gpu_type(text)
    if not found.name and not (found.memory_gb or text.strip().lower() in names):
        raise InvalidRequestError(
            "gpu_type", f"{text!r} names no GPU: say a type, as A100-80GB, or leave it out for any"
        )
    sizes = [size for size in (found.memory_gb, request.memory_gb) if size is not None]
    vendor = found.vendor if found.name or text.strip().lower() in names else ""
    return replace(request, gpu_type=found.name, vendor=vendor, memory_gb=max(sizes, default=None))


def _request_from_text(text: str, names: ResourceNames) -> GpuRequest:
    count, kind = split_count_and_type(text)
    return with_gpu_type(GpuRequest(gpu_count=count), kind, names)


def _request_from_fields(fields: Mapping[str, Any], names: ResourceNames) -> GpuRequest:
    memory = fields.get("memory_gb")
    kind = fields.get("gpu_type")
    if kind is not None and not isinstance(kind, str):
        raise InvalidRequestError("gpu_type", f"{kind!r}: give text, as A100-80GB, or leave it out for any")
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
        raise InvalidRequestError(field, f"{value!r}: give a whole number of GPUs")
    return value


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequestError(field, f"{value!r}: give a number")
    return float(value)


def _boolean(fields: Mapping[str, Any], field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise InvalidRequestError(field, f"{value!r}: give true or false")
    return value
