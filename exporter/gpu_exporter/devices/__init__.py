"""GPU drivers: one file a vendor, one line here."""

from __future__ import annotations

from collections.abc import Callable

from gpu_exporter.devices.amd import AmdDriver
from gpu_exporter.devices.ascend import AscendDriver
from gpu_exporter.devices.base import Driver, DriverSettings
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.nvidia import NvidiaDriver
from gpu_exporter.devices.remembered import Remembered

DRIVERS: dict[str, Callable[[DriverSettings], Driver]] = {
    "amd": lambda there: Remembered(AmdDriver(there.sysfs, there.procfs), there.state_file("amd")),
    "ascend": lambda there: Remembered(AscendDriver(there.sysfs, there.procfs), there.state_file("ascend")),
    "intel": lambda there: Remembered(IntelDriver(there.sysfs, there.procfs), there.state_file("intel")),
    "nvidia": lambda there: NvidiaDriver(there.state_file("nvidia")),
}
