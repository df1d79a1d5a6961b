"""The command `gpu-exporter`: loads the settings and runs the exporter."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_exporter.config import ExporterSettings, SettingsError, load_settings, parse_duration
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.simulated import FleetError, generate_history, parse_fleet
from gpu_exporter.exposition import render_history
from gpu_exporter.host import COLLECTORS
from gpu_exporter.sampling import FIRST_READING_TIMEOUT_SECONDS, Sampler
from gpu_exporter.server import AccessPolicy, ListenError, MetricsServer, ServerConfig
from gpu_exporter.wiring import COLLECTOR_GROUPS, build_drivers, build_sampler

log = logging.getLogger("gpu_exporter")

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 success, 1 runtime error, 2 usage error."""
    try:
        settings = load_settings(sys.argv[1:] if argv is None else argv, (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS))
        fleet = parse_fleet(settings.simulate, settings.simulate_seed) if settings.simulate else ()
        access = _load_access_policy(settings)
    except (SettingsError, FleetError) as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return USAGE_ERROR
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.simulate_history:
        return write_history(settings)
    return serve(settings, build_sampler(settings, build_drivers(settings, fleet)), access)


def serve(settings: ExporterSettings, sampler: Sampler, access: Callable[[], AccessPolicy] | None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    actions = {"/-/release": sampler.release_drivers} if settings.enable_lifecycle else {}
    try:
        server = MetricsServer(settings.address, ServerConfig(settings.telemetry_path, sampler.page, actions, access))
    except ListenError as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return 1
    sampler.start(FIRST_READING_TIMEOUT_SECONDS)
    for signum in (signal.SIGTERM, signal.SIGINT):
        # The handler interrupts the serving loop, and shutdown() waits for that loop: call it from another thread.
        signal.signal(signum, lambda *_: threading.Thread(target=server.shutdown).start())
    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=sampler.release_drivers, daemon=True).start())
    host, port = server.server_address[:2]
    scheme = "https" if access and access().ssl_context() else "http"
    bind_host = host if isinstance(host, str) else host.decode()
    log.info("serving %s://%s:%s%s", scheme, bind_host, port, settings.telemetry_path)
    server.serve_forever()
    sampler.stop()
    server.server_close()
    return 0


def _load_access_policy(settings: ExporterSettings) -> Callable[[], AccessPolicy] | None:
    if not settings.web_config_file:
        return None
    from gpu_exporter.webconfig import (  # imports yaml, which an exporter without this file does not need
        WebConfigError,
        WebConfigReloader,
    )

    try:
        return WebConfigReloader(Path(settings.web_config_file)).current
    except WebConfigError as error:
        raise SettingsError(f"--web.config.file: {error}") from error


def write_history(settings: ExporterSettings) -> int:
    """Write the simulated history to standard output. Returns the exit code."""
    now = time.time()
    history = generate_history(
        settings.simulate,
        settings.simulate_seed,
        settings.nodename,
        now - parse_duration(settings.simulate_history),
        now,
        parse_duration(settings.simulate_step),
    )
    try:
        for line in render_history(history):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # otherwise Python reports the broken pipe again at exit
        return 1
    return 0
