"""`gpu-advisor plan --module`: choose the micro-batch of any module by tracing it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.planning import launch_configs

if TYPE_CHECKING:
    from gpu_advisor.hardware.cluster_spec import ClusterSpec
    from gpu_advisor.planning.traced_plan import TracedPlan, TracedPlans

_BUCKET_VIEW_HINT = "DistributedDataParallel(..., gradient_as_bucket_view=True), or the gradients take twice the memory"


def print_module_plans(
    module: str, hardware: ClusterSpec, global_batch: int, margin_ratio: float, precision: str, overhead_bytes: float,
    profiles: tuple[Path, ...], max_plans: int, form: str,
) -> bool:  # fmt: skip
    """Print the plans; return whether one fits. Raises PlanError and CalibrationError."""
    from gpu_advisor.calibration.profile import read_profile
    from gpu_advisor.planning.traced_plan import correction_from_profiles, traced_plans

    correction = correction_from_profiles([read_profile(path) for path in profiles], hardware, overhead_bytes)
    found = traced_plans(module, hardware, global_batch, margin_ratio, precision, correction)
    found = replace(found, fitting=found.fitting[:max_plans])
    if form == "json":
        click.echo(json.dumps(_document(module, hardware, precision, found), indent=2))
    else:
        show(module, hardware, precision, found)
    return bool(found.fitting)


def _document(module: str, hardware: ClusterSpec, precision: str, found: TracedPlans) -> dict[str, Any]:
    return {
        "module": module,
        "precision": precision,
        "gpus": asdict(hardware),
        "correction": asdict(found.correction),
        "plans": [_plan(plan, hardware) for plan in found.fitting],
        "smallest": _plan(found.smallest, hardware) if found.smallest else None,
    }


def _plan(plan: TracedPlan, hardware: ClusterSpec) -> dict[str, Any]:
    return {
        "layout": {"data": plan.layout.data, "micro_batch": plan.layout.micro_batch,
                   "accumulation": plan.layout.accumulation, "global_batch": plan.layout.global_batch},
        "memory_bytes": plan.estimate.corrected_bytes,
        "memory_low_bytes": plan.estimate.low,
        "memory_high_bytes": plan.estimate.high,
        "used_ratio": plan.used_ratio,
        "settings": {"torchrun": launch_configs.torchrun_command(hardware), "ddp": {"gradient_as_bucket_view": True}},
    }  # fmt: skip


def show(module: str, hardware: ClusterSpec, precision: str, found: TracedPlans) -> None:
    """Print the plans as text."""
    click.echo(
        f"{module} in {precision} on {hardware.nodes} x {hardware.gpus_per_node} {hardware.gpu_type}, "
        "data-parallel only"
    )
    for plan in found.fitting or ((found.smallest,) if found.smallest else ()):
        of, layout = plan.estimate, plan.layout
        click.echo(
            f"micro-batch {layout.micro_batch} x {layout.accumulation} on {layout.data} GPUs: "
            f"{format_bytes(of.corrected_bytes)} ({format_bytes(of.low)} to {format_bytes(of.high)}) of "
            f"{format_bytes(plan.capacity_bytes)} ({plan.used_ratio:.0%})"
        )
    if found.smallest:
        click.echo("Does not fit. Use larger GPUs, activation checkpointing or a lower --precision.")
    else:
        click.echo(f"\nStart the first with: {launch_configs.torchrun_command(hardware)}\nwith {_BUCKET_VIEW_HINT}")
    if not found.correction.samples:
        click.echo("note: no --profile given; memory of driver and libraries is assumed (--overhead-gib)")
