"""Slices of a GPU in MIG mode: each is published as a GPU of its own whose `parent_uuid` in gpu_info is the whole one.

What a slice has is its own share: memory, processes, and through GPM activity and traffic. The whole GPU goes on to
publish what is true of all of it, memory included, so both must not be summed up: whoever wants totals sums over
`parent_uuid=""`, whoever wants what jobs can use sums over GPUs that are nobody's parent. NVML tells no utilization
of either; on a slice that is said, and what only a board has (power, temperature, clocks) is not mentioned.
"""

from __future__ import annotations

import re
from ctypes import byref, c_uint, c_void_p, cast
from dataclasses import dataclass
from typing import Any

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_buffers import ProcessList
from gpu_exporter.devices.nvidia_calls import MEMORY_METRICS, CallPlan, NvmlReadings
from gpu_exporter.devices.nvidia_gpm import GpmSampler
from gpu_exporter.devices.nvml import GpuLost, NvmlSession, NvmlValueError, absence_reason
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

LIST_INTERVAL_SECONDS = 5.0
"""Slices are made and removed by hand: they are looked for anew this often, and at once when one does not answer."""

_UNSUPPORTED_FAMILIES: tuple[MetricFamily, ...] = (
    metrics.UTILIZATION,
    metrics.BUSY_SECONDS_TOTAL,
    metrics.OBSERVED_SECONDS_TOTAL,
)

_PROFILE = re.compile(r"MIG (\S+)")


@dataclass
class _MigInstance:
    identity: DeviceIdentity
    address: int | None
    memory: CallPlan
    processes: ProcessList
    gpm: GpmSampler

    def read(self, now: float) -> DeviceReading:
        values = NvmlReadings()
        self.memory.carry_out(values)
        values.absent.update(dict.fromkeys(_UNSUPPORTED_FAMILIES, AbsenceReason.UNSUPPORTED))
        self.gpm.carry_out(values, now)
        processes: tuple[GpuProcess, ...] = ()
        try:
            processes = self.processes.read()
            values.readings.append(MetricReading(metrics.PROCESSES, len(processes)))
        except NvmlValueError as error:
            values.absent[metrics.PROCESSES] = error.reason
        absences = tuple(Absence(*item) for item in values.absent.items())
        return DeviceReading(self.identity, tuple(values.readings), absences, processes=processes)


class MigMode:
    """Whether a GPU is in MIG mode, asked for at each reading: it can be switched at any time."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetMigMode")
        self._current = c_uint()
        self._arguments = (handle, byref(self._current), byref(c_uint()))
        self._last = self._unsupported = False

    def is_enabled(self) -> bool:
        """As it was last time if it cannot be told. Raises GpuLost or DriverGone."""
        if self._unsupported:
            return False
        code = self._get(*self._arguments)
        if code:
            self._unsupported = absence_reason(code) is AbsenceReason.UNSUPPORTED
        else:
            self._last = self._current.value == 1
        return self._last


def _handle_address(handle: Any) -> int | None:
    """A slice that was removed and made again may have its uuid back, but is another one."""
    return cast(handle, c_void_p).value


class MigInstances:
    """The slices of one GPU in MIG mode."""

    def __init__(self, nvml: NvmlSession, handle: Any, parent: DeviceIdentity) -> None:
        self._nvml, self._handle, self._parent = nvml, handle, parent
        self._instances: dict[str, _MigInstance] = {}
        self._listed_at: float | None = None

    def read(self, now: float) -> list[DeviceReading]:
        """All slices that are there. `now` is monotonic, in seconds. Raises GpuLost or DriverGone."""
        if self._listed_at is None or now - self._listed_at >= LIST_INTERVAL_SECONDS:
            self._list(now)
        try:
            return self._read(now)
        except GpuLost:  # of a slice: it was removed, unless the whole GPU is lost, which listing finds out
            self._list(now)
            return self._read(now)

    def _read(self, now: float) -> list[DeviceReading]:
        devices = []
        for mig_instance in self._instances.values():
            device = mig_instance.read(now)
            if any(reading.family is metrics.MEMORY_TOTAL for reading in device.readings):
                devices.append(device)
            else:
                self._listed_at = None  # it answers no more: the next reading looks for it
                devices.append(device.gone(DownReason.ERROR))
        return devices

    def gone(self, reason: DownReason) -> list[DeviceReading]:
        """The slices while the whole GPU is down."""
        return [DeviceReading(mig_instance.identity, down=reason) for mig_instance in self._instances.values()]

    def close(self) -> None:
        for mig_instance in self._instances.values():
            mig_instance.gpm.close()
        self._instances = {}

    def _list(self, now: float) -> None:
        found: dict[str, _MigInstance] = {}
        for index in range(self._max_instances()):
            try:
                handle = self._nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, index)
                uuid = self._nvml.call("nvmlDeviceGetUUID", handle)
                known = self._instances.get(uuid)
                same = known is not None and known.address == _handle_address(handle)
                found[uuid] = known if known and same else self._open(handle, uuid, index)
            except NvmlValueError:
                continue  # places are left free between slices
        for uuid, mig_instance in self._instances.items():
            if found.get(uuid) is not mig_instance:
                mig_instance.gpm.close()
        self._instances = found
        self._listed_at = now

    def _max_instances(self) -> int:
        try:
            places: int = self._nvml.call("nvmlDeviceGetMaxMigDeviceCount", self._handle)
        except NvmlValueError:
            return 0
        return places

    def _open(self, handle: Any, uuid: str, index: int) -> _MigInstance:
        name = self._nvml.call("nvmlDeviceGetName", handle)
        profile = _PROFILE.search(name)
        identity = DeviceIdentity(
            uuid=uuid,
            index=f"{self._parent.index}:{index}",
            name=self._parent.name,
            vendor=self._parent.vendor,
            pci_bus_id=self._parent.pci_bus_id,
            driver_version=self._parent.driver_version,
            parent_uuid=self._parent.uuid,
            mig_profile=profile[1] if profile else self._profile(handle),
        )
        instance = self._nvml.call("nvmlDeviceGetGpuInstanceId", handle)
        return _MigInstance(
            identity,
            _handle_address(handle),
            CallPlan(self._nvml, handle, MEMORY_METRICS),
            ProcessList(self._nvml, handle),
            GpmSampler(self._nvml, self._handle, instance),
        )

    def _profile(self, handle: Any) -> str:
        """As NVIDIA spells it, from the slice's measures: not every driver has it in the name."""
        attributes = self._nvml.call("nvmlDeviceGetAttributes_v2", handle)
        return f"{attributes.gpuInstanceSliceCount}g.{round(attributes.memorySizeMB / 1024)}gb"
