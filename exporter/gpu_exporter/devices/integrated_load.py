"""Utilization and clock of the integrated GPU of a Jetson, whose NVML has neither.

The kernel has a devfreq device per engine. The GPU's has the name of its device tree node: gp10b (TX2), gv11b (Xavier),
ga10b (Orin), gpu. `load` of the device is in tenths of a percent, and is what tegrastats shows as GR3D_FREQ; `cur_freq`
and `max_freq` of devfreq are in hertz. Sources: NVIDIA's Jetson Linux Developer Guide ("Tegrastats Utility"), the
kernel's Documentation/ABI/testing/sysfs-class-devfreq, rbonghi/jetson_stats (jtop/core/gpu.py).
"""

from __future__ import annotations

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.sysfs import list_names, read_text
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import MetricReading

_NODE_NAMES = frozenset(("gp10b", "gv11b", "ga10b", "gpu"))
_FULL_LOAD = 1000
_MAX_HERTZ = 5_000_000_000


class IntegratedGpuLoad:
    """Reads the files. Without them, as on DGX Spark, it has no values."""

    def __init__(self, sysfs: str) -> None:
        self._folder = f"{sysfs}/class/devfreq"
        self._device = ""

    def ratio(self) -> float | None:
        """Utilization, 0..1; None if there is none."""
        device = self._find()
        load = _number(f"{device}/device/load") if device else None
        return load / _FULL_LOAD if load is not None and load <= _FULL_LOAD else None

    def add_clocks(self, values: NvmlReadings) -> None:
        """Add the clocks that NVML did not have."""
        device = self._find()
        for family, name in _CLOCKS if device else ():
            hertz = _number(f"{device}/{name}") if family in values.absent else None
            if hertz is not None and hertz <= _MAX_HERTZ:
                del values.absent[family]
                values.readings.append(MetricReading(family, hertz))

    def _find(self) -> str:
        if not self._device:
            names = list_names(self._folder, r".*")
            found = (f"{self._folder}/{name}" for name in names)
            self._device = next(
                (each for each in found if read_text(f"{each}/device/of_node/name").strip("\0 ") in _NODE_NAMES), ""
            )
        return self._device


_CLOCKS: tuple[tuple[MetricFamily, str], ...] = ((metrics.SM_CLOCK, "cur_freq"), (metrics.SM_CLOCK_MAX, "max_freq"))


def _number(path: str) -> int | None:
    text = read_text(path)
    return int(text) if text.isdigit() else None
