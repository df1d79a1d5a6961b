"""`gpu-advisor up`: exporter and advisor on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from gpu_advisor.commands import progress
from gpu_advisor.commands.run_service import log_to_stderr, run_service
from gpu_advisor.runtime.local_exporter import (
    SIMULATED_HISTORY_SECONDS,
    gpu_count,
    import_simulated_history,
    run_exporter,
    simulated_interval,
    state_dir_for,
)
from gpu_advisor.settings import (
    ConfigError,
    EmbeddedSourceSettings,
    Settings,
    SourceSettings,
    load_settings,
    validate_host_port,
)
from gpu_advisor.settings.addresses import AddressError
from gpu_advisor.sources.embedded.history import History


def default_state_dir() -> Path:
    """By the XDG base directory specification."""
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gpu-advisor"
    except RuntimeError as error:  # in a container with a user that no file names
        raise click.UsageError("this user has no home directory: give a folder with --state-dir") from error


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return validate_host_port(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def progress_text(gpus: int) -> Callable[[int, float], str]:
    """The line of progress: nothing is read until the exporter has generated the history."""
    history = f"{SIMULATED_HISTORY_SECONDS // 3600} h of history of {gpus:,} simulated GPU{'' if gpus == 1 else 's'}"

    def text(samples: int, seconds: float) -> str:
        read = f"importing {history}: {samples:,} samples" if samples else f"generating {history}"
        return f"{read}, {seconds:.0f} s"

    return text


@click.command("up")
@click.option("--simulate", default="", metavar="FLEET", help="Simulated fleet, e.g. 8xH100-80GB:idle-hoarder.")
@click.option(
    "--exporter-address",
    default="127.0.0.1:9816",
    show_default=True,
    metavar="HOST:PORT",
    callback=_address,
    help="Address of the metrics.",
)
@click.option(
    "--advisor-address",
    default="127.0.0.1:9817",
    show_default=True,
    metavar="HOST:PORT",
    callback=_address,
    help="Address of the page and the API.",
)
@click.option(
    "--state-dir", type=click.Path(file_okay=False, path_type=Path), default=default_state_dir,
    help="Directory of history and ledger.  [default: ~/.local/state/gpu-advisor]",
)  # fmt: skip
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Targets, pools, prices (YAML).")
def command(simulate: str, exporter_address: str, advisor_address: str, state_dir: Path, config: Path | None) -> None:
    """Run exporter and advisor on this machine; needs nothing else. Ctrl-C stops both.

    \b
      gpu-advisor up                                      this machine's GPUs
      gpu-advisor up --simulate 8xH100-80GB:idle-hoarder  without a GPU
      gpu-advisor up --config advisor.yml                 targets, pools, prices

    Training jobs on this machine can report to the directory `jobs` in --state-dir: see docs/training.md.
    """
    log_to_stderr()
    settings = load_settings(config) if config else Settings()
    if settings.source.prometheus:
        raise ConfigError(
            f"{config}: source.prometheus: `up` has its own source; use `gpu-advisor serve` with this file"
        )
    embedded = settings.source.embedded or EmbeddedSourceSettings()
    window, interval = settings.evaluation.idle_window_seconds, embedded.scrape_interval_seconds
    if simulate:
        interval = simulated_interval(gpu_count(simulate), interval, window)
    embedded = embedded.model_copy(update={"targets": [exporter_address], "scrape_interval_seconds": interval})
    changed = {
        "source": SourceSettings(embedded=embedded),
        "state_dir": str(state_dir_for(state_dir, simulate)),
        "web": settings.web.model_copy(update={"listen_address": advisor_address}),
    }
    settings = settings.model_copy(update=changed)

    def fill_history(history: History) -> None:
        if simulate:
            with progress.shown(progress.Progress(progress_text(gpu_count(simulate)))) as line:
                import_simulated_history(history, exporter_address, simulate, interval, window, line.update)

    jobs = Path(settings.state_dir, "jobs")
    extra_output = f"metrics   http://{exporter_address}/metrics\njobs      report to {jobs.resolve()}"
    try:
        with run_exporter(exporter_address, simulate, state_dir / "exporter", jobs) as child:
            run_service(settings, fill_history, extra_output, lambda: child.poll() is None)
    except AddressError as error:
        raise AddressError(f"{error}{options_hint(os.environ, str(error))}") from error


#: Another address for each option, as an example.
_OTHER_ADDRESSES = {"--exporter-address": "127.0.0.1:9826", "--advisor-address": "127.0.0.1:9827"}


def options_hint(environment: Mapping[str, str], message: str) -> str:
    """How to give the option that the message names, where `make up` started this; else nothing."""
    given_after = environment.get("GPU_ADVISOR_OPTIONS_AFTER")
    option = next((name for name in _OTHER_ADDRESSES if name in message), None)
    return f", as in {given_after}='{option} {_OTHER_ADDRESSES[option]}'" if given_after and option else ""
