"""`gpu-advisor probe`: measures a workload at several batch sizes and writes a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.serving_probe import Level, ServingProbe, run_serving_probe
from gpu_advisor.commands import common_options
from gpu_advisor.commands.batch_size import parse_memory, parse_sizes
from gpu_advisor.extras import install_hint
from gpu_advisor.settings.slo import parse_latency

if TYPE_CHECKING:
    from gpu_advisor.calibration.probe import IncompleteProbeError, ProbeRequest
    from gpu_advisor.calibration.profile import Profile


def _limit(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_memory(context, parameter, value)


def _latency(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_latency(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _probe_server(probe: ServingProbe) -> None:
    head = "at a time  requests  tokens/s  TTFT p95  ITL p95"
    try:
        for level in run_serving_probe(probe):
            failed = level.stop.startswith("error")
            if level.requests or not failed:
                click.echo(f"{head}\n{_row(level)}" if head else _row(level))
                head = ""
            if level.stop:
                click.echo(f"stopped: {level.stop}", err=failed)
            if failed:
                raise SystemExit(1)
    except CalibrationError as error:
        raise click.ClickException(str(error)) from None


def _row(level: Level) -> str:
    ttft, itl = (f"{1000 * each:.0f} ms" if each is not None else "-" for each in (level.ttft, level.itl))
    return f"{level.concurrency:9}  {level.requests:8}  {level.tokens_per_second:8.0f}  {ttft:>8}  {itl:>7}"


@click.command("probe", short_help="Measure memory and throughput at several batch sizes.")
@click.option("--workload", default="transformer", show_default=True,
              help="mlp, conv, transformer, or package.module:factory.", metavar="NAME")  # fmt: skip
@click.option("--job", help="Name of the profiled training job (its label training_job).", metavar="NAME")
@click.option(
    "--sizes",
    default="8,16,32",
    show_default=True,
    callback=parse_sizes,
    help="Batch sizes to measure.",
    metavar="SAMPLES,...",
)
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True,
              help="cuda includes ROCm.")  # fmt: skip
@common_options.precision
@click.option("--limit", callback=_limit, metavar="SIZE", help="Simulate a smaller memory, as in 8GiB.")
@click.option("--timeout", type=click.FloatRange(min=1), default=300.0, show_default=True,
              help="Time limit per size, in seconds.", metavar="SECONDS")  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Time per size.", metavar="SECONDS"
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch on a CPU.", metavar="N")
@click.option("--trace/--no-trace", default=True, show_default=True,
              help="Also trace the step without a GPU: narrows the intervals of larger sizes.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=Path("profiles"), show_default=True,
              help="Profile to write, or its directory; its name then has GPU, workload and precision.")  # fmt: skip
@click.option("--textfile", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Also publish it, through this textfile directory of an exporter.")  # fmt: skip
@click.option("--serving", "serving_url", metavar="URL",
              help="Measure a live inference server instead, at rising concurrency. Sends real load.")  # fmt: skip
@click.option("--model", help="With --serving: the served model, if there are several.", metavar="NAME")
@click.option("--concurrency", default="1,2,4,8,16,32", show_default=True, callback=parse_sizes,
              help="With --serving: requests at a time.", metavar="N,...")  # fmt: skip
@click.option("--max-seconds", type=click.FloatRange(min=1), default=120.0, show_default=True,
              help="With --serving: time of all levels.", metavar="SECONDS")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(min=1), default=100_000, show_default=True,
              help="With --serving: tokens generated in all.", metavar="TOKENS")  # fmt: skip
@click.option("--slo-ttft", callback=_latency, metavar="DURATION",
              help="With --serving: stop when the time to first token (p95) exceeds it, as in 500ms.")  # fmt: skip
@click.option("--slo-itl", callback=_latency, metavar="DURATION",
              help="With --serving: stop when the inter-token latency (p95) exceeds it, as in 50ms.")  # fmt: skip
def command(
    workload: str,
    job: str | None,
    sizes: tuple[int, ...],
    device: str,
    precision: str,
    limit: int | None,
    timeout: float,
    seconds: float,
    threads: int | None,
    trace: bool,
    output: Path,
    textfile: Path | None,
    serving_url: str | None,
    model: str | None,
    concurrency: tuple[int, ...],
    max_seconds: float,
    max_tokens: int,
    slo_ttft: float | None,
    slo_itl: float | None,
) -> None:
    """Run a small training workload at several batch sizes, each in its own process, and write a profile.

    \b
      gpu-advisor probe --workload my.training:factory --sizes 8,16,32 \\
          --precision bfloat16

    A factory is called with (batch_size, device, precision) and returns a function that runs one training step.

    With --serving, the load on a live inference server rises until an objective is missed, an error occurs, or a cap on
    time or tokens is reached.
    """
    if serving_url is not None:
        probe = ServingProbe(
            serving_url, model, concurrency, max_seconds=max_seconds, max_tokens=max_tokens, ttft=slo_ttft, itl=slo_itl
        )
        _probe_server(probe)
        return
    from gpu_advisor.calibration.probe import ProbeRequest
    from gpu_advisor.calibration.profile import SUFFIX, check_writable, profile_file_name, write_profile, write_textfile

    _require_torch()
    request = ProbeRequest(workload, sizes, device, precision, limit, timeout, seconds, threads)
    is_file = output.name.endswith(SUFFIX)
    try:
        for folder in filter(None, (output.parent if is_file else output, textfile)):
            check_writable(folder)
        profile, incomplete = _measure(request, trace)
        profile = profile.model_copy(update={"workload": job, "factory": workload}) if job else profile
        path = output if is_file else output / profile_file_name(profile)
        write_profile(profile, path)
        if textfile is not None:
            write_textfile(profile, textfile)
    except CalibrationError as error:
        raise click.ClickException(str(error)) from error
    _print(profile)
    click.echo(f"memory is {profile.memory_kind}; profile {path}")
    if incomplete is not None:
        raise click.ClickException(str(incomplete))


def _measure(request: ProbeRequest, trace: bool) -> tuple[Profile, IncompleteProbeError | None]:
    """The profile, and why it is incomplete, if it is. Raises CalibrationError."""
    from rich.console import Console
    from rich.progress import Progress

    from gpu_advisor.calibration.probe import IncompleteProbeError, run_probe, with_trace

    incomplete: IncompleteProbeError | None = None
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"probing {request.workload}", total=len(request.batch_sizes))

        def show(size: int, outcome: str) -> None:
            bar.update(task, advance=1, description=f"{request.workload} at {size}: {outcome.replace('_', ' ')}")

        try:
            profile = run_probe(request, progress=show)
        except IncompleteProbeError as error:  # what was measured is kept
            incomplete, profile = error, error.profile
        if trace:
            bar.update(task, description=f"tracing {request.workload}")
            try:
                profile = with_trace(profile, request.size_timeout_seconds)
            except CalibrationError as error:  # the measurements stand without it
                click.echo(f"not traced: {error}", err=True)
    return profile, incomplete


def _print(profile: Profile) -> None:
    for measured in profile.measurements:
        rate = "-" if measured.samples_per_second is None else f"{measured.samples_per_second:.4g}"
        click.echo(f"{measured.batch_size:>8}  {format_bytes(measured.peak_memory_bytes):>10}  {rate} samples/s")
    for size in profile.out_of_memory_batch_sizes:
        click.echo(f"{size:>8}  out of memory")
    for note in profile.leak_notes():
        click.echo(f"note: {note}")


def _require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise click.ClickException(f"PyTorch is not installed: {install_hint('train')}")
