"""One NVIDIA GPU: its readings in one NVML session, and its meters across sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpu_exporter import metrics
from gpu_exporter.devices.host_memory import HostMemoryError, read_host_memory
from gpu_exporter.devices.integrated_load import IntegratedGpuLoad
from gpu_exporter.devices.meters import (
    MAX_GAP_SECONDS,
    WINDOW_SECONDS,
    BusyMeter,
    BusySource,
    UtilizationSample,
    WindowMeter,
    WindowStatistics,
)
from gpu_exporter.devices.nvidia_buffers import MAX_PROCESS_BYTES, ComputeProcesses, UtilizationBuffer
from gpu_exporter.devices.nvidia_call_plan import CallPlan
from gpu_exporter.devices.nvidia_calls import LIVE_METRICS, MEMORY_INFO, SLOW_METRICS, STATIC_METRICS
from gpu_exporter.devices.nvidia_drivers import parse_version
from gpu_exporter.devices.nvidia_families import MemoryKind, family_of
from gpu_exporter.devices.nvidia_fields import FieldPlan, NvlinkPlan
from gpu_exporter.devices.nvidia_gpm import GpmSampler
from gpu_exporter.devices.nvidia_mig import MigInstances, MigMode
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import DriverUnloaded, GpuLost, NvmlSession, NvmlValueError, handle_address
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import (
    Absence,
    AbsenceReason,
    DeviceIdentity,
    DeviceReading,
    DownReason,
    GpuProcess,
    MetricReading,
)

PROCESS_INTERVAL_SECONDS = 5.0
"""Listing processes takes real drivers milliseconds per GPU, and the list only changes with jobs."""

SLOW_INTERVAL_SECONDS = 5.0
"""Of SLOW_METRICS: limits, links and error counts stay the same for hours, and each call costs time in the driver."""

MIN_MEMORY_HELD_RATIO = 0.01
"""Memory counts as held above this ratio if the driver lists no process, as in a container: more than an unused GPU
uses, less than an idle process does."""

_BUSY_FAMILIES = (
    metrics.BUSY_SECONDS_TOTAL,
    metrics.OBSERVED_SECONDS_TOTAL,
    metrics.IDLE_HELD_SECONDS,
    metrics.BUSY_SOURCE,
    metrics.UTILIZATION_WINDOW,
)
_BUSY_SOURCES = {source: MetricReading(metrics.BUSY_SOURCE, 1, (source.value,)) for source in BusySource}
_WINDOW_LENGTH = MetricReading(metrics.WINDOW_LENGTH, WINDOW_SECONDS)


class _WindowFamily:
    """The statistics of one family over the last window."""

    def __init__(self, family: MetricFamily) -> None:
        self.meter = WindowMeter()
        self._family = family
        self._statistics: WindowStatistics | None = None
        self._readings: tuple[MetricReading, ...] = ()

    def add_readings(self, values: NvmlReadings, wall: float) -> None:
        statistics = self.meter.last(wall)
        if statistics is not self._statistics:
            self._statistics = statistics
            named = statistics._asdict().items() if statistics else ()
            self._readings = tuple([MetricReading(self._family, value, (name,)) for name, value in named])
        if self._readings:
            values.readings += self._readings
        else:
            values.absent[self._family] = AbsenceReason.NOT_YET


class GpuMeters:
    """The meters of one GPU, which survive its loss and new sessions."""

    def __init__(self) -> None:
        self.busy = BusyMeter()
        self.utilization = _WindowFamily(metrics.UTILIZATION_WINDOW)
        self.power = _WindowFamily(metrics.POWER_WINDOW)
        self._power_at: float | None = None

    def add_power(self, now: float, wall: float, watts: float | None) -> None:
        since, self._power_at = self._power_at, None if watts is None else now
        if watts is not None and since is not None and now - since <= MAX_GAP_SECONDS:
            self.power.meter.add(wall, now - since, watts)


class NvidiaGpu:
    """A GPU in an open NVML session. `close` frees its driver resources."""

    def __init__(
        self,
        nvml: NvmlSession,
        handle: Any,
        identity: DeviceIdentity,
        meters: GpuMeters,
        procfs: str = "/proc",
        sysfs: str = "/sys",
    ) -> None:
        self.identity = identity
        self.address = handle_address(handle)
        self._nvml, self._handle, self._meters, self._procfs = nvml, handle, meters, procfs
        self._mig_mode = MigMode(nvml, handle)
        self._family = family_of(identity.name)
        self._shares_memory = self._family.memory is MemoryKind.SHARED
        self._integrated = IntegratedGpuLoad(sysfs) if self._shares_memory else None
        self._processes: tuple[GpuProcess, ...] | AbsenceReason = ()
        self._has_buffer = True
        self._memory_held: bool | None = False
        self._plan(mig=False)

    def _plan(self, mig: bool) -> None:
        """Prepare all calls. What a GPU supports depends on MIG mode, so a change of mode repeats this."""
        nvml, handle = self._nvml, self._handle
        version = parse_version(self.identity.driver_version)
        watts = (metrics.POWER, metrics.POWER_LIMIT, metrics.POWER_LIMIT_MAX)
        limits = dict.fromkeys(watts, self._family.plausible_watts)
        live = [line for line in LIVE_METRICS if line.call is not MEMORY_INFO or not self._shares_memory]
        self._fixed: NvmlReadings | None = None
        self._fixed_plan = CallPlan(nvml, handle, STATIC_METRICS, limits)
        self._live_plan = CallPlan(nvml, handle, live, limits)
        self._slow_plan = CallPlan(nvml, handle, SLOW_METRICS, limits)
        self._slow = NvmlReadings()
        self._slow_due = -math.inf
        self._fields = FieldPlan(nvml, handle, version)
        self._links = NvlinkPlan(nvml, handle)
        self._gpm = GpmSampler(nvml, handle)
        self._buffer = UtilizationBuffer(nvml, handle)
        self._process_list = ComputeProcesses(nvml, handle, version)
        self._processes_at = -math.inf
        self._mig_instances = MigInstances(nvml, handle, self.identity) if mig else None

    def close(self) -> None:
        self._gpm.close()
        if self._mig_instances:
            self._mig_instances.close()

    def read(self, now: float, wall: float) -> list[DeviceReading]:
        """This GPU, then its MIG instances. `now` is monotonic seconds, `wall` Unix time. Raises DriverUnloaded."""
        mig = self._mig_mode.is_enabled(now)
        if mig != (self._mig_instances is not None):
            self.close()
            self._plan(mig)
        try:
            whole = self._read_whole(now, wall)
        except GpuLost:
            whole = DeviceReading(self.identity, down=DownReason.LOST)
        if self._mig_instances is None:
            return [whole]
        instances = self._mig_instances
        return [whole, *(instances.down_readings(whole.down) if whole.down else instances.read(now))]

    def _read_whole(self, now: float, wall: float) -> DeviceReading:
        values = self._read_calls(now)
        values.raise_if_gone()
        if values.only_errors:
            self._meters.add_power(now, wall, None)
            return DeviceReading(self.identity, down=DownReason.ERROR)
        if self._shares_memory:
            self._read_shared_memory(values)
        ratio = self._read_utilization(values)
        self._fields.execute(values)
        self._links.execute(values, now)
        self._gpm.execute(values, now)
        values.drop_incomplete_families()
        processes = self._read_processes(values, now)
        self._read_power(values, now, wall)
        self._read_busy(values, now, wall, ratio, processes)
        absences = tuple([Absence(family, reason) for family, reason in values.absent.items()])
        # In MIG mode processes belong to the instance that they run on.
        return DeviceReading(
            self.identity, tuple(values.readings), absences, processes=() if self._mig_instances else processes or ()
        )

    def _read_calls(self, now: float) -> NvmlReadings:
        """The readings of the call tables."""
        fixed = self._fixed
        if fixed is None:
            fixed = NvmlReadings()
            self._fixed_plan.execute(fixed)
            if AbsenceReason.ERROR not in fixed.absent.values():
                self._fixed = fixed
        values = NvmlReadings(list(fixed.readings), dict(fixed.absent))
        self._live_plan.execute(values)
        is_doubtful = values.is_doubtful
        if is_doubtful or now >= self._slow_due:
            self._slow = NvmlReadings()
            self._slow_plan.execute(self._slow)
            self._slow_due = -math.inf if is_doubtful else now + SLOW_INTERVAL_SECONDS
        values.add(self._slow)
        if is_doubtful:  # a GPU is down only by what all calls say
            values.add_calls(self._slow)
        return values

    def _read_shared_memory(self, values: NvmlReadings) -> None:
        values.absent[metrics.MEMORY_RESERVED] = AbsenceReason.UNSUPPORTED
        try:
            memory = read_host_memory(self._procfs)
        except HostMemoryError as error:
            values.absent.update(dict.fromkeys((metrics.MEMORY_TOTAL, metrics.MEMORY_USED), error.reason))
            return
        values.readings.append(MetricReading(metrics.MEMORY_TOTAL, memory.total))
        values.readings.append(MetricReading(metrics.MEMORY_USED, memory.used))

    def _read_utilization(self, values: NvmlReadings) -> float | None:
        """The gauge of NVML, or that of the kernel where NVML has none."""
        ratio = self._live_plan.last_value(metrics.UTILIZATION)
        if self._integrated is None or values.absent.get(metrics.UTILIZATION) is not AbsenceReason.UNSUPPORTED:
            return ratio
        self._integrated.add_clocks(values)
        ratio = self._integrated.ratio()
        if ratio is not None:
            del values.absent[metrics.UTILIZATION]
            values.readings.append(MetricReading(metrics.UTILIZATION, ratio))
        return ratio

    def _read_processes(self, values: NvmlReadings, now: float) -> tuple[GpuProcess, ...] | None:
        """The processes; None if they are unknown."""
        if now - self._processes_at >= PROCESS_INTERVAL_SECONDS:
            self._processes_at = now
            own_memory = self._live_plan.last_value(metrics.MEMORY_TOTAL)
            try:
                self._processes = self._process_list.read(own_memory or MAX_PROCESS_BYTES)
            except NvmlValueError as error:
                self._processes = error.reason
        if isinstance(self._processes, AbsenceReason):
            values.absent[metrics.PROCESSES] = self._processes
            return None
        values.readings.append(MetricReading(metrics.PROCESSES, len(self._processes)))
        return self._processes

    def _read_power(self, values: NvmlReadings, now: float, wall: float) -> None:
        watts = self._live_plan.last_value(metrics.POWER)
        self._meters.add_power(now, wall, watts)
        if watts is None:
            values.absent[metrics.POWER_WINDOW] = values.absent.get(metrics.POWER, AbsenceReason.ERROR)
        else:
            self._meters.power.add_readings(values, wall)
        values.readings.append(_WINDOW_LENGTH)
        values.readings.append(MetricReading(metrics.WINDOW_END, math.floor(wall / WINDOW_SECONDS) * WINDOW_SECONDS))

    def _read_busy(
        self,
        values: NvmlReadings,
        now: float,
        wall: float,
        ratio: float | None,
        processes: tuple[GpuProcess, ...] | None,
    ) -> None:
        meters = self._meters
        absence = values.absent.get(metrics.UTILIZATION)
        # A GPU in MIG mode has no utilization, and the sample buffer of the whole GPU is not reliable then either.
        unsupported = absence is AbsenceReason.UNSUPPORTED
        samples = None if unsupported else self._buffer.read_since(meters.busy.next_sample_since)
        self._has_buffer, self._memory_held = samples is not None, self._holds_memory(processes)
        self._count(now, wall, samples, None if ratio is None else 100 * ratio)
        if samples is None and ratio is None:
            values.absent.update(dict.fromkeys(_BUSY_FAMILIES, absence or AbsenceReason.ERROR))
            return
        meters.utilization.add_readings(values, wall)
        values.readings.append(MetricReading(metrics.BUSY_SECONDS_TOTAL, meters.busy.busy))
        values.readings.append(MetricReading(metrics.OBSERVED_SECONDS_TOTAL, meters.busy.observed))
        if self._memory_held is None:
            values.absent[metrics.IDLE_HELD_SECONDS] = values.absent.get(metrics.PROCESSES, AbsenceReason.UNSUPPORTED)
        else:
            values.readings.append(MetricReading(metrics.IDLE_HELD_SECONDS, meters.busy.idle_held_seconds))
        if meters.busy.source is BusySource.NONE:
            values.absent[metrics.BUSY_SOURCE] = AbsenceReason.NOT_YET
        else:
            values.readings.append(_BUSY_SOURCES[meters.busy.source])

    def _holds_memory(self, processes: tuple[GpuProcess, ...] | None) -> bool | None:
        """Whether processes have memory of the GPU; None if neither they nor the GPU's own memory are known."""
        used, total = self._live_plan.last_value(metrics.MEMORY_USED), self._live_plan.last_value(metrics.MEMORY_TOTAL)
        if processes:
            return True
        if used is not None and total is not None:
            return used > MIN_MEMORY_HELD_RATIO * total
        return None if processes is None else False

    def _count(
        self, now: float, wall: float, samples: Sequence[UtilizationSample] | None, percent: float | None
    ) -> None:
        for piece in reversed(self._meters.busy.update(now, samples, percent, bool(self._memory_held))):
            self._meters.utilization.meter.add(wall - piece.age, piece.seconds, piece.percent / 100)

    @property
    def uses_gauge(self) -> bool:
        """Whether the busy time comes from the gauge, which must be sampled between readings."""
        return self._meters.busy.source is BusySource.GAUGE

    def sample(self, now: float, wall: float) -> None:
        """Sample the utilization gauge. Errors are ignored: the next reading reports them."""
        try:
            percent = float(self._nvml.call("nvmlDeviceGetUtilizationRates", self._handle).gpu)
        except (NvmlValueError, GpuLost, DriverUnloaded):
            ratio = self._integrated.ratio() if self._integrated else None
            if ratio is None:
                return
            percent = 100 * ratio
        self._count(now, wall, () if self._has_buffer else None, percent)
