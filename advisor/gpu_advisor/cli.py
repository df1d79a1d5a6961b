"""The command `gpu-advisor`. Exit codes: 0 all went well, 1 failed, 2 wrongly called or configured."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click

from gpu_advisor import __version__
from gpu_advisor.addresses import AddressError
from gpu_advisor.local import exporter, import_simulated_past, state_dir_for
from gpu_advisor.settings import ConfigError, EmbeddedSource, Settings, SourceSettings, host_and_port, load
from gpu_advisor.sources.history import History
from gpu_advisor.web import WebServer
from gpu_advisor.wiring import Advisor, StartError, build

USAGE_ERROR = 2


def default_state_dir() -> Path:
    """Where programs keep their state by the XDG base directory specification."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gpu-advisor"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gpu-advisor")
def cli() -> None:
    """Judges GPU machines against targets, finds out why one is missed, and says what to do about it.

    \b
    Try it now, without a GPU and without a Prometheus:
      gpu-advisor up --simulate 8xH100-80GB:idle-hoarder
    """


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return host_and_port(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@cli.command()
@click.option("--simulate", default="", metavar="FLEET", help="Simulated GPUs, as in 8xH100-80GB:idle-hoarder.")
@click.option("--exporter-address", default="127.0.0.1:9816", show_default=True, metavar="HOST:PORT", callback=_address)
@click.option("--advisor-address", default="127.0.0.1:9817", show_default=True, metavar="HOST:PORT", callback=_address)
@click.option(
    "--state-dir", type=click.Path(file_okay=False, path_type=Path), default=default_state_dir,
    show_default="~/.local/state/gpu-advisor", help="Where history and ledger are kept.",
)  # fmt: skip
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Targets, pools, prices (YAML).")
def up(simulate: str, exporter_address: str, advisor_address: str, state_dir: Path, config: Path | None) -> None:
    """Run exporter and advisor on this machine, with nothing else needed. Ctrl-C stops both."""
    _log_to_stderr()
    settings = load(config) if config else Settings()
    if settings.source.prometheus:
        raise ConfigError(
            f"{config}: source.prometheus: `up` brings its own source; use `gpu-advisor serve` for this file"
        )
    embedded = (settings.source.embedded or EmbeddedSource()).model_copy(update={"targets": [exporter_address]})
    changed = {
        "source": SourceSettings(embedded=embedded),
        "state_dir": str(state_dir_for(state_dir, simulate)),
        "web": settings.web.model_copy(update={"listen_address": advisor_address}),
    }
    settings = settings.model_copy(update=changed)

    def prepare(history: History) -> None:
        if simulate:
            import_simulated_past(history, exporter_address, simulate)

    with exporter(exporter_address, simulate, state_dir / "exporter") as child:
        _run(settings, prepare, f"metrics   http://{exporter_address}/metrics", lambda: child.poll() is None)


@cli.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Settings (YAML).")
def serve(config: Path) -> None:
    """Run the advisor beside a Prometheus that is already there."""
    _log_to_stderr()
    _run(load(config), None, None, lambda: True)


def _run(
    settings: Settings, prepare: Callable[[History], None] | None, also: str | None, alive: Callable[[], bool]
) -> None:
    """Run until a signal, or until what it depends on is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    advisor: Advisor = build(settings, prepare)
    try:
        server = WebServer(advisor.service, settings.web.listen_address)
    except AddressError:
        advisor.close()
        raise
    try:
        advisor.service.start()
        server.start()
        click.echo(f"page      http://{server.address}/")
        click.echo(f"advice    http://{server.address}/recommendations")
        click.echo("\n".join(filter(None, [also, "Ctrl-C stops all."])))
        while not stop.wait(0.5):
            if not alive():
                raise StartError("the exporter ended by itself: run gpu-exporter alone to see why")
    finally:
        server.stop()
        advisor.close()


def _log_to_stderr() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> int:
    """The console command. Errors that a person can mend are one line, not a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        click.echo(f"gpu-advisor: {error}", err=True)
        return USAGE_ERROR
    except (StartError, AddressError) as error:
        click.echo(f"gpu-advisor: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0
