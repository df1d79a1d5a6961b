"""Search all plausible layouts for the best that fit, and count why the others were ruled out.

Layouts are ranked by the estimated time of a step (`throughput`), relative to computation alone. What a request pins is
not varied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from math import isqrt

from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.layout import (
    Checkpointing,
    FsdpRoot,
    GradientSync,
    Kernels,
    Loss,
    Offload,
    OptimizerSpec,
    ParallelLayout,
)
from gpu_advisor.planning.memory_model import OVERHEAD_BYTES, MemoryBreakdown, memory
from gpu_advisor.planning.throughput import StepTime, step_time
from gpu_advisor.planning.transformer_shape import TransformerShape

MAX_MICRO_BATCH = 64
#: From this length on, context parallelism is tried unasked.
LONG_SEQUENCE = 32768


@dataclass(frozen=True, slots=True)
class LayoutPlan:
    """A layout, its memory on the fullest GPU, and its cost relative to a layout without overhead (1.0)."""

    layout: ParallelLayout
    memory: MemoryBreakdown
    capacity_bytes: int
    cost: float
    step: StepTime

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
class PinnedLayout:
    """What a request fixes; None: searched."""

    micro_batch: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    context: int | None = None
    expert: int | None = None
    replicas: int | None = None
    zero: int | None = None
    checkpointing: Checkpointing | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int) and value < (0 if each.name == "zero" else 1):
                raise PlanError(f"{each.name} {value}: must be at least {0 if each.name == 'zero' else 1}")


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
    pinned: PinnedLayout = field(default_factory=PinnedLayout)
    loss: Loss = "eager"
    kernels: Kernels = "fused"
    checkpoint_ratio: float = 1.0
    offload_activations: bool = False
    gradient_sync: GradientSync = "each"
    fsdp_root: FsdpRoot = "split"


def search_layouts(request: PlanRequest, max_plans: int = 3) -> LayoutPlans:
    """Search the layouts. Raises PlanError if the request is invalid or allows no layout."""
    _check(request)
    capacity = request.machines.memory_bytes
    ruled_out: Counter[str] = Counter()
    fitting: list[LayoutPlan] = []
    nearest: LayoutPlan | None = None
    tried = 0
    for layout in _layouts(request):
        tried += 1
        need = memory(request.shape, layout, request.recipe, request.overhead_bytes, request.activations_ratio)
        step = step_time(request.shape, layout, request.recipe, request.machines)
        plan = LayoutPlan(layout, need, capacity, step.relative, step)
        if nearest is None or plan.used_ratio < nearest.used_ratio:
            nearest = plan
        if plan.used_ratio <= 1 - request.margin_ratio:
            fitting.append(plan)
        else:
            ruled_out[_rejection_reason(need, capacity, request.margin_ratio)] += 1
    if not tried:
        raise PlanError(_no_layout(request))
    best = _deduplicate(sorted(fitting, key=lambda plan: (plan.cost, plan.used_ratio)), max_plans)
    return LayoutPlans(best, tried, tuple(ruled_out.most_common()), None if best else nearest)


def _check(request: PlanRequest) -> None:
    if request.global_batch < 1:
        raise PlanError(f"a batch of {request.global_batch}: a step needs at least 1 sample")
    if not 0 <= request.margin_ratio < 1:
        raise PlanError(f"a margin of {request.margin_ratio:.0%}: choose at least 0 and less than 100 % of the memory")
    if not 0 <= request.checkpoint_ratio <= 1:
        raise PlanError(f"checkpoint_ratio {request.checkpoint_ratio:g}: the share of layers is from 0 to 1")
    pinned = request.pinned
    if pinned.expert is not None and request.shape.experts % pinned.expert:
        raise PlanError(
            f"expert {pinned.expert}: must divide the model's {request.shape.experts} experts (1: it has no experts)"
        )


def _no_layout(request: PlanRequest) -> str:
    pinned = {each.name: getattr(request.pinned, each.name) for each in fields(request.pinned)}
    given = ", ".join(f"{name} {value}" for name, value in pinned.items() if value is not None)
    if request.recipe.in_backward:
        return (
            f"an optimizer in the backward pass cannot accumulate a batch of {request.global_batch}: choose a multiple "
            f"of the {request.machines.gpus} GPUs of at most {MAX_MICRO_BATCH} samples each, without pipeline stages"
        )
    message = (
        f"a batch of {request.global_batch} cannot be split over {request.machines.gpus} GPUs: choose a multiple "
        "of a divisor of their number"
    )
    return f"{message}, or change what is pinned ({given})" if given else message


def _rejection_reason(need: MemoryBreakdown, capacity: int, margin_ratio: float) -> str:
    room = capacity * (1 - margin_ratio)
    if need.states + need.buffers + need.overhead > room:
        return "model states alone exceed the memory"
    return "activations exceed the memory that the model states leave"


def _deduplicate(found: list[LayoutPlan], max_plans: int) -> tuple[LayoutPlan, ...]:
    """Keep the best plan per split: the others differ in micro-batch or checkpointing only."""
    chosen: dict[tuple[int, int, int, int, int, str], LayoutPlan] = {}
    for plan in found:
        of = plan.layout
        chosen.setdefault((of.tensor, of.pipeline, of.context, of.expert, of.zero, of.offload), plan)
    return tuple(chosen.values())[:max_plans]


def _layouts(request: PlanRequest) -> Iterator[ParallelLayout]:
    shape, gpus, pinned = request.shape, request.machines.gpus, request.pinned
    for tensor in [pinned.tensor] if pinned.tensor else _divisors(request.machines.gpus_per_node):
        if gpus % tensor or (shape.kv_heads % tensor and tensor % shape.kv_heads) or shape.heads % tensor:
            continue
        if not pinned.tensor and (shape.kv_heads % tensor or shape.ffn % tensor):
            continue
        for pipeline in [pinned.pipeline] if pinned.pipeline else _divisors(gpus // tensor):
            if pipeline > shape.layers or gpus % (tensor * pipeline):
                continue
            for context in _contexts(request, gpus // (tensor * pipeline)):
                data = gpus // (tensor * pipeline * context)
                if request.global_batch % data:
                    continue
                split = ParallelLayout(
                    tensor, pipeline, data, flash_attention=request.flash_attention, context=context,
                    loss=request.loss, kernels=request.kernels, checkpoint_ratio=request.checkpoint_ratio,
                    offload_activations=request.offload_activations, gradient_sync=request.gradient_sync,
                    fsdp_root=request.fsdp_root,
                )  # fmt: skip
                yield from _variants(split, request)


def _contexts(request: PlanRequest, gpus: int) -> list[int]:
    if request.pinned.context:
        return [request.pinned.context] if gpus % request.pinned.context == 0 else []
    return [each for each in _divisors(gpus) if each <= 16] if request.shape.sequence >= LONG_SEQUENCE else [1]


def _experts(request: PlanRequest, split: ParallelLayout) -> list[int]:
    group = split.data * split.context
    if request.pinned.expert:
        return [request.pinned.expert] if group % request.pinned.expert == 0 else []
    if request.shape.experts == 1:
        return [1]
    return [each for each in _divisors(group) if request.shape.experts % each == 0 and each in (1, 8)] or [1]


def _variants(split: ParallelLayout, request: PlanRequest) -> Iterator[ParallelLayout]:
    pinned = request.pinned
    sharing = split.data * split.context
    stages: tuple[int, ...] = (0,) if sharing == 1 else (0, 1) if split.pipeline > 1 else (0, 1, 2, 3)
    if pinned.zero is not None:
        stages = (pinned.zero,) if sharing > 1 or pinned.zero == 0 else ()
    each = request.global_batch // split.data
    checkpointing: tuple[Checkpointing, ...] = ("none", "selective", "full")
    if pinned.checkpointing is not None:
        checkpointing = (pinned.checkpointing,)
    offloads: tuple[Offload, ...] = (
        ("none", "optimizer", "all") if request.offloading and split.pipeline == 1 else ("none",)
    )
    if pinned.replicas and sharing % pinned.replicas:
        return
    split = replace(split, replicas=pinned.replicas or 1)
    tried = [pinned.micro_batch] if pinned.micro_batch else range(1, MAX_MICRO_BATCH + 1)
    micro_batches = [size for size in tried if each % size == 0]
    if request.recipe.in_backward:
        # Each backward pass updates the weights, so there is one for a step.
        micro_batches = [size for size in micro_batches if size == each and split.pipeline == 1]
    for expert in _experts(request, split):
        for micro_batch in micro_batches:
            for zero in stages:
                for checkpoint_mode in checkpointing:
                    for offload in offloads:
                        if not _can_offload(offload, zero, sharing):
                            continue
                        yield replace(
                            split, zero=zero, micro_batch=micro_batch, accumulation=each // micro_batch,
                            checkpointing=checkpoint_mode, offload=offload, expert=expert,
                        )  # fmt: skip


def _can_offload(offload: Offload, zero: int, sharing: int) -> bool:
    """Frameworks off-load states that they shard, weights with all others; a single GPU has all shards."""
    return offload == "none" or sharing == 1 or zero == 3 or (offload == "optimizer" and zero > 0)


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, isqrt(number) + 1) if number % each == 0]
    return [*small, *(number // each for each in reversed(small) if each * each != number)]
