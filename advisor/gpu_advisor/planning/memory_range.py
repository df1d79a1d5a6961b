"""The range of memory that a description leaves open: what nobody stated, varied over what code does.

A plan assumes one way in which the loss, the norms, the adapters and the optimizer run. Where a request does not state
it, the memory lies between that of the leanest and that of the most generous code. The driver shows more: the caching
allocator keeps freed blocks (https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, get_args

from gpu_advisor.planning.layout import (
    ADAPTER_CODE,
    FsdpRoot,
    GradientSync,
    Kernels,
    Loss,
    OptimizerSpec,
    OptimizerStep,
    ParallelLayout,
)
from gpu_advisor.planning.memory_model import memory
from gpu_advisor.planning.transformer_shape import TransformerShape

#: Reserved bytes over allocated ones at samples of one length: the larger of the two runs of which a source gives both
#: (https://github.com/AnswerDotAI/fsdp_qlora/blob/23fafdfb4af403d0808038adafbfd74de265d33a/benchmarks_03_2024.md). With
#: samples of several lengths there is no bound but the GPU's memory: cached blocks are freed only when it is full.
RESERVED_RATIO = 10.24 / 8.28

_NOTICEABLE_RATIO = 0.01

_Way = tuple[ParallelLayout, OptimizerSpec]


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """Bytes. `low` and `high`: allocated, with the overhead. `shown_high`: what the driver may show, with the
    allocator's cache. `open`: the options that make a difference of over 1 %."""

    low: float
    high: float
    shown_high: float
    open: tuple[str, ...] = ()


def _of_layout(name: str, values: Iterable[Any]) -> Callable[[_Way], list[_Way]]:
    """The ways that differ in this field of the layout."""
    return lambda way: [(replace(way[0], **{name: each}), way[1]) for each in values]


def _of_step(values: Iterable[OptimizerStep]) -> Callable[[_Way], list[_Way]]:
    return lambda way: [(way[0], replace(way[1], step=each)) for each in values]


def _of_adapters(name: str, values: Iterable[Any]) -> Callable[[_Way], list[_Way]]:
    """The ways that differ in this field of the adapters; the same way without adapters."""

    def ways(way: _Way) -> list[_Way]:
        layout, recipe = way
        if recipe.adapters is None:
            return [way]
        return [(layout, replace(recipe, adapters=replace(recipe.adapters, **{name: each}))) for each in values]

    return ways


#: By the option of `gpu-advisor plan` that states it.
WAYS: Mapping[str, Callable[[_Way], list[_Way]]] = MappingProxyType(
    {
        "loss": _of_layout("loss", get_args(Loss)),
        "kernels": _of_layout("kernels", get_args(Kernels)),
        "lora_library": _of_adapters("code", (ADAPTER_CODE["plain"], ADAPTER_CODE["peft"])),
        "lora_dropout": _of_adapters("dropout", (False, True)),
        "optimizer_step": _of_step(get_args(OptimizerStep)),
        "gradient_sync": _of_layout("gradient_sync", get_args(GradientSync)),
        "fsdp_root": _of_layout("fsdp_root", get_args(FsdpRoot)),
    }
)


def memory_range(
    shape: TransformerShape,
    layout: ParallelLayout,
    recipe: OptimizerSpec,
    overhead_bytes: float,
    unstated: Collection[str],
) -> MemoryRange:
    """The range over all ways of the `unstated` options, keys of `WAYS`; of the layout alone if there are none."""

    def totals(options: Iterable[str]) -> list[float]:
        start: list[_Way] = [(layout, recipe)]
        ways = reduce(lambda found, name: [each for way in found for each in WAYS[name](way)], options, start)
        return [memory(shape, *way, overhead_bytes).total for way in ways]

    found = totals(unstated)
    low, high = min(found), max(found)
    difference = {name: max(alone := totals([name])) - min(alone) for name in WAYS if name in unstated}
    matter = tuple(name for name, bytes_ in difference.items() if bytes_ > _NOTICEABLE_RATIO * low)
    return MemoryRange(low, high, (high - overhead_bytes) * RESERVED_RATIO + overhead_bytes, matter)
