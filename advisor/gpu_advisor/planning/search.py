"""The best layouts that fit: every sensible one is tried, and it is counted what ruled the others out.

What is better is an order by known costs, not a promise of speed:

- the pipeline's bubble, (p - 1) / m of the work with m micro-batches (Narayanan et al., 2021, section 2.2,
  https://arxiv.org/abs/2104.04473);
- computing everything again, a third more work: one forward in two backwards' and a forward's time (Chen et al., 2016,
  https://arxiv.org/abs/1604.06174);
- ZeRO-3, half as much communication again (Rajbhandari et al., 2020, section 7);
- tensor parallelism, exchange in each layer: held to one node, and to few ways;
- off-loading, over the bus: only if nothing else fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log2

from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.machines import Machines
from gpu_advisor.planning.layout import Checkpointing, Layout, Offload, Recipe
from gpu_advisor.planning.memory import OVERHEAD_BYTES, Memory, memory
from gpu_advisor.planning.shape import Shape

LARGEST_MICRO_BATCH = 64
_RECOMPUTING = 4 / 3
_ZERO_COSTS = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.10}
_TENSOR_COST = 0.05  # for each doubling
_OFFLOAD_COSTS: dict[Offload, float] = {"none": 0.0, "optimizer": 0.5, "all": 1.5}


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout, what it needs of the fullest GPU, and its cost beside one that loses nothing (1.0)."""

    layout: Layout
    memory: Memory
    capacity_bytes: int
    cost: float

    @property
    def used_ratio(self) -> float:
        return self.memory.total / self.capacity_bytes


@dataclass(frozen=True, slots=True)
class Plans:
    """The best first, at most as many as asked for; `ruled_out`: how many layouts failed on what."""

    best: tuple[Plan, ...]
    tried: int
    ruled_out: tuple[tuple[str, int], ...]
    nearest: Plan | None
    """The one that came nearest, where none fits."""


@dataclass(frozen=True, slots=True)
class Question:
    """`global_batch` samples to a step; `margin_ratio` of the memory is left free."""

    shape: Shape
    machines: Machines
    recipe: Recipe
    global_batch: int
    margin_ratio: float = 0.10
    flash_attention: bool = True
    offloading: bool = True
    overhead_bytes: float = OVERHEAD_BYTES
    activations_ratio: float = 1.0


def plans(question: Question, most: int = 3) -> Plans:
    """Raises PlanError where the question itself rules everything out."""
    if question.global_batch < 1:
        raise PlanError(f"a batch of {question.global_batch}: at least 1 sample goes into a step")
    if not 0 <= question.margin_ratio < 1:
        raise PlanError(f"a margin of {question.margin_ratio:.0%}: between 0 and 100 % of the memory can stay free")
    capacity = question.machines.memory_bytes
    ruled_out: Counter[str] = Counter()
    fitting: list[Plan] = []
    nearest: Plan | None = None
    tried = 0
    for layout in _layouts(question):
        tried += 1
        need = memory(question.shape, layout, question.recipe, question.overhead_bytes, question.activations_ratio)
        plan = Plan(layout, need, capacity, cost(layout, question))
        if nearest is None or plan.used_ratio < nearest.used_ratio:
            nearest = plan
        if plan.used_ratio <= 1 - question.margin_ratio:
            fitting.append(plan)
        else:
            ruled_out[_why_not(need, capacity, question.margin_ratio)] += 1
    if not tried:
        raise PlanError(
            f"a batch of {question.global_batch} cannot be split over {question.machines.gpus} GPUs: choose a multiple "
            "of a divisor of their number"
        )
    best = _distinct(sorted(fitting, key=lambda plan: (plan.cost, plan.used_ratio)), most)
    return Plans(best, tried, tuple(ruled_out.most_common()), None if best else nearest)


def cost(layout: Layout, question: Question) -> float:
    """Work and waiting, beside a layout that loses nothing."""
    bubble = (layout.pipeline - 1) / layout.accumulation
    again = _RECOMPUTING if layout.checkpointing == "full" else 1.0
    small = 0.1 / (layout.micro_batch * question.shape.sequence / 2048)  # few tokens at once leave the GPU half empty
    exchange = _TENSOR_COST * log2(layout.tensor) + _ZERO_COSTS[layout.zero] + _OFFLOAD_COSTS[layout.offload]
    return again * (1 + bubble) * (1 + exchange + small)


def _why_not(need: Memory, capacity: int, margin_ratio: float) -> str:
    room = capacity * (1 - margin_ratio)
    if need.states + need.buffers + need.overhead > room:
        return "model states alone are above the memory"
    return "activations are above what the model states leave"


def _distinct(found: list[Plan], most: int) -> tuple[Plan, ...]:
    """One for each way to split: the others differ in the micro-batch only."""
    chosen: dict[tuple[int, int, int, str], Plan] = {}
    for plan in found:
        of = plan.layout
        chosen.setdefault((of.tensor, of.pipeline, of.zero, of.offload), plan)
    return tuple(chosen.values())[:most]


def _layouts(question: Question) -> Iterator[Layout]:
    shape, gpus = question.shape, question.machines.gpus
    for tensor in _divisors(question.machines.gpus_per_node):
        if shape.kv_heads % tensor or shape.ffn % tensor:
            continue
        for pipeline in _divisors(gpus // tensor):
            if pipeline > shape.layers or gpus % (tensor * pipeline):
                continue
            data = gpus // (tensor * pipeline)
            if question.global_batch % data:
                continue
            split = Layout(tensor, pipeline, data, flash_attention=question.flash_attention)
            yield from _variants(split, question)


def _variants(split: Layout, question: Question) -> Iterator[Layout]:
    stages = (0,) if split.data == 1 else (0, 1) if split.pipeline > 1 else (0, 1, 2, 3)
    each = question.global_batch // split.data
    checkpointing: tuple[Checkpointing, ...] = ("none", "full")
    offloads: tuple[Offload, ...] = (
        ("none", "optimizer", "all") if question.offloading and split.pipeline == 1 else ("none",)
    )
    for micro_batch in _divisors(each):
        if micro_batch > LARGEST_MICRO_BATCH:
            break
        for zero in stages:
            for way in checkpointing:
                for offload in offloads:
                    if offload == "all" and zero not in (0, 3):
                        continue
                    yield replace(
                        split, zero=zero, micro_batch=micro_batch, accumulation=each // micro_batch,
                        checkpointing=way, offload=offload,
                    )  # fmt: skip


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
