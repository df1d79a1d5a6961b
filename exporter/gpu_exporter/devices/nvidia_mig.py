"""MIG instances: each is exported as a GPU of its own, with the uuid of the whole GPU as `parent_uuid` in gpu_info.

An instance has memory, processes and, through GPM, activity and traffic. The whole GPU still has its metrics, including
memory, so do not sum over both: for totals select `parent_uuid=""`, for what jobs can use the GPUs that are no parent.
NVML reports no utilization for either: an instance lists it as absent. Board metrics (power, temperature, clocks) are
not listed for instances.
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
"""How often instances are listed; they are also listed at once if one fails."""

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
        self.memory.execute(values)
        values.absent.update(dict.fromkeys(_UNSUPPORTED_FAMILIES, AbsenceReason.UNSUPPORTED))
        self.gpm.execute(values, now)
        processes: tuple[GpuProcess, ...] = ()
        try:
            processes = self.processes.read()
            values.readings.append(MetricReading(metrics.PROCESSES, len(processes)))
        except NvmlValueError as error:
            values.absent[metrics.PROCESSES] = error.reason
        absences = tuple(Absence(*item) for item in values.absent.items())
        return DeviceReading(self.identity, tuple(values.readings), absences, processes=processes)


class MigMode:
    """Whether a GPU is in MIG mode, which can change at any time."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetMigMode")
        self._current = c_uint()
        self._arguments = (handle, byref(self._current), byref(c_uint()))
        self._last = self._unsupported = False

    def is_enabled(self) -> bool:
        """Query it; the last known mode if the query fails. Raises GpuLost or DriverUnloaded."""
        if self._unsupported:
            return False
        code = self._get(*self._arguments)
        if code:
            self._unsupported = absence_reason(code) is AbsenceReason.UNSUPPORTED
        else:
            self._last = self._current.value == 1
        return self._last


def _handle_address(handle: Any) -> int | None:
    """Distinguishes an instance from an earlier one with the same uuid."""
    return cast(handle, c_void_p).value


class MigInstances:
    """The MIG instances of one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any, parent: DeviceIdentity) -> None:
        self._nvml, self._handle, self._parent = nvml, handle, parent
        self._instances: dict[str, _MigInstance] = {}
        self._listed_at: float | None = None

    def read(self, now: float) -> list[DeviceReading]:
        """All present instances. `now` is monotonic seconds. Raises GpuLost or DriverUnloaded."""
        if self._listed_at is None or now - self._listed_at >= LIST_INTERVAL_SECONDS:
            self._list(now)
        try:
            return self._read(now)
        except GpuLost:  # the instance was removed; if the whole GPU is lost, _list raises
            self._list(now)
            return self._read(now)

    def _read(self, now: float) -> list[DeviceReading]:
        devices = []
        for mig_instance in self._instances.values():
            device = mig_instance.read(now)
            if any(reading.family is metrics.MEMORY_TOTAL for reading in device.readings):
                devices.append(device)
            else:
                self._listed_at = None  # list again at the next reading
                devices.append(device.as_down(DownReason.ERROR))
        return devices

    def down_readings(self, reason: DownReason) -> list[DeviceReading]:
        """The instances while the whole GPU is down."""
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
                continue  # indices between instances may be unused
        for uuid, mig_instance in self._instances.items():
            if found.get(uuid) is not mig_instance:
                mig_instance.gpm.close()
        self._instances = found
        self._listed_at = now

    def _max_instances(self) -> int:
        try:
            count: int = self._nvml.call("nvmlDeviceGetMaxMigDeviceCount", self._handle)
        except NvmlValueError:
            return 0
        return count

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
        """NVIDIA's name of the profile, from its attributes: not every driver has it in the device name."""
        attributes = self._nvml.call("nvmlDeviceGetAttributes_v2", handle)
        return f"{attributes.gpuInstanceSliceCount}g.{round(attributes.memorySizeMB / 1024)}gb"
