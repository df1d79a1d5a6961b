"""Runs the service until a signal, for `up` and `serve`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

import click

from gpu_advisor.runtime.wiring import RunningAdvisor, StartupError, build_advisor
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.settings.addresses import AddressError
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.web.server import WebServer


def run_service(
    settings: Settings,
    fill_history: Callable[[History], None] | None = None,
    extra_output: str | None = None,
    is_alive: Callable[[], bool] = lambda: True,
) -> None:
    """Run until a signal, or until `is_alive` is false. Raises StartupError, ConfigError or AddressError."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    advisor: RunningAdvisor = build_advisor(settings, fill_history)
    try:
        server = WebServer(advisor.service, settings.web.listen_address, advisor.allocation)
    except (AddressError, ConfigError):
        advisor.close()
        raise
    try:
        advisor.service.start()
        server.start()
        click.echo(f"page      {server.url}/")
        click.echo(f"API       {server.url}/recommendations")
        click.echo("\n".join(filter(None, [extra_output, "Press Ctrl-C to stop."])))
        while not stop.wait(0.5):
            if not is_alive():
                raise StartupError("gpu-exporter exited: run it alone to see why")
    finally:
        server.stop()
        advisor.close()


def log_to_stderr() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
