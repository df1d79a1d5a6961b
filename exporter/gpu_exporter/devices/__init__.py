"""GPU drivers: one file a vendor, one line here."""

from __future__ import annotations

from collections.abc import Callable

from gpu_exporter.devices.amd import AmdDriver
from gpu_exporter.devices.ascend import AscendDriver
from gpu_exporter.devices.base import Driver, DriverSettings
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.nvidia import NvidiaDriver

DRIVERS: dict[str, Callable[[DriverSettings], Driver]] = {
    "amd": lambda there: AmdDriver(there.sysfs, there.procfs),
    "ascend": lambda there: AscendDriver(there.sysfs, there.procfs),
    "intel": lambda there: IntelDriver(there.sysfs, there.procfs),
    "nvidia": lambda there: NvidiaDriver(there.state_file("nvidia")),
}
