"""`gpu-advisor plan`: does a training job fit, and with which parallel layout?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.commands import plan_options, plan_output
from gpu_advisor.hardware.cluster_spec import parse_cluster
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB

if TYPE_CHECKING:
    from gpu_advisor.planning.layout_search import PlanRequest
    from gpu_advisor.planning.profile_correction import ProfileCorrection
    from gpu_advisor.planning.transformer_shape import TransformerShape

DIMENSIONS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary")


@click.command("plan", short_help="Plan the parallel layout of a training job.")
@plan_options.options
def command(form: str, max_plans: int, gpus: str, module: str | None, profiles: tuple[Path, ...], **given: Any) -> None:
    """Find the best parallel layouts of a training job, with a memory breakdown.

    The formulas are published; docs/planning.md compares their results with published runs. A --profile of the model
    corrects them by measurement. What is pinned (--tp, --zero, --micro-batch ...) is not searched. Exits with 1 if
    nothing fits.

    \b
      gpu-advisor plan --params 7b --gpus 8xA100-80GB
      gpu-advisor plan --config config.json --gpus 4x8xH100 --global-batch 1024 \\
          --sequence 4096 --tokens 1t
      gpu-advisor plan --config config.json --gpus 1xRTX4090 --lora 16 \\
          --quantize nf4-dq --checkpoint full
      gpu-advisor plan --params 70b --gpus 32x8xH100 --tp 8 --zero 3 \\
          --micro-batch 2 --checkpoint selective
      gpu-advisor plan --params 13b --gpus 4xL40S --format json
      gpu-advisor plan --params 7b --gpus 8xH100 --profile llama.profile.json
      gpu-advisor plan --module my.training:factory --gpus 4xL4 --global-batch 128
    """
    from gpu_advisor.planning.layout_search import search_layouts

    try:
        hardware = replace(parse_cluster(gpus), network_gbits=given["network"])
        if module:
            _check_only_module(given)
            from gpu_advisor.commands import plan_module

            fits = plan_module.print_module_plans(
                module, hardware, given["global_batch"], given["margin"] / 100, given["precision"],
                given["overhead_gib"] * GIB, profiles, max_plans, form,
            )  # fmt: skip
            raise SystemExit(0 if fits else 1)
        shape = _shape(given["params"], given["config"], given["sequence"], {name: given[name] for name in DIMENSIONS})
        request, by = _corrected(plan_options.build_request(given, shape, hardware), profiles)
        found = search_layouts(request, max_plans)
        price = plan_options.hourly_price(given, hardware)
    except (PlanError, CalibrationError) as error:
        raise click.ClickException(str(error)) from error
    # A profile has measured what the options describe.
    unstated = () if by else plan_options.unstated_options(click.get_current_context())
    job = plan_output.PlannedJob(
        shape, hardware, request.recipe, given["tokens"], price, request.overhead_bytes, unstated
    )
    if form == "json":
        click.echo(json.dumps(plan_output.document(job, found, by), indent=2))
    else:
        plan_output.show(job, found, by)
    if not found.best:
        raise SystemExit(1)


def _check_only_module(given: dict[str, Any]) -> None:
    if given["params"] or given["config"] or any(given[name] for name in DIMENSIONS):
        raise PlanError("--module excludes --params, --config and dimensions: give one model")


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
    from gpu_advisor.planning.known_models import DEFAULT_SEQUENCE, shape_from_size
    from gpu_advisor.planning.model_configs import shape_from_config
    from gpu_advisor.planning.transformer_shape import TransformerShape

    dimensions: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if params and config:
        raise PlanError("--params and --config exclude each other: give one")
    if config:
        try:
            read = json.loads(config.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, OSError) as error:
            raise PlanError(f"{config}: not valid JSON ({error}): give a model's config.json") from error
        if not isinstance(read, dict):
            raise PlanError(f"{config}: not a JSON object: give the config.json of a model")
        shape = shape_from_config(read, sequence)
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
    # Exact counts are of the config's dimensions.
    return replace(shape, counts=None, **dimensions) if dimensions else shape
