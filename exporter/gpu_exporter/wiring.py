"""Settings -> running parts: the one place where everything is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpu_exporter.config import Settings, duration
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.base import Driver, DriverSettings
from gpu_exporter.devices.simulated import SimulatedDriver, SimulatedGpu, simulated_info
from gpu_exporter.host import COLLECTORS, SELDOM
from gpu_exporter.host.base import HostSettings
from gpu_exporter.jobs.textfile import TextfilePage, reserved
from gpu_exporter.metrics import Samples
from gpu_exporter.owners.collector import OwnerCollector, OwnerSettings
from gpu_exporter.owners.podresources import PodResources
from gpu_exporter.sampling import DeviceBoard, DeviceTask, HostPage, Page, Sampler, Task

#: What can be switched on and off, beside the drivers and the host's collectors one by one.
GROUPS = ("host", "owners", "textfile")

#: Owners come and go with pods and jobs, not with the second.
OWNERS_SECONDS = 5.0
POD_RESOURCES_SECONDS = 10.0


def build_drivers(settings: Settings, fleet: tuple[SimulatedGpu, ...]) -> dict[str, Driver]:
    if fleet:
        return {"simulated": SimulatedDriver(fleet)}
    there = DriverSettings(
        Path(settings.path_sysfs),
        Path(settings.path_procfs),
        Path(settings.state_directory) if settings.state_directory else None,
    )
    return {name: make(there) for name, make in DRIVERS.items() if name not in settings.disabled}


def build_sampler(settings: Settings, drivers: Mapping[str, Driver]) -> Sampler:
    interval, limit = duration(settings.sampling_interval), duration(settings.time_limit)
    board = DeviceBoard(settings.nodename, _compatible(settings))
    pages: list[tuple[Task, Page]] = [
        (Task(name, page.run, max(interval, SELDOM.get(name, 0.0)), limit), page)
        for name, page in _host_pages(settings).items()
    ]
    if settings.textfile_directory and "textfile" not in settings.disabled:
        textfiles = TextfilePage([settings.textfile_directory], reserved(host="host" not in settings.disabled))
        pages.append((Task("textfile", textfiles.run, interval, limit), textfiles))
    others: list[Task] = []
    if "owners" not in settings.disabled and not settings.simulate:
        pods = PodResources(Path(settings.pod_resources_socket))
        there = OwnerSettings(Path(settings.path_procfs), Path(settings.path_sysfs), Path(settings.path_rootfs))
        owners = HostPage(OwnerCollector(board.devices, there, pods))
        pages.append((Task("owners", owners.run, max(interval, OWNERS_SECONDS), limit), owners))
        others.append(Task("pod_resources", pods.refresh, POD_RESOURCES_SECONDS, limit))
    return Sampler(
        board,
        [DeviceTask(name, driver, board, interval, limit) for name, driver in drivers.items()],
        pages,
        others,
        [simulated_info(settings.simulate)] if settings.simulate else (),
    )


def _compatible(settings: Settings) -> Callable[[Sequence[Samples]], list[Samples]]:
    if not settings.compat_dcgm:
        return lambda _: []
    from gpu_exporter.compat_dcgm import dcgm_samples

    return dcgm_samples


def _host_pages(settings: Settings) -> dict[str, HostPage]:
    if "host" in settings.disabled:
        return {}
    there = HostSettings(
        procfs=Path(settings.path_procfs),
        sysfs=Path(settings.path_sysfs),
        rootfs=Path(settings.path_rootfs),
        nodename=settings.node_name,
        mount_points_exclude=settings.mount_points_exclude,
        fs_types_exclude=settings.fs_types_exclude,
        disk_exclude=settings.disk_exclude,
        net_exclude=settings.net_exclude,
    )
    return {name: HostPage(make(there)) for name, make in COLLECTORS.items() if name not in settings.disabled}
