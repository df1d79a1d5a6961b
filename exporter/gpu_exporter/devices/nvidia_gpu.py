"""One NVIDIA GPU in one session with NVML: everything that is read of it, and what is counted over sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpu_exporter import metrics
from gpu_exporter.devices.busy import (
    LONGEST_GAP,
    WINDOW_SECONDS,
    BusyMeter,
    BusySource,
    Sample,
    Statistics,
    WindowMeter,
)
from gpu_exporter.devices.nvidia_calls import FIXED, LIVE, CallPlan, Values
from gpu_exporter.devices.nvidia_fields import FieldPlan, LinkPlan
from gpu_exporter.devices.nvidia_gpm import GpmMeter
from gpu_exporter.devices.nvidia_lists import ProcessList, UtilizationBuffer
from gpu_exporter.devices.nvidia_mig import MigMode, Slices
from gpu_exporter.devices.nvml import GpuLost, NoValue, Nvml
from gpu_exporter.metrics import Family
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, DownReason, Identity, ProcessUse, Reading

PROCESS_SECONDS = 5.0
"""The list of processes costs real drivers milliseconds a GPU, and changes when jobs come and go."""

HELD_SHARE = 0.01
"""Of a GPU's memory, in use without a process that the driver names, as in a container: more than what a GPU has in use
when nobody uses it, less than what a process holds that does nothing yet."""

_BUSY_FAMILIES = (metrics.BUSY, metrics.OBSERVED, metrics.IDLE_HELD, metrics.BUSY_SOURCE, metrics.UTILIZATION_WINDOW)
_BUSY_SOURCES = {source: Reading(metrics.BUSY_SOURCE, 1, (source.value,)) for source in BusySource}
_WINDOW_LENGTH = Reading(metrics.WINDOW_LENGTH, WINDOW_SECONDS)


class _Window:
    """The last window's statistics of one family."""

    def __init__(self, family: Family) -> None:
        self.meter = WindowMeter()
        self._family = family
        self._statistics: Statistics | None = None
        self._readings: tuple[Reading, ...] = ()

    def tell(self, values: Values, wall: float) -> None:
        statistics = self.meter.last(wall)
        if statistics is not self._statistics:
            self._statistics = statistics
            named = statistics._asdict().items() if statistics else ()
            self._readings = tuple([Reading(self._family, value, (name,)) for name, value in named])
        if self._readings:
            values.readings += self._readings
        else:
            values.absent[self._family] = AbsentReason.NOT_YET


class Meters:
    """What is counted of one GPU, over losses and sessions."""

    def __init__(self) -> None:
        self.busy = BusyMeter()
        self.utilization = _Window(metrics.UTILIZATION_WINDOW)
        self.power = _Window(metrics.POWER_WINDOW)
        self._power_at: float | None = None

    def add_power(self, now: float, wall: float, watts: float | None) -> None:
        since, self._power_at = self._power_at, None if watts is None else now
        if watts is not None and since is not None and now - since <= LONGEST_GAP:
            self.power.meter.add(wall, now - since, watts)


class Gpu:
    """A GPU that NVML has opened. `close` gives back what it holds of the driver's."""

    def __init__(self, nvml: Nvml, handle: Any, identity: Identity, meters: Meters) -> None:
        self.identity = identity
        self._nvml, self._handle, self._meters = nvml, handle, meters
        self._mig_mode = MigMode(nvml, handle)
        self._processes: tuple[ProcessUse, ...] | AbsentReason = ()
        self._has_buffer, self._held = True, False
        self._plan(mig=False)

    def _plan(self, mig: bool) -> None:
        """What a GPU can tell depends on its mode, so it is found out anew when that changes."""
        nvml, handle = self._nvml, self._handle
        self._fixed: Values | None = None
        self._fixed_plan = CallPlan(nvml, handle, FIXED)
        self._live_plan = CallPlan(nvml, handle, LIVE)
        self._fields = FieldPlan(nvml, handle, self.identity.driver_version)
        self._links = LinkPlan(nvml, handle)
        self._gpm = GpmMeter(nvml, handle)
        self._buffer = UtilizationBuffer(nvml, handle)
        self._process_list = ProcessList(nvml, handle)
        self._processes_at = -math.inf
        self._slices = Slices(nvml, handle, self.identity) if mig else None

    def close(self) -> None:
        self._gpm.close()
        if self._slices:
            self._slices.close()

    def read(self, now: float, wall: float) -> list[DeviceReading]:
        """This GPU, then its slices. `now` is monotonic, `wall` since 1970, both in seconds. Raises DriverGone."""
        try:
            mig = self._mig_mode.on()
            if mig != (self._slices is not None):
                self.close()
                self._plan(mig)
            return [self._read_whole(now, wall), *(self._slices.read(now) if self._slices else ())]
        except GpuLost:
            slices = self._slices.gone(DownReason.LOST) if self._slices else ()
            return [DeviceReading(self.identity, down=DownReason.LOST), *slices]

    def _read_whole(self, now: float, wall: float) -> DeviceReading:
        values, answered = self._read_calls()
        self._fields.carry_out(values)
        self._links.carry_out(values, now)
        self._gpm.carry_out(values, now)
        values.drop_halves()
        processes = self._read_processes(values, now)
        self._read_power(values, now, wall)
        self._read_busy(values, now, wall, bool(processes))
        if not answered and AbsentReason.ERROR in values.absent.values():
            return DeviceReading(self.identity, down=DownReason.ERROR)
        absences = tuple([Absence(family, reason) for family, reason in values.absent.items()])
        # In MIG mode processes stand with the slice that they run on.
        return DeviceReading(
            self.identity, tuple(values.readings), absences, processes=() if self._slices else processes
        )

    def _read_calls(self) -> tuple[Values, bool]:
        """The readings of the one-call families, and whether any that changes was answered."""
        fixed = self._fixed
        if fixed is None:
            fixed = Values()
            self._fixed_plan.carry_out(fixed)
            if AbsentReason.ERROR not in fixed.absent.values():
                self._fixed = fixed
        values = Values(list(fixed.readings), dict(fixed.absent))
        self._live_plan.carry_out(values)
        return values, len(values.readings) > len(fixed.readings)

    def _read_processes(self, values: Values, now: float) -> tuple[ProcessUse, ...]:
        if now - self._processes_at >= PROCESS_SECONDS:
            self._processes_at = now
            try:
                self._processes = self._process_list.read()
            except NoValue as error:
                self._processes = error.reason
        if isinstance(self._processes, AbsentReason):
            values.absent[metrics.PROCESSES] = self._processes
            return ()
        values.readings.append(Reading(metrics.PROCESSES, len(self._processes)))
        return self._processes

    def _read_power(self, values: Values, now: float, wall: float) -> None:
        watts = self._live_plan.last(metrics.POWER)
        self._meters.add_power(now, wall, watts)
        if watts is None:
            values.absent[metrics.POWER_WINDOW] = values.absent.get(metrics.POWER, AbsentReason.ERROR)
        else:
            self._meters.power.tell(values, wall)
        values.readings.append(_WINDOW_LENGTH)
        values.readings.append(Reading(metrics.WINDOW_END, math.floor(wall / WINDOW_SECONDS) * WINDOW_SECONDS))

    def _read_busy(self, values: Values, now: float, wall: float, has_processes: bool) -> None:
        meters, last = self._meters, self._live_plan.last
        ratio, used, total = last(metrics.UTILIZATION), last(metrics.MEMORY_USED), last(metrics.MEMORY_TOTAL)
        why_not = values.absent.get(metrics.UTILIZATION)
        # A GPU in MIG mode has no utilization: then the buffer of the whole GPU is not to be believed either.
        unsupported = why_not is AbsentReason.UNSUPPORTED
        samples = None if unsupported else self._buffer.newer_than(meters.busy.since)
        held = has_processes or (used is not None and total is not None and used > HELD_SHARE * total)
        self._has_buffer, self._held = samples is not None, held
        self._count(now, wall, samples, None if ratio is None else 100 * ratio)
        if samples is None and ratio is None:
            values.absent.update(dict.fromkeys(_BUSY_FAMILIES, why_not or AbsentReason.ERROR))
            return
        meters.utilization.tell(values, wall)
        values.readings.append(Reading(metrics.BUSY, meters.busy.busy))
        values.readings.append(Reading(metrics.OBSERVED, meters.busy.observed))
        values.readings.append(Reading(metrics.IDLE_HELD, meters.busy.idle_held))
        if meters.busy.source is BusySource.NONE:
            values.absent[metrics.BUSY_SOURCE] = AbsentReason.NOT_YET
        else:
            values.readings.append(_BUSY_SOURCES[meters.busy.source])

    def _count(self, now: float, wall: float, samples: Sequence[Sample] | None, percent: float | None) -> None:
        for piece in reversed(self._meters.busy.update(now, samples, percent, self._held)):
            self._meters.utilization.meter.add(wall - piece.age, piece.seconds, piece.percent / 100)

    @property
    def counts_by_gauge(self) -> bool:
        """Whether the busy time comes from the gauge, which has to be read more often than the rest."""
        return self._meters.busy.source is BusySource.GAUGE

    def sample(self, now: float, wall: float) -> None:
        """Read the utilization gauge alone, and count. What fails here is told by the next reading."""
        try:
            percent = float(self._nvml.call("nvmlDeviceGetUtilizationRates", self._handle).gpu)
        except (NoValue, GpuLost):
            return
        self._count(now, wall, () if self._has_buffer else None, percent)
