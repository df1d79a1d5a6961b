"""Start: settings in, a running exporter out."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_exporter.config import ConfigError, Settings, duration, load
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.base import Driver
from gpu_exporter.devices.simulated import BadFleet, SimulatedDriver, parse_fleet, past, simulated_info
from gpu_exporter.exposition import render_history
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings
from gpu_exporter.sampling import DeviceBoard, HostPage, Sampler, Task, device_task
from gpu_exporter.server import BadAddress, MetricsServer, Site

log = logging.getLogger("gpu_exporter")

USAGE_ERROR = 2

#: Starting waits this long for the first readings, so that the first scrape is whole unless something hangs.
FIRST_READING_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `gpu-exporter`. Returns its exit code: 0 stopped, 1 failed, 2 wrongly called."""
    try:
        settings = load(sys.argv[1:] if argv is None else argv, ("host", *DRIVERS, *COLLECTORS))
        fleet = parse_fleet(settings.simulate, settings.simulate_seed) if settings.simulate else ()
    except (ConfigError, BadFleet) as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return USAGE_ERROR
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.simulate_history:
        return write_history(settings)
    drivers: dict[str, Driver] = (
        {"simulated": SimulatedDriver(fleet)}
        if fleet
        else {name: make() for name, make in DRIVERS.items() if name not in settings.disabled}
    )
    return serve(settings, drivers)


def serve(settings: Settings, drivers: dict[str, Driver]) -> int:
    sampler = build_sampler(settings, drivers)
    try:
        server = MetricsServer(settings.address, Site(settings.telemetry_path, sampler.page))
    except BadAddress as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return 1
    sampler.start(FIRST_READING_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which this handler interrupts: it needs a thread of its own.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    host, port = server.server_address[:2]
    log.info("serving http://%s:%s%s", host if isinstance(host, str) else host.decode(), port, settings.telemetry_path)
    server.serve_forever()
    sampler.stop()
    server.server_close()
    return 0


def build_sampler(settings: Settings, drivers: dict[str, Driver]) -> Sampler:
    interval, limit = duration(settings.sampling_interval), duration(settings.time_limit)
    board = DeviceBoard(os.uname().nodename)
    host_settings = HostSettings(
        procfs=Path(settings.path_procfs),
        sysfs=Path(settings.path_sysfs),
        rootfs=Path(settings.path_rootfs),
        mount_points_exclude=settings.mount_points_exclude,
        fs_types_exclude=settings.fs_types_exclude,
        disk_exclude=settings.disk_exclude,
        net_exclude=settings.net_exclude,
    )
    host: list[tuple[Task, HostPage]] = []
    for name, make in COLLECTORS.items():
        if "host" not in settings.disabled and name not in settings.disabled:
            page = HostPage(make(host_settings))
            host.append((Task(name, page.run, interval, limit), page))
    return Sampler(
        board,
        [device_task(name, driver, board, interval, limit) for name, driver in drivers.items()],
        host,
        [simulated_info(settings.simulate)] if settings.simulate else (),
    )


def write_history(settings: Settings) -> int:
    now = time.time()
    history = past(
        settings.simulate,
        settings.simulate_seed,
        os.uname().nodename,
        now - duration(settings.simulate_history),
        now,
        duration(settings.simulate_step),
    )
    try:
        for line in render_history(history):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        return 1
    return 0
