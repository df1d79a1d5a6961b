"""`gpu-advisor batch-size`: recommend a batch size from a few measured ones."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.calibration.byte_sizes import format_bytes, parse_bytes
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.precision import PRECISIONS
from gpu_advisor.commands import common_options

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice, Prediction
    from gpu_advisor.calibration.points import MeasuredPoints
    from gpu_advisor.calibration.profile import Profile

MAX_SIZES = 1000


def parse_memory(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Parse a memory size with its unit into bytes."""
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parse_sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Parse comma-separated batch sizes, in the given order without duplicates."""
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in value.split(",") if part.strip()))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: write integers separated by commas, such as 32,64,128") from error
    if any(not 1 <= size <= 1 << 31 for size in sizes) or len(sizes) > MAX_SIZES:
        raise click.BadParameter(f"{value!r}: give up to {MAX_SIZES} sizes, each at least 1")
    return sizes


def parse_target(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """Validate the usable share of memory, in 0..1."""
    if not 0 < value <= 1:
        hint = f"did you mean {value / 100:g}?" if 1 < value <= 100 else "give a share above 0, up to 1, such as 0.85"
        raise click.BadParameter(f"{value:g}: {hint}")
    return value


@click.command("batch-size", short_help="Recommend a batch size from a few measured ones.")
@click.option("--points", "points_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="CSV with columns batch_size, peak_memory_bytes and, if measured, samples_per_second.")  # fmt: skip
@click.option("--profile", "profile_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="A profile from `gpu-advisor probe` instead.")  # fmt: skip
@click.option("--model", "--workload", "workload", metavar="MODULE:FACTORY",
              help="The measured workload: tracing its step, without a GPU, narrows the intervals.")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS),
              help="Precision of --model.  [default: the profile's, or float32]")  # fmt: skip
@click.option("--memory-kind", type=click.Choice(["driver", "reserved", "allocated"]),
              help="What the memory in --points is, for --model.  [default: the profile's, or driver]")  # fmt: skip
@click.option("--memory", "memory_bytes", required=True, callback=parse_memory, metavar="SIZE",
              help="Memory of one GPU, such as 40GiB, 80GB, 40960MiB, or in bytes.")  # fmt: skip
@click.option("--target", type=float, default=0.85, show_default=True, callback=parse_target,
              help="Share of the memory that may be used.", metavar="RATIO")  # fmt: skip
@click.option("--predict", default="", callback=parse_sizes, metavar="SIZES",
              help="Candidate sizes, in addition to those measured.  [default: multiples of 8]")  # fmt: skip
@click.option(
    "--current",
    type=click.IntRange(min=1),
    help="Current batch size: baseline of the throughput gain.",
    metavar="SAMPLES",
)
@click.option("--gradient-noise", type=click.IntRange(min=1), metavar="SIZE",
              help="Critical batch size, if the job reports its gradient noise scale.")  # fmt: skip
@common_options.output_format("text", "json", name="form")
def command(
    points_file: Path | None,
    profile_file: Path | None,
    workload: str | None,
    precision: str | None,
    memory_kind: str | None,
    memory_bytes: int,
    target: float,
    predict: tuple[int, ...],
    current: int | None,
    gradient_noise: int | None,
    form: str,
) -> None:
    """Fit memory and throughput to measured batch sizes, predict others, and recommend the best that fits.

    \b
      gpu-advisor batch-size --points points.csv --memory 40GiB --target 0.85 \\
          --predict 32,64,128
      gpu-advisor batch-size --points points.csv --memory 40GiB \\
          --model my.training:factory
      gpu-advisor batch-size --profile profiles/h100.profile.json --memory 80GiB

    factory(batch_size, device, precision) returns a function without arguments that runs one training step: forward,
    backward, optimizer. It is traced here, with torch and without a GPU.
    """
    from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, recommend_batch_size

    try:
        points, profile = _points(points_file, profile_file)
        if workload is not None:
            precision = precision or (profile.precision if profile else PRECISIONS[0])
            memory_kind = memory_kind or (profile.memory_kind if profile else "driver")
            points = _traced(points, workload, precision, memory_kind, predict)
        measured_on = profile.device_memory_bytes if profile else None
        advice = recommend_batch_size(
            points, BatchSizeRequest(memory_bytes, target, predict, current, gradient_noise, measured_on)
        )
    except CalibrationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(document(advice), indent=2) if form == "json" else text(advice))


def _points(points_file: Path | None, profile_file: Path | None) -> tuple[MeasuredPoints, Profile | None]:
    """With the profile that they are from, if any."""
    from gpu_advisor.calibration.points import read_points

    if (points_file is None) == (profile_file is None):
        raise click.UsageError("give either --points FILE or --profile FILE")
    if points_file is not None:
        return read_points(points_file), None
    from gpu_advisor.calibration.profile import read_profile

    assert profile_file is not None
    profile = read_profile(profile_file)
    return profile.points(), profile


def _traced(
    points: MeasuredPoints, workload: str, precision: str, memory_kind: str, predict: tuple[int, ...]
) -> MeasuredPoints:
    from gpu_advisor.calibration.trace_worker import trace_in_subprocess
    from gpu_advisor.calibration.traced_memory import sizes_to_trace

    sizes = sizes_to_trace([point.batch_size for point in points.points], predict)
    return replace(points, traced=trace_in_subprocess(workload, sizes, precision, memory_kind))


def document(advice: BatchSizeAdvice) -> dict[str, Any]:
    """The advice as JSON: bytes, samples per second, ratios in 0..1; null if unknown."""
    return {
        "recommended_batch_size": advice.recommended_batch_size,
        "ceilings": asdict(advice.ceilings),
        "memory_limit_bytes": advice.limit_bytes,
        "recommended": _row(advice.recommended) if advice.recommended else None,
        "gain_ratio": advice.gain_ratio,
        "margin_bytes": advice.margin_bytes,
        "predictions": [_row(prediction) for prediction in advice.predictions],
        "notes": list(advice.notes),
    }


def _row(prediction: Prediction) -> dict[str, Any]:
    return {**asdict(prediction.memory), "samples_per_second": prediction.samples_per_second}


def text(advice: BatchSizeAdvice) -> str:
    """The advice as text."""
    lines = [f"recommended batch size  {_or_none(advice.recommended_batch_size)}"]
    lines.append(f"memory limit            {format_bytes(advice.limit_bytes)}")
    ceilings = advice.ceilings
    lines.append(
        f"ceilings                memory {_or_none(ceilings.memory)}, throughput knee "
        f"{_or_none(ceilings.throughput_knee)}, gradient noise {_or_none(ceilings.gradient_noise)}"
    )
    if advice.recommended and advice.margin_bytes is not None:
        left = f"{format_bytes(advice.margin_bytes)} left"
        lines.append(f"at that size            {_describe_prediction(advice.recommended)}, {left}")
    if advice.gain_ratio is not None:
        lines.append(f"throughput              {advice.gain_ratio:+.0%}")
    lines += [
        f"{prediction.memory.batch_size:>8}  {_describe_prediction(prediction)}" for prediction in advice.predictions
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in advice.notes)])


def _describe_prediction(prediction: Prediction) -> str:
    memory = prediction.memory
    rate = prediction.samples_per_second
    interval = f"{format_bytes(memory.low)} to {format_bytes(memory.high)}"
    return f"{format_bytes(memory.peak_memory_bytes)} ({interval})" + (f", {rate:.4g} samples/s" if rate else "")


def _or_none(value: int | None) -> str:
    return "unknown" if value is None else str(value)
