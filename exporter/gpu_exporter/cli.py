"""The command `gpu-exporter`: loads the settings and runs the exporter."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpu_exporter import malloc
from gpu_exporter.config import ExporterSettings, SettingsError, load_settings, parse_duration
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.simulated import FleetError, SimulatedGpu, generate_history, parse_fleet
from gpu_exporter.exposition import render_history
from gpu_exporter.host import COLLECTORS
from gpu_exporter.logs import log_to_stderr
from gpu_exporter.reload import ReloadableSampler
from gpu_exporter.sampling.sampler import Sampler
from gpu_exporter.server import AccessPolicy, ActionError, ListenError, MetricsServer, ServerConfig, format_address
from gpu_exporter.signals import signal_actions
from gpu_exporter.wiring import COLLECTOR_GROUPS, build_drivers, build_sampler

log = logging.getLogger("gpu_exporter")

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 success, 1 runtime error, 2 usage error."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        settings = _load(arguments)
        access = _load_access_policy(settings)
        log_to_stderr(settings.log_level)
        if settings.simulate_history:
            return write_history(settings)
        sampler = ReloadableSampler(settings, lambda: _load(arguments), _build)
    except SettingsError as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return USAGE_ERROR
    return serve(settings, sampler, access)


def _load(arguments: Sequence[str]) -> ExporterSettings:
    """Raises SettingsError."""
    settings = load_settings(arguments, (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS))
    _fleet(settings)
    _check_paths(settings)
    return settings


def _fleet(settings: ExporterSettings) -> tuple[SimulatedGpu, ...]:
    """Raises SettingsError."""
    try:
        return parse_fleet(settings.simulate, settings.simulate_seed) if settings.simulate else ()
    except FleetError as error:
        raise SettingsError(f"{settings.place('simulate')}: {error}") from error


def _check_paths(settings: ExporterSettings) -> None:
    """Raises SettingsError if a file system of the host is set to a path that is not there."""
    for key, path, default in (
        ("path.procfs", settings.path_procfs, ExporterSettings.path_procfs),
        ("path.sysfs", settings.path_sysfs, ExporterSettings.path_sysfs),
        ("path.rootfs", settings.path_rootfs, ExporterSettings.path_rootfs),
    ):
        if path != default and not os.path.isdir(path):
            raise SettingsError(
                f"{settings.place(key)}: {path!r} is not a directory; mount the host's there, or leave it out: it is "
                f"{default} then"
            )


def _build(settings: ExporterSettings) -> Sampler:
    """Raises SettingsError."""
    return build_sampler(settings, build_drivers(settings, _fleet(settings)))


def serve(settings: ExporterSettings, sampler: ReloadableSampler, access: Callable[[], AccessPolicy] | None) -> int:
    """Serve until SIGTERM or SIGINT. SIGHUP reads the settings again. Returns the exit code."""
    actions: dict[str, Callable[[], object]] = {}
    if settings.enable_lifecycle:
        actions = {"/-/release": sampler.release_drivers, "/-/reload": sampler.reload}
    names = (settings.address[0], settings.nodename)
    try:
        server = MetricsServer(
            settings.address, ServerConfig(settings.telemetry_path, sampler.page, actions, access, names)
        )
    except ListenError as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return 1
    malloc.share_arena()
    on_signals = {
        "SIGTERM": server.shutdown,
        "SIGINT": server.shutdown,
        "SIGHUP": lambda: _reload(sampler),
        "SIGUSR1": sampler.release_drivers,
    }
    # Before the first readings: systemd sends SIGHUP at any `systemctl reload`.
    with signal_actions(on_signals):
        sampler.start()
        host, port = server.server_address[:2]
        scheme = "https" if access and access().ssl_context() else "http"
        bind_host = host if isinstance(host, str) else host.decode()
        log.info("serving %s://%s%s", scheme, format_address(bind_host, port), settings.telemetry_path)
        try:
            server.serve_forever()
        finally:
            sampler.stop()
            server.server_close()
    return 0


def _reload(sampler: ReloadableSampler) -> None:
    with suppress(ActionError):  # logged
        sampler.reload()


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
        raise SettingsError(f"{settings.place('web.config.file')}: {error}") from error


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
