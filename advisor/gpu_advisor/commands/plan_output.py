"""Plans as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning import launch_configs, torchtitan_config
from gpu_advisor.planning.memory_model import OVERHEAD_BYTES
from gpu_advisor.planning.memory_range import RESERVED_RATIO, MemoryRange, memory_range
from gpu_advisor.planning.throughput import peak_is_known, published_mfu

if TYPE_CHECKING:
    from gpu_advisor.hardware.cluster_spec import ClusterSpec
    from gpu_advisor.planning.layout import OptimizerSpec, ParallelLayout
    from gpu_advisor.planning.layout_search import LayoutPlan, LayoutPlans
    from gpu_advisor.planning.profile_correction import ProfileCorrection
    from gpu_advisor.planning.transformer_shape import TransformerShape

TERMS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "overhead")


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """`tokens` to train on, if given; `price` of one GPU for an hour and its source, if known; `unstated`: options that
    decide the memory and were not given."""

    shape: TransformerShape
    hardware: ClusterSpec
    recipe: OptimizerSpec
    tokens: float | None = None
    price: tuple[float, str] | None = None
    overhead_bytes: float = OVERHEAD_BYTES
    unstated: tuple[str, ...] = ()

    def memory_range(self, layout: ParallelLayout) -> MemoryRange:
        return memory_range(self.shape, layout, self.recipe, self.overhead_bytes, self.unstated)


def document(job: PlannedJob, found: LayoutPlans, by: ProfileCorrection | None) -> dict[str, Any]:
    """For --format json."""
    model = asdict(job.shape)
    return {
        "model": model
        | {"parameters": round(job.shape.parameters), "used_parameters": round(job.shape.used_parameters)},
        "gpus": asdict(job.hardware),
        "optimizer": job.recipe.name,
        "recipe": asdict(job.recipe),
        "corrected_by": asdict(by) if by else None,
        "plans": [_plan(plan, job) for plan in found.best],
        "nearest": _plan(found.nearest, job) if found.nearest else None,
        "tried": found.tried,
        "ruled_out": dict(found.ruled_out),
    }


def _plan(plan: LayoutPlan, job: PlannedJob) -> dict[str, Any]:
    layout, recipe = plan.layout, job.recipe
    of = job.memory_range(layout)
    return {
        "layout": asdict(layout) | {"global_batch": layout.global_batch},
        "memory_bytes": {name: round(getattr(plan.memory, name)) for name in TERMS},
        "total_bytes": round(plan.memory.total),
        "range": {
            "allocated_low_bytes": round(of.low),
            "allocated_high_bytes": round(of.high),
            "shown_high_bytes": round(of.shown_high),
            "unstated": list(of.open),
        },
        "used_ratio": plan.used_ratio,
        "relative_cost": plan.cost,
        "throughput": _throughput(plan, job),
        "settings": {
            "torchrun": launch_configs.torchrun_command(job.hardware),
            "deepspeed": launch_configs.deepspeed_config(layout, recipe),
            "fsdp": launch_configs.fsdp_arguments(layout, recipe),
            "megatron": launch_configs.megatron_arguments(layout, recipe),
            "torchtitan": torchtitan_config.torchtitan_toml(layout, recipe, job.shape.sequence),
        },
    }


def _throughput(plan: LayoutPlan, job: PlannedJob) -> dict[str, Any] | None:
    """None if the GPU's peak is unknown."""
    if not peak_is_known(job.hardware):
        return None
    per_second = plan.step.tokens_per_second
    hours = None if job.tokens is None else job.tokens / per_second / 3600
    cost = None if hours is None or job.price is None else hours * job.hardware.gpus * job.price[0]
    return {
        "tokens_per_second": per_second,
        "step_seconds": plan.step.seconds,
        "mfu_assumed": published_mfu(job.hardware.gpu_type),
        "hours": hours,
        "cost": cost,
        "price_per_gpu_hour": job.price[0] if job.price else None,
        "price_source": job.price[1] if job.price else None,
    }


def show(job: PlannedJob, found: LayoutPlans, by: ProfileCorrection | None) -> None:
    """As text."""
    shape, hardware = job.shape, job.hardware
    used = f" ({shape.used_parameters / 1e9:.3g} used by a token)" if shape.experts > 1 else ""
    click.echo(
        f"{shape.parameters / 1e9:.3g} billion parameters{used}: {shape.layers} layers of {shape.hidden}, "
        f"{shape.heads} heads ({shape.kv_heads} key-value heads), {shape.sequence} tokens. Assumed: {shape.assumed}."
    )
    part = "" if hardware.card_ratio == 1 else f" (each {hardware.card_ratio:.3g} of a card)"
    click.echo(
        f"{hardware.nodes} x {hardware.gpus_per_node} {hardware.gpu_type} of {hardware.memory_bytes / GIB:g} GiB"
        f"{part}, {_recipe_in_words(job.recipe)}\n"
    )
    if by:
        click.echo(
            f"Corrected by {by.sizes} sizes of {by.profile}; measured peaks are {by.planned_ratio:.2f} x the plan's. "
            f"Overhead {by.overhead_bytes / GIB:.1f} GiB, activations x {by.activations_ratio:.2f}; within "
            f"{by.spread_ratio:.0%} of the measurements.\n"
        )
    for number, plan in enumerate(found.best, 1):
        click.echo(f"{number}. {_in_words(plan)}")
        _show_plan(plan, job)
    if found.nearest:
        click.echo(f"Nothing fits. Closest: {_in_words(found.nearest)}")
        _show_plan(found.nearest, job)
        click.echo(
            "Use more or larger GPUs, a smaller optimizer (--optimizer adamw-8bit-mixed), adapters (--lora 16) or "
            "shorter sequences."
        )
    for why, count in found.ruled_out:
        click.echo(f"{count} of {found.tried} layouts do not fit: {why}")
    if found.best:
        click.echo(f"\nStart plan 1 with: {launch_configs.torchrun_command(hardware)}")
        click.echo("Settings for DeepSpeed, FSDP2, Megatron-LM and torchtitan: --format json")
        click.echo(
            f"nvidia-smi shows up to {RESERVED_RATIO - 1:.0%} more than is allocated (PyTorch's cache), and with "
            "samples of several lengths up to the whole memory."
        )


def _recipe_in_words(recipe: OptimizerSpec) -> str:
    words = [recipe.name]
    if recipe.adapters:
        of = recipe.adapters
        base = "" if of.quantization == "none" else f", {of.quantization} base"
        words.append(f"LoRA of rank {of.rank} on {of.targets}{base}")
    words += ["optimizer in backward"] if recipe.in_backward else []
    return ", ".join(words)


def _in_words(plan: LayoutPlan) -> str:
    layout = plan.layout
    split = [f"data {layout.data}"]
    for name in ("tensor", "pipeline", "context", "expert"):
        size = getattr(layout, name)
        split += [f"{name} {size}"] if size > 1 else []
    sharding = f"ZeRO-{layout.zero}" if layout.zero else "no sharding"
    parts = [
        " x ".join(split),
        f"{sharding} in {layout.replicas} replicas" if layout.replicas > 1 else sharding,
        f"micro-batch {layout.micro_batch} x {layout.accumulation}",
    ]
    if layout.checkpointing != "none":
        share = "" if layout.checkpoint_ratio == 1 else f" in {layout.checkpoint_ratio:.0%} of the layers"
        how = "selectively " if layout.checkpointing == "selective" else ""
        parts.append(f"activations {how}recomputed{share}")
    parts += {"none": [], "optimizer": ["optimizer offloaded"], "all": ["all states offloaded"]}[layout.offload]
    return ", ".join(parts)


def _range_in_words(of: MemoryRange, capacity_bytes: int) -> str:
    options = ", ".join(f"--{name.replace('_', '-')}" for name in of.open)
    risk = "; may not fit" if of.high > capacity_bytes else ""
    return f"   {of.low / GIB:.1f} to {of.high / GIB:.1f} GiB, depending on what is not given ({options}){risk}"


def _show_plan(plan: LayoutPlan, job: PlannedJob) -> None:
    terms = [f"{name} {getattr(plan.memory, name) / GIB:.1f}" for name in TERMS if getattr(plan.memory, name)]
    total, capacity = plan.memory.total / GIB, plan.capacity_bytes / GIB
    click.echo(f"   {' + '.join(terms)} = {total:.1f} of {capacity:g} GiB ({plan.used_ratio:.0%})")
    left_open = job.memory_range(plan.layout)
    if left_open.open:
        click.echo(_range_in_words(left_open, plan.capacity_bytes))
    of = _throughput(plan, job)
    if of:
        line = (
            f"   about {of['tokens_per_second']:,.0f} tokens/s (estimate: MFU {of['mfu_assumed']:.0%} before overheads)"
        )
        if of["hours"] is not None:
            line += f", {of['hours']:,.1f} h"
        if of["cost"] is not None:
            line += f", {of['cost']:,.0f} at {of['price_per_gpu_hour']:.2f} per GPU hour ({of['price_source']})"
        click.echo(line)
    click.echo()
