"""GPU drivers: one file a vendor, one line here."""

from __future__ import annotations

from collections.abc import Callable

from gpu_exporter.devices.amd import AmdDriver
from gpu_exporter.devices.ascend import AscendDriver
from gpu_exporter.devices.base import Driver
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.nvidia import NvidiaDriver

DRIVERS: dict[str, Callable[[], Driver]] = {
    "amd": AmdDriver,
    "ascend": AscendDriver,
    "intel": IntelDriver,
    "nvidia": NvidiaDriver,
}
