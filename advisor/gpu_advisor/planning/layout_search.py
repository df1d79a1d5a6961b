"""Search all plausible layouts for the best that fit, and count why the others were ruled out.

Layouts are ranked by known costs; the ranking does not predict speed:

- pipeline bubble: (p - 1) / m of the work with m micro-batches (Narayanan et al., 2021, section 2.2,
  https://arxiv.org/abs/2104.04473);
- full recomputation: a third more work, a second forward pass beside one forward and a backward of twice its time
  (Chen et al., 2016, https://arxiv.org/abs/1604.06174);
- ZeRO-3: half as much communication again (Rajbhandari et al., 2020, section 7);
- tensor parallelism: communication in each layer, so within one node and with a low degree;
- offloading: traffic over the bus, so only if nothing else fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log2

from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.layout import Checkpointing, Offload, OptimizerSpec, ParallelLayout
from gpu_advisor.planning.memory_model import OVERHEAD_BYTES, MemoryBreakdown, memory
from gpu_advisor.planning.transformer_shape import TransformerShape

MAX_MICRO_BATCH = 64
_RECOMPUTE_FACTOR = 4 / 3
_ZERO_COSTS = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.10}
_TENSOR_COST = 0.05  # per doubling of the degree
_OFFLOAD_COSTS: dict[Offload, float] = {"none": 0.0, "optimizer": 0.5, "all": 1.5}


@dataclass(frozen=True, slots=True)
class LayoutPlan:
    """A layout, its memory on the fullest GPU, and its cost relative to a layout without overhead (1.0)."""

    layout: ParallelLayout
    memory: MemoryBreakdown
    capacity_bytes: int
    cost: float

    @property
    def used_ratio(self) -> float:
        return self.memory.total / self.capacity_bytes


@dataclass(frozen=True, slots=True)
class LayoutPlans:
    """`best`: the requested number of plans, best first. `ruled_out`: reasons, each with its number of layouts."""

    best: tuple[LayoutPlan, ...]
    tried: int
    ruled_out: tuple[tuple[str, int], ...]
    nearest: LayoutPlan | None
    """The layout closest to fitting, if none fits."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """`global_batch` in samples per optimizer step; `margin_ratio` of the memory stays free."""

    shape: TransformerShape
    machines: ClusterSpec
    recipe: OptimizerSpec
    global_batch: int
    margin_ratio: float = 0.10
    flash_attention: bool = True
    offloading: bool = True
    overhead_bytes: float = OVERHEAD_BYTES
    activations_ratio: float = 1.0


def search_layouts(request: PlanRequest, max_plans: int = 3) -> LayoutPlans:
    """Search the layouts. Raises PlanError if the request is invalid or allows no layout."""
    if request.global_batch < 1:
        raise PlanError(f"a batch of {request.global_batch}: a step needs at least 1 sample")
    if not 0 <= request.margin_ratio < 1:
        raise PlanError(f"a margin of {request.margin_ratio:.0%}: choose at least 0 and less than 100 % of the memory")
    capacity = request.machines.memory_bytes
    ruled_out: Counter[str] = Counter()
    fitting: list[LayoutPlan] = []
    nearest: LayoutPlan | None = None
    tried = 0
    for layout in _layouts(request):
        tried += 1
        need = memory(request.shape, layout, request.recipe, request.overhead_bytes, request.activations_ratio)
        plan = LayoutPlan(layout, need, capacity, cost(layout, request))
        if nearest is None or plan.used_ratio < nearest.used_ratio:
            nearest = plan
        if plan.used_ratio <= 1 - request.margin_ratio:
            fitting.append(plan)
        else:
            ruled_out[_rejection_reason(need, capacity, request.margin_ratio)] += 1
    if not tried:
        raise PlanError(
            f"a batch of {request.global_batch} cannot be split over {request.machines.gpus} GPUs: choose a multiple "
            "of a divisor of their number"
        )
    best = _deduplicate(sorted(fitting, key=lambda plan: (plan.cost, plan.used_ratio)), max_plans)
    return LayoutPlans(best, tried, tuple(ruled_out.most_common()), None if best else nearest)


def cost(layout: ParallelLayout, request: PlanRequest) -> float:
    """Cost relative to a layout without bubbles, recomputation or communication (1.0)."""
    bubble = (layout.pipeline - 1) / layout.accumulation
    again = _RECOMPUTE_FACTOR if layout.checkpointing == "full" else 1.0
    small = 0.1 / (layout.micro_batch * request.shape.sequence / 2048)  # few tokens per pass underutilize the GPU
    exchange = _TENSOR_COST * log2(layout.tensor) + _ZERO_COSTS[layout.zero] + _OFFLOAD_COSTS[layout.offload]
    return again * (1 + bubble) * (1 + exchange + small)


def _rejection_reason(need: MemoryBreakdown, capacity: int, margin_ratio: float) -> str:
    room = capacity * (1 - margin_ratio)
    if need.states + need.buffers + need.overhead > room:
        return "model states alone exceed the memory"
    return "activations exceed the memory that the model states leave"


def _deduplicate(found: list[LayoutPlan], max_plans: int) -> tuple[LayoutPlan, ...]:
    """Keep the best plan per split: the others differ in micro-batch or checkpointing only."""
    chosen: dict[tuple[int, int, int, str], LayoutPlan] = {}
    for plan in found:
        of = plan.layout
        chosen.setdefault((of.tensor, of.pipeline, of.zero, of.offload), plan)
    return tuple(chosen.values())[:max_plans]


def _layouts(request: PlanRequest) -> Iterator[ParallelLayout]:
    shape, gpus = request.shape, request.machines.gpus
    for tensor in _divisors(request.machines.gpus_per_node):
        if shape.kv_heads % tensor or shape.ffn % tensor:
            continue
        for pipeline in _divisors(gpus // tensor):
            if pipeline > shape.layers or gpus % (tensor * pipeline):
                continue
            data = gpus // (tensor * pipeline)
            if request.global_batch % data:
                continue
            split = ParallelLayout(tensor, pipeline, data, flash_attention=request.flash_attention)
            yield from _variants(split, request)


def _variants(split: ParallelLayout, request: PlanRequest) -> Iterator[ParallelLayout]:
    stages = (0,) if split.data == 1 else (0, 1) if split.pipeline > 1 else (0, 1, 2, 3)
    each = request.global_batch // split.data
    checkpointing: tuple[Checkpointing, ...] = ("none", "full")
    offloads: tuple[Offload, ...] = (
        ("none", "optimizer", "all") if request.offloading and split.pipeline == 1 else ("none",)
    )
    for micro_batch in _divisors(each):
        if micro_batch > MAX_MICRO_BATCH:
            break
        for zero in stages:
            for checkpoint_mode in checkpointing:
                for offload in offloads:
                    if offload == "all" and zero not in (0, 3):
                        continue
                    yield replace(
                        split, zero=zero, micro_batch=micro_batch, accumulation=each // micro_batch,
                        checkpointing=checkpoint_mode, offload=offload,
                    )  # fmt: skip


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
