"""A few host and GPU metrics recorded with those of the job, absent where they cannot be read.

They are for a single run; the exporter has all of them, as counters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

#: name -> value; ratios are 0 to 1.
MetricValues = dict[str, float]


class HostSampler:
    """CPU and memory usage of the host, from /proc (proc(5)). Reads nothing except on Linux."""

    def __init__(self, procfs: Path = Path("/proc")) -> None:
        self._procfs = procfs
        self._last: tuple[float, float] | None = None

    def read(self) -> MetricValues:
        found: MetricValues = {}
        try:
            ticks = [float(field) for field in (self._procfs / "stat").read_text().split("\n", 1)[0].split()[1:9]]
            lines = (self._procfs / "meminfo").read_text().splitlines()
        except (OSError, ValueError):
            return found
        idle, total = ticks[3] + ticks[4], sum(ticks)  # user nice system idle iowait irq softirq steal
        if self._last and total > self._last[1]:
            found["host_cpu_busy_ratio"] = 1 - (idle - self._last[0]) / (total - self._last[1])
        self._last = (idle, total)
        memory = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
        if memory.get("MemTotal") and "MemAvailable" in memory:
            found["host_memory_used_ratio"] = 1 - memory["MemAvailable"] / memory["MemTotal"]
        return found


class GpuSampler:
    """One GPU's metrics from NVML, by UUID. Reads nothing, and logs it once, without the library or the GPU."""

    def __init__(self, uuid: str) -> None:
        self._reads: dict[str, Callable[[], float]] = {}
        import pynvml

        self._error: type[Exception] = pynvml.NVMLError
        try:
            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            log.info("no metrics of GPU %s: %s", uuid, error)
            return
        self._reads = {
            "gpu_utilization_ratio": lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            "gpu_memory_used_bytes": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(gpu).used),
            "gpu_power_watts": lambda: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "gpu_temperature_celsius": lambda: float(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU)),
        }

    def read(self) -> MetricValues:
        found: MetricValues = {}
        for name, read in list(self._reads.items()):
            try:
                found[name] = read()
            except self._error as error:  # not supported by this GPU or MIG instance: do not retry
                log.info("%s is not available: %s", name, error)
                del self._reads[name]
        return found
