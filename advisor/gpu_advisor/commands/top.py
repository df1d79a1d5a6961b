"""`gpu-advisor top`: one node's GPUs, their owners, and the host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import common_options, live_display, output, top_view
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.exporter_client import DEFAULT_EXPORTER, ExporterClient
from gpu_advisor.commands.node_snapshot import ExporterScrape, GpuSnapshot, NodeSnapshot, take_snapshot
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.storage.secret_file import Secret, SecretFile
from gpu_advisor.web.page.template_filters import UNKNOWN, percent, value_text

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Between the two scrapes of --once: counters are shown as rates.
SAMPLE_INTERVAL_SECONDS = 1.0

#: Samples of utilization that the history shows at most.
MAX_HISTORY = 120

HEADINGS = (
    "GPU", "name", "utilization", "memory", "power", "temp", "fan", "SM clock", "processes", "throttled by", "owner",
)  # fmt: skip

CSV_COLUMNS = (
    "uuid", "index", "name", "up", "why_down", "utilization_ratio", "memory_used_bytes", "memory_total_bytes",
    "power_watts", "power_limit_watts", "temperature_celsius", "fan_speed_ratio", "sm_clock_hertz", "performance_state",
    "processes", "held_back_by", "owners",
)  # fmt: skip


@click.command("top")
@click.argument("exporter", metavar="[URL]", default=DEFAULT_EXPORTER)
@common_options.refresh_interval(2.0, shortest=0.5)
@click.option("--once", is_flag=True, help="Print once and exit; implied by --format json and csv.")
@common_options.output_format("table", "json", "csv")
@common_options.ca_file
@click.option("--user", help="User of the exporter's basic auth.", metavar="NAME")
@click.option("--password-file", type=click.Path(dir_okay=False, path_type=Path), help="File with the user's password.")
def command(
    exporter: str, interval: float, once: bool, format_: output.Format, ca_file: str | None,
    user: str | None, password_file: Path | None,
) -> None:  # fmt: skip
    """Show one node's GPUs, their owners and the host, from its exporter.

    \b
      gpu-advisor top                                               this machine
      gpu-advisor top http://node-7:9816                            another node
      gpu-advisor top --format csv                                  for scripts
    """
    reader = ExporterClient(exporter, ca_file, _login(user, password_file))
    if once or format_ != "table":
        first = reader.scrape()
        time.sleep(SAMPLE_INTERVAL_SECONDS)
        _show(take_snapshot(reader.scrape(), first), format_)
        return
    display = Display()
    before: list[ExporterScrape] = []

    def fetch() -> NodeSnapshot:
        now = reader.scrape()
        snapshot = take_snapshot(now, before[0] if before else None)
        before[:] = [now]
        display.record(snapshot)
        return snapshot

    before[:] = [reader.scrape()]
    time.sleep(SAMPLE_INTERVAL_SECONDS)
    live_display.run_live(fetch, display.render, lambda _, now: lines(now), interval, display.press)


def _login(user: str | None, password_file: Path | None) -> tuple[str, Secret] | None:
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file go together")
    try:
        return None if user is None or password_file is None else (user, SecretFile(password_file))
    except (OSError, ValueError) as error:
        raise CommandError(f"--password-file: {error}; set the path of a readable file") from error


def _show(now: NodeSnapshot, format_: output.Format) -> None:
    if format_ == "json":
        output.show_json(asdict(now))
    elif format_ == "csv":
        output.show_documents_csv(CSV_COLUMNS, map(asdict, now.gpus))
    else:
        for line in header_lines(now):
            click.echo(line)
        output.show_table(HEADINGS, [_row(gpu) for gpu in now.gpus], explain_no_gpus(now))


def header_lines(now: NodeSnapshot) -> Iterator[str]:
    """The host's metrics, and problems of the exporter."""
    host = now.host
    cores = "" if host.cores is None else f" of {host.cores} cores"
    yield one_line(f"{now.name or 'this node'}{'  (simulated GPUs)' if now.simulated else ''}")
    memory = f"{value_text(host.memory_used_bytes, 'bytes')} of {value_text(host.memory_total_bytes, 'bytes')}"
    yield (
        f"CPU {percent(host.cpu_ratio)}{cores}, load {value_text(host.load1, 'count')}, memory {memory}, "
        f"disk {percent(host.disk_busy_ratio)} busy, network "
        f"in {value_text(host.receive_bytes_per_second, RATE_UNIT)}, "
        f"out {value_text(host.transmit_bytes_per_second, RATE_UNIT)}"
    )
    for name, state in sorted(now.drivers.items()):
        if state not in ("ok", "absent"):
            yield one_line(f"driver {name}: {state.replace('_', ' ')}")
    if now.silent:
        yield one_line(f"failed collectors: {', '.join(now.silent)}; see the exporter's log")


def explain_no_gpus(now: NodeSnapshot) -> str:
    """Why the node has no GPUs, and what to do."""
    absent = sorted(name for name, state in now.drivers.items() if state == "absent")
    why = f": no driver found ({', '.join(absent)})" if absent else ""
    return one_line(f"No GPUs{why}. `gpu-advisor doctor` says how to fix it.")


RATE_UNIT = "bytes_per_second"


def lines(now: NodeSnapshot) -> Iterator[str]:
    """Plain output for a pipe: a line per GPU."""
    yield from header_lines(now)
    for gpu in now.gpus:
        yield "  ".join(_row(gpu))


def _row(gpu: GpuSnapshot) -> tuple[str, ...]:
    if not gpu.up:
        why = f"down: {gpu.why_down.replace('_', ' ')}" if gpu.why_down else "down"
        return gpu.index, one_line(gpu.name), one_line(why), *[""] * (len(HEADINGS) - 3)
    memory = f"{value_text(gpu.memory_used_bytes, 'bytes')} of {value_text(gpu.memory_total_bytes, 'bytes')}"
    power = f"{value_text(gpu.power_watts, 'watts')} of {value_text(gpu.power_limit_watts, 'watts')}"
    return (
        gpu.index, one_line(gpu.name), percent(gpu.utilization_ratio), memory, power,
        value_text(gpu.temperature_celsius, "celsius"), percent(gpu.fan_speed_ratio),
        value_text(gpu.sm_clock_hertz, "hertz"), UNKNOWN if gpu.processes is None else str(gpu.processes),
        ", ".join(gpu.held_back_by).replace("_", " "), top_view.owner_of(gpu),
    )  # fmt: skip


class Display:
    """What a terminal shows: the options that keys change, and the utilization so far."""

    def __init__(self) -> None:
        self.options = top_view.TopOptions()
        self._history: dict[str, deque[float | None]] = {}

    def record(self, now: NodeSnapshot) -> None:
        for gpu in now.gpus:
            self._history.setdefault(gpu.uuid, deque(maxlen=MAX_HISTORY)).append(gpu.utilization_ratio)

    def press(self, key: str) -> bool:
        """Whether to go on."""
        options = top_view.press(self.options, key)
        self.options = options or self.options
        return options is not None

    def render(self, now: NodeSnapshot, error_text: str) -> RenderableType:
        from rich.console import Console
        from rich.text import Text

        console = Console()
        unicode = (console.encoding or "").lower().startswith("utf")
        texts = [Text(line, style="bold" if number == 0 else "") for number, line in enumerate(header_lines(now))]
        if error_text:
            texts.append(Text(f"{one_line(error_text)} Showing the last known state.", style="bold red"))
        if not now.gpus:
            return Text("\n").join([*texts, Text(explain_no_gpus(now)), Text("q quit", style="dim")])
        for spans in top_view.table(now.gpus, self.options, console.width, self._history, unicode):
            texts.append(Text.assemble(*spans, no_wrap=True))
        shown = len(top_view.chosen(now.gpus, self.options))
        texts.append(Text(top_view.footer(self.options, shown, len(now.gpus)), style="dim"))
        return Text("\n").join(texts)
