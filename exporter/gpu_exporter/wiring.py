"""Composition: builds drivers, collectors and the sampler from the settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpu_exporter.config import ExporterSettings, parse_duration
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.base import Driver, DriverSettings
from gpu_exporter.devices.simulated import SimulatedDriver, SimulatedGpu, simulated_info
from gpu_exporter.host import MAY_BLOCK, MIN_INTERVAL_SECONDS, collectors_of
from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.node_exporter import is_node_exporter
from gpu_exporter.jobs.textfile import TextfilePage, reserved_name_matcher
from gpu_exporter.metrics import FamilySamples
from gpu_exporter.owners.collector import OwnerCollector, OwnerSettings
from gpu_exporter.owners.pod_resources import PodResourcesClient
from gpu_exporter.owners.scontrol import (
    CALL_TIMEOUT_SECONDS,
    ScontrolClient,
    ScontrolQuery,
    find_program,
    scontrol_runner,
)
from gpu_exporter.owners.slurm_queue import CALL_TIMEOUT_SECONDS as QUEUE_TIMEOUT_SECONDS
from gpu_exporter.owners.slurm_queue import SlurmQueueCollector
from gpu_exporter.process import PortableProcessCollector, ProcessCollector
from gpu_exporter.sampling.drivers import DeviceCache, DriverTask
from gpu_exporter.sampling.pages import CollectorPage, RenderedPage
from gpu_exporter.sampling.sampler import Sampler
from gpu_exporter.sampling.tasks import CollectorTask, SharedThread

log = logging.getLogger(__name__)

#: Elsewhere, /proc and cgroups are missing: host metrics come from psutil, and GPUs have no owners.
IS_LINUX = sys.platform == "linux"

#: Groups that --no-collector.NAME disables as a whole, beside single drivers and host collectors.
COLLECTOR_GROUPS = ("host", "owners", "process", "textfile")

#: Owners change when pods and jobs start or stop: no need to read them every second.
OWNERS_INTERVAL_SECONDS = 5.0
PROCESS_INTERVAL_SECONDS = 5.0

#: A reading of the host that nobody has scraped yet is only replaced when it is this old: who scrapes every second gets
#: new values each time, and who scrapes every 15 s does not pay for 14 readings that nobody sees. A little less than
#: 5 s, as intervals are counted from the wall clock and ages from the end of a reading.
HOST_MAX_AGE_SECONDS = 4.9
POD_RESOURCES_INTERVAL_SECONDS = 10.0


def build_drivers(settings: ExporterSettings, fleet: tuple[SimulatedGpu, ...]) -> dict[str, Driver]:
    """The enabled GPU drivers by name, or the simulated one if there is a fleet."""
    if fleet:
        return {"simulated": SimulatedDriver(fleet)}
    paths = DriverSettings(
        Path(settings.path_sysfs),
        Path(settings.path_procfs),
        Path(settings.state_directory) if settings.state_directory else None,
    )
    return {name: factory(paths) for name, factory in DRIVERS.items() if name not in settings.disabled}


#: A collector, and its part of the page.
CollectorPart = tuple[CollectorTask, RenderedPage]


def build_sampler(settings: ExporterSettings, drivers: Mapping[str, Driver]) -> Sampler:
    """The sampler with all enabled collectors. It does not run until `start`."""
    _warn_of_missing_paths(settings)
    timing = _Timing(parse_duration(settings.sampling_interval), parse_duration(settings.time_limit))
    cache = DeviceCache(settings.nodename)
    host_pages = _host_pages(settings) if _has_host_collectors(settings) else {}
    owners = _owner_parts(settings, cache, timing)
    _derive_compat_families(settings, cache, lambda: owners.page.samples if owners else ())
    return Sampler(
        cache,
        [DriverTask(name, driver, cache, timing.interval, timing.timeout) for name, driver in drivers.items()],
        [
            *_quick_parts(settings, host_pages, timing),
            *_textfile_parts(settings, bool(host_pages), timing),
            *_slurm_queue_parts(settings, timing),
            *([(owners.task, owners.page)] if owners else []),
        ],
        owners.background_tasks if owners else (),
        [simulated_info(settings.simulate)] if settings.simulate else (),
        host_pages,
    )


@dataclass(frozen=True, slots=True)
class _Timing:
    """Seconds between two runs of a collector, unless it has its own interval, and after which a run is overdue."""

    interval: float
    timeout: float


@dataclass(frozen=True, slots=True)
class _OwnerParts:
    """The collector of owners, and what it reads in the background."""

    page: CollectorPage
    task: CollectorTask
    background_tasks: Sequence[CollectorTask]


def _quick_parts(
    settings: ExporterSettings, host_pages: Mapping[str, CollectorPage], timing: _Timing
) -> Iterator[CollectorPart]:
    """The collectors of the host and of this process: those that cannot block share a thread."""
    thread = SharedThread("collect-host")
    for name, page in host_pages.items():
        yield (
            CollectorTask(
                name,
                page.run,
                max(timing.interval, MIN_INTERVAL_SECONDS.get(name, 0.0)),
                timing.timeout,
                shared_thread=None if name in MAY_BLOCK else thread,
                is_needed=partial(page.is_outdated, HOST_MAX_AGE_SECONDS),
            ),
            page,
        )
    if "process" not in settings.disabled:
        process = CollectorPage(ProcessCollector() if IS_LINUX else PortableProcessCollector())
        period = max(timing.interval, PROCESS_INTERVAL_SECONDS)
        yield CollectorTask("process", process.run, period, timing.timeout, shared_thread=thread), process


def _textfile_parts(settings: ExporterSettings, has_host: bool, timing: _Timing) -> Iterator[CollectorPart]:
    if settings.textfile_directory and "textfile" not in settings.disabled:
        page = TextfilePage([settings.textfile_directory], reserved_name_matcher(host=has_host))
        yield CollectorTask("textfile", page.run, timing.interval, timing.timeout), page


def _slurm_queue_parts(settings: ExporterSettings, timing: _Timing) -> Iterator[CollectorPart]:
    if settings.slurm_queue and not settings.simulate:
        page = CollectorPage(SlurmQueueCollector())
        period = parse_duration(settings.slurm_queue_interval)
        yield CollectorTask("slurm_queue", page.run, period, QUEUE_TIMEOUT_SECONDS + timing.timeout), page


def _owner_parts(settings: ExporterSettings, cache: DeviceCache, timing: _Timing) -> _OwnerParts | None:
    """None if owners are disabled or cannot be known: of simulated GPUs, and where there are no cgroups."""
    if "owners" in settings.disabled or settings.simulate or not IS_LINUX:
        return None
    pods = PodResourcesClient(Path(settings.pod_resources_socket))
    nodename = settings.node_name or settings.nodename.partition(".")[0]  # as Slurm names nodes
    paths = OwnerSettings(
        Path(settings.path_procfs), Path(settings.path_sysfs), Path(settings.path_rootfs), nodename,
        settings.slurm_config,
    )  # fmt: skip
    scontrol = _scontrol_client(settings, nodename)
    page = CollectorPage(OwnerCollector(cache.devices, paths, pods, scontrol=scontrol))
    task = CollectorTask("owners", page.run, max(timing.interval, OWNERS_INTERVAL_SECONDS), timing.timeout)
    background = [CollectorTask("pod_resources", pods.refresh, POD_RESOURCES_INTERVAL_SECONDS, timing.timeout)]
    if scontrol:
        period = scontrol.interval_seconds
        # Not all nodes at once: the controller is one for the whole cluster.
        offset = period * int.from_bytes(os.urandom(4), "big") / 2**32
        background.append(
            CollectorTask("scontrol", scontrol.refresh, period, CALL_TIMEOUT_SECONDS + timing.timeout, offset)
        )
    return _OwnerParts(page, task, background)


def _warn_of_missing_paths(settings: ExporterSettings) -> None:
    """Log the paths that are set to what is not there. It may come later: no reason to refuse to start."""
    for key, path, default in (
        ("collector.owners.pod-resources-socket", settings.pod_resources_socket, ExporterSettings.pod_resources_socket),
        ("collector.owners.slurm-config", settings.slurm_config, ExporterSettings.slurm_config),
        ("collector.owners.scontrol", settings.scontrol, ExporterSettings.scontrol),
        ("path.udev.data", settings.path_udev_data, ExporterSettings.path_udev_data),
    ):
        if path not in ("", default) and not (os.path.exists(path) or find_program(path)):
            log.warning("%s: %s does not exist; until it does, its part is missing", settings.place(key), path)


def _scontrol_client(settings: ExporterSettings, nodename: str) -> ScontrolClient | None:
    is_default = settings.scontrol == ExporterSettings.scontrol
    if not settings.scontrol or (is_default and not find_program(settings.scontrol)):
        return None
    conf = Path(settings.slurm_config) / "slurm.conf" if settings.slurm_config else None
    return ScontrolClient(
        ScontrolQuery(nodename), parse_duration(settings.scontrol_interval), scontrol_runner(settings.scontrol, conf)
    )


def _derive_compat_families(
    settings: ExporterSettings, cache: DeviceCache, owners: Callable[[], Sequence[FamilySamples]]
) -> None:
    """Add the names of other exporters. `owners` returns the latest families of the owner collector."""
    if settings.compat_dcgm:
        from gpu_exporter.compat.dcgm import DcgmFamilies

        dcgm = DcgmFamilies()
        cache.derive(lambda samples, _: dcgm.samples(samples, owners()))
    if settings.compat_nvidia_smi:
        from gpu_exporter.compat.nvidia_smi import NvidiaSmiFamilies

        cache.derive(NvidiaSmiFamilies(Path(settings.path_procfs)).samples)


def _has_host_collectors(settings: ExporterSettings) -> bool:
    """Whether host metrics are wanted, and no node_exporter has them already."""
    if "host" in settings.disabled:
        return False
    host, _, port = settings.node_exporter.rpartition(":")
    if host and is_node_exporter(host.strip("[]"), int(port)):
        log.info(
            "host collectors are off: node_exporter serves the host's metrics at %s; to turn them on, stop it or leave "
            "--collector.host.node-exporter empty",
            settings.node_exporter,
        )
        return False
    return True


def _host_pages(settings: ExporterSettings) -> dict[str, CollectorPage]:
    paths = HostSettings(
        procfs=Path(settings.path_procfs),
        sysfs=Path(settings.path_sysfs),
        rootfs=Path(settings.path_rootfs),
        udev_data=Path(settings.path_udev_data),
        nodename=settings.node_name,
        mount_points_exclude=settings.mount_points_exclude,
        fs_types_exclude=settings.fs_types_exclude,
        disk_exclude=settings.disk_exclude,
        net_exclude=settings.net_exclude,
    )
    return {
        name: CollectorPage(factory(paths))
        for name, factory in collectors_of().items()
        if name not in settings.disabled
    }
