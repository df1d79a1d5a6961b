"""Options of `gpu-advisor plan`, and the request that they describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from gpu_advisor.calibration.precision import PRECISIONS
from gpu_advisor.commands import common_options
from gpu_advisor.commands.cost_options import parse_amount
from gpu_advisor.planning.layout import ADAPTER_CODE, OPTIMIZERS

if TYPE_CHECKING:
    from gpu_advisor.hardware.cluster_spec import ClusterSpec
    from gpu_advisor.planning.layout_search import PlanRequest
    from gpu_advisor.planning.transformer_shape import TransformerShape

F = TypeVar("F", bound=Callable[..., Any])

_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)

_OPTIONS = (
    click.option("--params", metavar="SIZE",
                 help="Number of parameters, such as 7b: assumes the nearest published model."),
    click.option("--config", "config", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
                 help="A model's config.json from Hugging Face."),
    click.option("--module", metavar="PACKAGE:FACTORY",
                 help="Any module instead, traced as by `gpu-advisor estimate`."),
    click.option("--gpus", "gpus", required=True, metavar="GPUS",
                 help="Such as 8xA100-80GB; 4x8xH100 is four nodes of eight."),
    click.option("--global-batch", type=int, default=256, show_default=True,
                 help="Samples per optimizer step.", metavar="SAMPLES"),
    click.option("--sequence", type=_COUNT, help="Tokens per sample.", metavar="TOKENS"),
    click.option("--layers", type=int, metavar="N", help="Transformer layers."),
    click.option("--hidden", type=int, metavar="N", help="Width of the hidden states."),
    click.option("--heads", type=int, metavar="N", help="Attention heads."),
    click.option("--kv-heads", type=int,
                 help="Key-value heads, if fewer than heads (grouped-query attention).", metavar="N"),
    click.option("--ffn", type=int, help="Inner width of the feed-forward block.", metavar="N"),
    click.option("--vocabulary", type=int, metavar="TOKENS", help="Size of the vocabulary."),
    click.option("--optimizer", type=click.Choice(sorted(OPTIMIZERS)), default="adamw-mixed", show_default=True,
                 metavar="NAME", help=f"-mixed keeps a float32 copy of the weights, -bf16 none: "
                 f"{', '.join(sorted(OPTIMIZERS))}."),
    click.option("--optimizer-in-backward", is_flag=True, help="Update each layer as soon as its gradient exists."),
    click.option("--optimizer-step", type=click.Choice(["fused", "foreach"]), default="fused", show_default=True,
                 help="foreach, PyTorch's default for AdamW, has temporaries of 2 to 4 bytes a parameter; fused=True "
                      "none."),
    click.option("--lora", "lora_rank", type=_COUNT, metavar="RANK", help="Train LoRA adapters of this rank only."),
    click.option("--lora-targets", type=click.Choice(["query-value", "attention", "all"]), default="all",
                 show_default=True, help="Matrices that get adapters."),
    click.option("--lora-dropout", is_flag=True, help="The adapters' inputs pass a dropout layer."),
    click.option("--lora-library", type=click.Choice(["plain", "peft", "litgpt"]), default="plain", show_default=True,
                 help="plain: adapters in the base's precision (torchtune). peft: in float32 under autocast, as "
                      "transformers' Trainer runs PEFT; with --quantize, embeddings, norms and output layer, too."),
    click.option("--quantize", type=click.Choice(["none", "int8", "nf4", "nf4-dq"]), default="none", show_default=True,
                 help="Quantization of the frozen base weights (QLoRA)."),
    click.option("--micro-batch", type=_COUNT, help="Pin the samples per pass of a GPU.", metavar="SAMPLES"),
    click.option("--tp", "tensor", type=_COUNT, help="Pin the tensor-parallel size.", metavar="GPUS"),
    click.option("--pp", "pipeline", type=_COUNT, help="Pin the pipeline-parallel size.", metavar="GPUS"),
    click.option("--cp", "context", type=_COUNT,
                 help="Pin the context-parallel size (splits the sequence).", metavar="GPUS"),
    click.option("--ep", "expert", type=_COUNT, help="Pin the expert-parallel size.", metavar="GPUS"),
    click.option("--replicas", type=_COUNT, help="Pin the number of replicas of the shards (HSDP).", metavar="N"),
    click.option("--zero", type=click.IntRange(0, 3), help="Pin the ZeRO stage; 3 is FSDP.", metavar="STAGE"),
    click.option("--checkpoint", "checkpointing", type=click.Choice(["none", "selective", "full"]),
                 help="Pin activation checkpointing; selective keeps attention and every second matrix product."),
    click.option("--checkpoint-fraction", type=click.FloatRange(0, 1), default=1.0, show_default=True,
                 help="Share of the layers that are checkpointed.", metavar="RATIO"),
    click.option("--offload-activations", is_flag=True, help="Offload checkpointed activations to host memory."),
    click.option("--loss", type=click.Choice(["eager", "float32", "compiled", "chunked", "fused"]), default="eager",
                 show_default=True, help="How the loss handles the logits: 14, 16, 8, 3 or 2 bytes each. float32: the "
                                         "model returns them so, as transformers did until 2024."),
    click.option("--kernels", type=click.Choice(["eager", "fused"]), default="eager", show_default=True,
                 help="fused: torch.compile or fused norms."),
    click.option("--attention", type=click.Choice(["flash", "plain"]), default="flash", show_default=True,
                 help="Plain attention keeps its scores in memory, FlashAttention does not."),
    click.option("--gradient-sync", type=click.Choice(["each", "last"]), default="each", show_default=True,
                 help="Reduce gradients after each micro-batch, or unsharded after the last one (no_sync)."),
    click.option("--fsdp-root", type=click.Choice(["split", "whole"]), default="split", show_default=True,
                 help="whole: only the layers are wrapped, as by accelerate's policies, so embedding and output layer "
                      "stay gathered with the root."),
    click.option("--network", type=click.FloatRange(0, min_open=True), metavar="GBIT",
                 help="Network between nodes, Gbit/s for each GPU.  [default: usual for the type]"),
    click.option("--tokens", callback=parse_amount, metavar="N",
                 help="Tokens to train on, such as 1.4t: adds hours and cost."),
    click.option("--price", type=click.FloatRange(0, min_open=True), metavar="PER_HOUR",
                 help="Price of one GPU for an hour.  [default: the cheapest of the type in the catalogue]"),
    click.option("--margin", type=click.IntRange(0, 90), default=10, show_default=True,
                 help="Percent of memory left free.", metavar="PERCENT"),
    click.option("--overhead-gib", type=click.FloatRange(0, 64), default=1.0, show_default=True,
                 help="Memory of driver and libraries on each GPU; measure yours with `gpu-advisor probe`.",
                 metavar="GIB"),
    click.option("--profile", "profiles", multiple=True, type=_PATH, metavar="FILE",
                 help="Profile of the model on one GPU, from `gpu-advisor probe`: corrects the plan."),
    click.option("--precision", type=click.Choice(PRECISIONS), default="bfloat16",
                 show_default=True, help="Precision of --module."),
    click.option("--no-offload", is_flag=True, help="Never offload model states to host memory."),
    click.option("--plans", "max_plans", type=click.IntRange(1, 20), default=3, show_default=True, metavar="N",
                 help="Plans to show."),
    common_options.output_format("text", "json", name="form"),
)  # fmt: skip


def options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def build_request(given: dict[str, Any], shape: TransformerShape, hardware: ClusterSpec) -> PlanRequest:
    """Raises PlanError for invalid combinations."""
    from gpu_advisor.hardware.errors import PlanError
    from gpu_advisor.hardware.gpu_types import GIB
    from gpu_advisor.planning.layout import Adapters
    from gpu_advisor.planning.layout_search import PinnedLayout, PlanRequest

    recipe = OPTIMIZERS[given["optimizer"]]
    if given["lora_rank"]:
        adapters = Adapters(
            given["lora_rank"],
            given["lora_targets"],
            given["quantize"],
            given["lora_dropout"],
            ADAPTER_CODE[given["lora_library"]],
        )
        if adapters.code.copies_inputs and recipe.name.endswith("-bf16"):
            raise PlanError(
                f"--optimizer {recipe.name}: --lora-library {given['lora_library']} trains float32 adapters: use "
                f"--optimizer {'adamw-8bit-mixed' if '8bit' in recipe.name else 'adamw-mixed'}, or --lora-library plain"
            )
        recipe = replace(recipe, adapters=adapters)
    elif given["quantize"] != "none":
        raise PlanError("--quantize: a quantized base cannot be trained, only adapters on it: add --lora 16")
    pins = ("micro_batch", "tensor", "pipeline", "context", "expert", "replicas", "zero", "checkpointing")
    recipe = replace(recipe, in_backward=given["optimizer_in_backward"], step=given["optimizer_step"])
    return PlanRequest(
        shape, hardware, recipe, given["global_batch"],
        given["margin"] / 100, given["attention"] == "flash", not given["no_offload"], given["overhead_gib"] * GIB,
        pinned=PinnedLayout(**{name: given[name] for name in pins}), loss=given["loss"], kernels=given["kernels"],
        checkpoint_ratio=given["checkpoint_fraction"], offload_activations=given["offload_activations"],
        gradient_sync=given["gradient_sync"], fsdp_root=given["fsdp_root"],
    )  # fmt: skip


def unstated_options(context: click.Context) -> tuple[str, ...]:
    """Options that decide the memory and were left at their defaults."""
    from gpu_advisor.planning.memory_range import WAYS

    return tuple(name for name in WAYS if context.get_parameter_source(name) is ParameterSource.DEFAULT)


def hourly_price(given: dict[str, Any], hardware: ClusterSpec) -> tuple[float, str] | None:
    """Of one GPU, with its source; None if no tokens are given or no price is known."""
    if given["tokens"] is None:
        return None
    if given["price"] is not None:
        return given["price"], "given"
    from gpu_advisor.cost.catalogue import builtin_catalogue

    gib = hardware.memory_bytes / 2**30 / hardware.card_ratio
    offers = [
        each for each in builtin_catalogue().offers
        if each.gpu_type == hardware.gpu_type and abs(each.gpu_memory_gib / gib - 1) < 0.07
    ]  # fmt: skip
    if not offers:
        return None
    cheapest = min(offers, key=lambda each: each.price_per_hour / each.gpu_count)
    price = cheapest.price_per_hour / cheapest.gpu_count * hardware.card_ratio
    return price, f"{cheapest.provider} {cheapest.instance_type}, {cheapest.dated}"
