"""`gpu-advisor estimate`: peak training memory of a workload, without a GPU."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.commands import common_options
from gpu_advisor.commands.batch_size import parse_sizes

if TYPE_CHECKING:
    from gpu_advisor.calibration.memory_estimate import EstimateCorrection


@click.command("estimate", short_help="Estimate the peak memory of training, without a GPU.")
@click.option("--workload", required=True, help="mlp, conv, transformer, or package.module:factory.", metavar="NAME")
@click.option(
    "--sizes",
    default="8,16,32",
    show_default=True,
    callback=parse_sizes,
    metavar="SAMPLES,...",
    help="Batch sizes to estimate.",
)
@common_options.precision
@click.option("--profile", "profiles", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Profiles of one GPU type that correct the estimate. Repeatable.")  # fmt: skip
@common_options.output_format("text", "json", name="form")
def command(workload: str, sizes: tuple[int, ...], precision: str, profiles: tuple[Path, ...], form: str) -> None:
    """Trace a workload with fake tensors and estimate its peak training memory.

    \b
      gpu-advisor estimate --workload my.training:factory --sizes 32,64 \\
          --profile profiles/h100.profile.json
    """
    sys.path.insert(0, os.getcwd())  # as for a probe: factories are imported from the working directory
    from gpu_advisor.calibration.memory_estimate import estimate_memory

    try:
        correction = _correction(profiles)
        found = [estimate_memory(workload, size, precision, correction) for size in sizes]
    except CalibrationError as error:
        raise click.ClickException(str(error)) from error
    if form == "json":
        click.echo(
            json.dumps({"correction": asdict(correction), "estimates": [asdict(one) for one in found]}, indent=2)
        )
        return
    for one in found:
        interval = f"{format_bytes(one.low)} to {format_bytes(one.high)}"
        click.echo(f"{one.batch_size:>8}  {format_bytes(one.corrected_bytes)} ({interval})")
    if not correction.samples:
        click.echo("note: no --profile given; driver context and workspaces are not included")


def _correction(paths: tuple[Path, ...]) -> EstimateCorrection:
    from gpu_advisor.calibration.memory_estimate import estimate_memory, fit_correction
    from gpu_advisor.calibration.profile import read_profile

    profiles = [read_profile(path) for path in paths]
    types = sorted({profile.gpu_type for profile in profiles})
    if len(types) > 1:
        raise CalibrationError(f"profiles of several GPU types ({', '.join(types)}): give profiles of one type")
    pairs = [
        (
            estimate_memory(profile.factory or profile.workload, measured.batch_size, profile.precision).reserved_bytes,
            measured.peak_memory_bytes,
        )
        for profile in profiles
        for measured in profile.measurements
    ]
    return fit_correction(pairs)
