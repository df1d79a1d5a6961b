"""Runs the service until a signal, for `up` and `serve`; `serve` reads its settings again on request."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

import click

from gpu_advisor.runtime.logs import log_to_stderr
from gpu_advisor.runtime.process_memory import freeze_objects, share_arena
from gpu_advisor.runtime.wiring import StartupError, build_advisor
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.settings.addresses import AddressError
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.web.server import WebServer, build_authenticator, open_listener

__all__ = ["log_to_stderr", "run_service"]

log = logging.getLogger(__name__)

#: How often the main thread looks for signals, and whether the exporter that it started runs.
POLL_SECONDS = 0.5

_STARTUP_ERRORS = (StartupError, ConfigError, AddressError)


def run_service(
    settings: Settings,
    fill_history: Callable[[History], None] | None = None,
    extra_output: str | None = None,
    is_alive: Callable[[], bool] = lambda: True,
    load: Callable[[], Settings] | None = None,
) -> None:
    """Run until a signal, or until `is_alive` is false. Raises StartupError, ConfigError or AddressError.

    With `load`, SIGHUP reads the settings again; without it, SIGHUP ends the process, as the end of its terminal does.
    """
    service = _Service(fill_history, load)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    if load is not None:
        signal.signal(signal.SIGHUP, lambda *_: service.request_reload())
    try:
        service.start(settings)
        click.echo(f"page      {service.url}/")
        click.echo(f"API       {service.url}/recommendations")
        click.echo("\n".join(filter(None, [extra_output, "Press Ctrl-C to stop."])))
        while not service.wait(POLL_SECONDS):
            if not is_alive():
                raise StartupError("gpu-exporter exited: run it alone to see why")
    finally:
        service.close()


class _Service:
    """The parts of a running advisor, replaced as a whole by a reload. The listening socket is kept meanwhile."""

    def __init__(self, fill_history: Callable[[History], None] | None, load: Callable[[], Settings] | None) -> None:
        self._fill_history = fill_history
        self._load = load
        self._wake = threading.Event()
        self._stopping = False
        self._reload_requested = False
        self._loaded: Settings | None = None  # to be applied
        self._settings = Settings()
        self._listener: socket.socket | None = None
        self._parts = ExitStack()
        self.url = ""

    def stop(self) -> None:
        """From a signal handler, which must not take a lock: `wait` looks once it has waited."""
        self._stopping = True

    def request_reload(self) -> None:
        """As `stop`: the main thread reads the file."""
        self._reload_requested = True

    def reload(self) -> None:
        """Read the settings again, and have the main thread apply them. Raises ConfigError; then nothing changes."""
        if self._load is None:
            raise ConfigError("these settings are those of the command line: restart the program to change them")
        try:
            self._loaded = self._load()
        except ConfigError as error:
            log.warning("not reloaded: %s; the previous settings stay in effect", error)
            raise
        self._wake.set()

    def wait(self, seconds: float) -> bool:
        """Wait, and apply new settings; whether the service is to stop."""
        self._wake.wait(seconds)
        self._wake.clear()
        if self._reload_requested and not self._stopping:
            self._reload_requested = False
            with suppress(ConfigError):  # logged
                self.reload()
        loaded, self._loaded = self._loaded, None
        if loaded is not None and not self._stopping:
            self._apply(loaded)
        return self._stopping

    def start(self, settings: Settings) -> None:
        """Raises StartupError, ConfigError or AddressError; then nothing runs."""
        share_arena()
        if self._listener is None:
            self._listener = open_listener(settings.web.listen_address)
        with ExitStack() as parts:
            advisor = build_advisor(settings, self._fill_history)
            parts.callback(advisor.close)
            server = WebServer(
                advisor.service,
                settings.web.listen_address,
                advisor.allocation,
                listener=self._listener.dup(),  # clients that connect during a reload wait in the queue of both
                reload=self.reload if self._load else None,
            )
            parts.callback(server.stop)
            advisor.service.start()
            server.start()
            self._parts, self._settings, self.url = parts.pop_all(), settings, server.url
        freeze_objects()

    def close(self) -> None:
        self._parts.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _apply(self, settings: Settings) -> None:
        """Start with these settings; with the previous ones if that fails."""
        before, listener = self._settings, self._listener
        try:
            build_authenticator(settings.web)
            if settings.web.listen_address != before.web.listen_address:
                self._listener = open_listener(settings.web.listen_address)
        except _STARTUP_ERRORS as error:
            log.warning("not reloaded: %s; the previous settings stay in effect", error)
            return
        self._parts.close()
        try:
            self.start(settings)
        except _STARTUP_ERRORS as error:
            log.warning("not reloaded: %s; the previous settings stay in effect", error)
            listener, self._listener = self._listener, listener
            self.start(before)
        else:
            log.info("settings reloaded")
        if listener is not None and listener is not self._listener:
            listener.close()
