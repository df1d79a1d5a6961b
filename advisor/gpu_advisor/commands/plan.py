"""`gpu-advisor plan`: does a training job fit, and with which parallel layout?"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.hardware.cluster_spec import ClusterSpec, parse_cluster
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning import launch_configs
from gpu_advisor.planning.layout import OPTIMIZERS

if TYPE_CHECKING:
    from gpu_advisor.planning.layout_search import LayoutPlan, LayoutPlans, PlanRequest
    from gpu_advisor.planning.profile_correction import ProfileCorrection
    from gpu_advisor.planning.transformer_shape import TransformerShape

DIMENSIONS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary")
TERMS = ("weights", "gradients", "optimizer", "activations", "buffers", "overhead")


@click.command("plan", short_help="Plan the parallel layout of a training job.")
@click.option("--params", metavar="SIZE", help="Number of parameters, such as 7b: assumes the nearest published model.")
@click.option("--config", "config", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="A model's config.json from Hugging Face.")  # fmt: skip
@click.option("--module", metavar="PACKAGE:FACTORY", help="Any module instead, traced as by `gpu-advisor estimate`.")
@click.option(
    "--gpus", "gpus", required=True, metavar="GPUS", help="Such as 8xA100-80GB; 4x8xH100 is four nodes of eight."
)
@click.option("--global-batch", type=int, default=256, show_default=True, help="Samples per optimizer step.")
@click.option("--sequence", type=int, help="Tokens per sample.")
@click.option("--layers", type=int)
@click.option("--hidden", type=int)
@click.option("--heads", type=int)
@click.option("--kv-heads", type=int, help="Key-value heads, if fewer than heads (grouped-query attention).")
@click.option("--ffn", type=int, help="Inner width of the feed-forward block.")
@click.option("--vocabulary", type=int)
@click.option("--optimizer", type=click.Choice(sorted(OPTIMIZERS)), default="adamw-mixed", show_default=True)
@click.option("--attention", type=click.Choice(["flash", "plain"]), default="flash", show_default=True,
              help="Plain attention keeps its scores in memory, FlashAttention does not.")  # fmt: skip
@click.option(
    "--margin", type=click.IntRange(0, 90), default=10, show_default=True, help="Percent of memory left free."
)
@click.option("--overhead-gib", type=click.FloatRange(0, 64), default=1.0, show_default=True,
              help="Memory of driver and libraries on each GPU; measure yours with `gpu-advisor probe`.")  # fmt: skip
@click.option("--profile", "profiles", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Profile of the model on one GPU, from `gpu-advisor probe`: corrects the plan.")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "float16", "bfloat16"]), default="bfloat16",
              show_default=True, help="Precision of --module.")  # fmt: skip
@click.option("--no-offload", is_flag=True, help="Never offload model states to host memory.")
@click.option("--plans", "max_plans", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    params: str | None,
    config: Path | None,
    module: str | None,
    gpus: str,
    global_batch: int,
    sequence: int | None,
    optimizer: str,
    attention: str,
    margin: int,
    overhead_gib: float,
    profiles: tuple[Path, ...],
    precision: str,
    no_offload: bool,
    max_plans: int,
    form: str,
    **dimensions: int | None,
) -> None:
    """Find the best parallel layouts of a training job, with the memory of each term.

    The formulas are published; docs/planning.md compares their results with published runs. A --profile of the model
    corrects them by measurement. Exits with 1 if nothing fits.

    \b
      gpu-advisor plan --params 7b --gpus 8xA100-80GB
      gpu-advisor plan --config config.json --gpus 4x8xH100 --global-batch 1024 --sequence 4096
      gpu-advisor plan --params 13b --gpus 4xL40S --format json
      gpu-advisor plan --params 7b --gpus 8xH100 --profile llama.profile.json
      gpu-advisor plan --module my.training:factory --gpus 4xL4 --global-batch 128
    """
    from gpu_advisor.planning.layout_search import PlanRequest, search_layouts

    try:
        hardware = parse_cluster(gpus)
        if module:
            if params or config or any(dimensions.values()):
                raise PlanError("--module excludes --params, --config and dimensions: give one model")  # noqa: TRY301
            from gpu_advisor.commands import plan_module

            fits = plan_module.print_module_plans(
                module, hardware, global_batch, margin / 100, precision, overhead_gib * GIB, profiles, max_plans, form
            )
            raise SystemExit(0 if fits else 1)
        shape = _shape(params, config, sequence, dimensions)
        request = PlanRequest(
            shape, hardware, OPTIMIZERS[optimizer], global_batch, margin / 100, attention == "flash", not no_offload,
            overhead_gib * GIB,
        )  # fmt: skip
        request, by = _corrected(request, profiles)
        found = search_layouts(request, max_plans)
    except (PlanError, CalibrationError) as error:
        raise click.ClickException(str(error)) from error
    if form == "json":
        click.echo(json.dumps(_document(shape, hardware, optimizer, found, by), indent=2))
    else:
        _show(shape, hardware, optimizer, found, by)
    if not found.best:
        raise SystemExit(1)


def _corrected(request: PlanRequest, profiles: tuple[Path, ...]) -> tuple[PlanRequest, ProfileCorrection | None]:
    """The request with measured overhead and activations, if there is a profile."""
    if len(profiles) > 1:
        raise PlanError("a transformer's plan takes one --profile: give that of the model")
    if not profiles:
        return request, None
    from gpu_advisor.calibration.profile import read_profile
    from gpu_advisor.planning.profile_correction import correct_from_profile

    by = correct_from_profile(
        read_profile(profiles[0]), request.shape, request.recipe, request.flash_attention, request.overhead_bytes
    )  # fmt: skip
    return replace(request, overhead_bytes=by.overhead_bytes, activations_ratio=by.activations_ratio), by


def _shape(
    params: str | None, config: Path | None, sequence: int | None, given: dict[str, int | None]
) -> TransformerShape:
    from gpu_advisor.planning.known_models import DEFAULT_SEQUENCE, shape_from_config, shape_from_size
    from gpu_advisor.planning.transformer_shape import TransformerShape

    dimensions = {name: value for name, value in given.items() if value is not None}
    if params and config:
        raise PlanError("--params and --config exclude each other: give one")
    if config:
        try:
            read = json.loads(config.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise PlanError(f"{config}: not valid JSON: {error}") from error
        if not isinstance(read, dict):
            raise PlanError(f"{config}: not a JSON object: give the config.json of a model")
        shape = shape_from_config(read.get("text_config", read), sequence)
    elif params:
        shape = shape_from_size(params, sequence or DEFAULT_SEQUENCE)
    else:
        missing = {"layers", "hidden", "heads"} - dimensions.keys()
        if missing:
            raise PlanError("no model given: use --params 7b, --config config.json, or --layers, --hidden and --heads")
        hidden, heads = dimensions["hidden"], dimensions["heads"]
        return TransformerShape(
            layers=dimensions["layers"], hidden=hidden, heads=heads, kv_heads=dimensions.get("kv_heads", heads),
            ffn=dimensions.get("ffn", 4 * hidden), vocabulary=dimensions.get("vocabulary", 32000),
            sequence=sequence or DEFAULT_SEQUENCE, assumed="the dimensions given; a GPT-like layer",
        )  # fmt: skip
    return replace(shape, **dimensions) if dimensions else shape  # type: ignore[arg-type]


def _document(
    shape: TransformerShape, hardware: ClusterSpec, optimizer: str, found: LayoutPlans, by: ProfileCorrection | None
) -> dict[str, Any]:
    return {
        "model": asdict(shape) | {"parameters": shape.parameters},
        "gpus": asdict(hardware),
        "optimizer": optimizer,
        "corrected_by": asdict(by) if by else None,
        "plans": [_plan(plan, hardware, optimizer) for plan in found.best],
        "nearest": _plan(found.nearest, hardware, optimizer) if found.nearest else None,
        "tried": found.tried,
        "ruled_out": dict(found.ruled_out),
    }


def _plan(plan: LayoutPlan, hardware: ClusterSpec, optimizer: str) -> dict[str, Any]:
    layout, recipe = plan.layout, OPTIMIZERS[optimizer]
    return {
        "layout": asdict(layout) | {"global_batch": layout.global_batch},
        "memory_bytes": {name: round(getattr(plan.memory, name)) for name in TERMS},
        "total_bytes": round(plan.memory.total),
        "used_ratio": plan.used_ratio,
        "relative_cost": plan.cost,
        "settings": {
            "torchrun": launch_configs.torchrun_command(hardware),
            "deepspeed": launch_configs.deepspeed_config(layout, recipe),
            "fsdp": launch_configs.fsdp_arguments(layout, recipe),
            "megatron": launch_configs.megatron_arguments(layout),
        },
    }


def _show(
    shape: TransformerShape, hardware: ClusterSpec, optimizer: str, found: LayoutPlans, by: ProfileCorrection | None
) -> None:
    click.echo(
        f"{shape.parameters / 1e9:.3g} billion parameters: {shape.layers} layers of {shape.hidden}, "
        f"{shape.heads} heads ({shape.kv_heads} key-value heads), {shape.sequence} tokens. Assumed: {shape.assumed}."
    )
    click.echo(
        f"{hardware.nodes} x {hardware.gpus_per_node} {hardware.gpu_type} of {hardware.memory_bytes / GIB:g} GiB, "
        f"{optimizer}\n"
    )
    if by:
        click.echo(
            f"Corrected by {by.sizes} sizes of {by.profile}; measured peaks are {by.planned_ratio:.2f} x the plan's. "
            f"Overhead {by.overhead_bytes / GIB:.1f} GiB, activations x {by.activations_ratio:.2f}; within "
            f"{by.spread_ratio:.0%} of the measurements.\n"
        )
    for number, plan in enumerate(found.best, 1):
        click.echo(f"{number}. {_in_words(plan)}")
        _show_memory(plan)
    if found.nearest:
        click.echo(f"Nothing fits. Closest: {_in_words(found.nearest)}")
        _show_memory(found.nearest)
        click.echo("Use more or larger GPUs, a smaller optimizer (--optimizer adamw-8bit-mixed) or shorter sequences.")
    for why, count in found.ruled_out:
        click.echo(f"{count} of {found.tried} layouts do not fit: {why}")
    if found.best:
        click.echo(f"\nStart plan 1 with: {launch_configs.torchrun_command(hardware)}")
        click.echo("Settings for DeepSpeed, FSDP and Megatron-LM: --format json")


def _in_words(plan: LayoutPlan) -> str:
    layout = plan.layout
    split = [f"data {layout.data}"]
    split += [f"tensor {layout.tensor}"] if layout.tensor > 1 else []
    split += [f"pipeline {layout.pipeline}"] if layout.pipeline > 1 else []
    parts = [
        " x ".join(split),
        f"ZeRO-{layout.zero}" if layout.zero else "no sharding",
        f"micro-batch {layout.micro_batch} x {layout.accumulation}",
    ]
    parts += ["activations recomputed"] if layout.checkpointing == "full" else []
    parts += {"none": [], "optimizer": ["optimizer offloaded"], "all": ["all states offloaded"]}[layout.offload]
    return ", ".join(parts)


def _show_memory(plan: LayoutPlan) -> None:
    terms = [f"{name} {getattr(plan.memory, name) / GIB:.1f}" for name in TERMS if getattr(plan.memory, name)]
    total, capacity = plan.memory.total / GIB, plan.capacity_bytes / GIB
    click.echo(f"   {' + '.join(terms)} = {total:.1f} of {capacity:g} GiB ({plan.used_ratio:.0%})\n")
