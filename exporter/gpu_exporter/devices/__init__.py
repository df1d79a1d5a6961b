"""GPU drivers: one file per vendor, one line here."""

from __future__ import annotations

from collections.abc import Callable

from gpu_exporter.devices.amd import AmdDriver
from gpu_exporter.devices.ascend import AscendDriver
from gpu_exporter.devices.base import Driver, DriverSettings
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.nvidia import NvidiaDriver
from gpu_exporter.devices.persistent import PersistentDriver

DRIVERS: dict[str, Callable[[DriverSettings], Driver]] = {
    "amd": lambda paths: PersistentDriver(AmdDriver(paths.sysfs, paths.procfs), paths.state_file("amd")),
    "ascend": lambda paths: PersistentDriver(AscendDriver(paths.sysfs, paths.procfs), paths.state_file("ascend")),
    "intel": lambda paths: PersistentDriver(IntelDriver(paths.sysfs, paths.procfs), paths.state_file("intel")),
    "nvidia": lambda paths: NvidiaDriver(paths.state_file("nvidia"), settings=paths),
}
