"""MIG instances: each is exported as a GPU of its own, with the uuid of the whole GPU as `parent_uuid` in gpu_info.

An instance has memory, processes and, through GPM, activity and traffic. The whole GPU still has its metrics, including
memory, so do not sum over both: for totals select `parent_uuid=""`, for what jobs can use the GPUs that are no parent.
NVML reports no utilization for either: an instance lists it as absent. Board metrics (power, temperature, clocks) are
not listed for instances.

A GPU instance may be divided into compute instances, each of which NVML lists as a MIG device. They share memory and
counters: the first of them has these values, as in nvidia-smi, and the others list them as `shared`. Each has its own
processes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container
from contextlib import suppress
from ctypes import byref, c_uint
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_buffers import MAX_PROCESS_BYTES, ComputeProcesses
from gpu_exporter.devices.nvidia_call_plan import CallPlan
from gpu_exporter.devices.nvidia_calls import MEMORY_METRICS
from gpu_exporter.devices.nvidia_drivers import parse_version
from gpu_exporter.devices.nvidia_gpm import RATIO_METRICS, TRAFFIC_METRICS, GpmSampler
from gpu_exporter.devices.nvidia_identity import read_uuid
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    DriverUnloaded,
    GpuLost,
    NvmlSession,
    NvmlValueError,
    absence_reason,
    handle_address,
)
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
"""How often instances are listed; they are also listed at once if one is gone."""

_UNSUPPORTED_FAMILIES: tuple[MetricFamily, ...] = (
    metrics.UTILIZATION,
    metrics.BUSY_SECONDS_TOTAL,
    metrics.OBSERVED_SECONDS_TOTAL,
)

_SHARED_FAMILIES: tuple[MetricFamily, ...] = (
    *(line.family for line in MEMORY_METRICS),
    *(family for family, _ in (*RATIO_METRICS, *TRAFFIC_METRICS)),
)
"""What belongs to the GPU instance."""

UNSUPPORTED_INTERVAL_SECONDS = 60.0
"""How often a GPU without MIG mode is asked whether it has one."""

MAX_INSTANCES = 64
"""A driver that counts more instances of one GPU is wrong."""

MAX_PLACEMENT = 16
"""More memory slices than any GPU has: a larger number is none."""

MIB, GIB = 1024**2, 1024**3
MEMORY_SLICES = 8

_PROFILE = re.compile(r"MIG (\S+)")


def profile_gigabytes(instance_bytes: int, gpu_bytes: int) -> int:
    """The size in the name of a profile, which is not that of the memory: 79 GiB of an A100 of 80 GB are `7g.80gb`.

    It is the eighths of the GPU that the instance takes, of the GPU's size in whole gigabytes, as in NVIDIA's own tools
    (NVIDIA/go-nvlib, pkg/nvlib/device/mig_profile.go).
    """
    if not gpu_bytes:
        return round(instance_bytes / GIB)
    eighths = math.ceil(MEMORY_SLICES * instance_bytes / gpu_bytes)
    return math.floor(eighths / MEMORY_SLICES * math.ceil(gpu_bytes / GIB) + 0.5)


@dataclass
class _MigInstance:
    """A MIG device. `is_first`: of the compute instances of its GPU instance."""

    identity: DeviceIdentity
    handle: Any
    is_first: bool
    memory: CallPlan
    processes: ComputeProcesses
    gpm: GpmSampler | None

    @property
    def address(self) -> int | None:
        """Distinguishes an instance from an earlier one with the same uuid."""
        return handle_address(self.handle)

    @property
    def place(self) -> int:
        """The index in NVML's list."""
        return int(self.identity.index.partition(":")[2])

    def read(self, nvml: NvmlSession, now: float) -> DeviceReading:
        values = NvmlReadings()
        self.memory.execute(values)
        if values.only_errors and _uuid(nvml, self.handle) != self.identity.uuid:
            return DeviceReading(self.identity, down=DownReason.ERROR)
        values.absent.update(dict.fromkeys(_UNSUPPORTED_FAMILIES, AbsenceReason.UNSUPPORTED))
        if self.gpm is not None:
            self.gpm.execute(values, now)
        if not self.is_first:
            values.readings = []
            values.absent.update(dict.fromkeys(_SHARED_FAMILIES, AbsenceReason.SHARED))
        processes: tuple[GpuProcess, ...] = ()
        try:
            processes = self.processes.read(self.memory.last_value(metrics.MEMORY_TOTAL) or MAX_PROCESS_BYTES)
            values.readings.append(MetricReading(metrics.PROCESSES, len(processes)))
        except NvmlValueError as error:
            values.absent[metrics.PROCESSES] = error.reason
        absences = tuple(Absence(*item) for item in values.absent.items())
        return DeviceReading(self.identity, tuple(values.readings), absences, processes=processes)

    def close(self) -> None:
        if self.gpm is not None:
            self.gpm.close()


def _uuid(nvml: NvmlSession, handle: Any) -> str:
    """The uuid of a MIG device; empty if it was removed, or if it cannot be read."""
    try:
        return read_uuid(nvml, handle)
    except (NvmlValueError, GpuLost, DriverUnloaded):
        return ""


class MigMode:
    """Whether a GPU is in MIG mode, which can change at any time."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._get = nvml.function("nvmlDeviceGetMigMode")
        self._current = c_uint()
        self._arguments = (handle, byref(self._current), byref(c_uint()))
        self._last = False
        self._ask_at = -math.inf

    def is_enabled(self, now: float) -> bool:
        """Query it; the last known mode if the query fails, or if the answer is no mode. `now` is monotonic seconds.

        A GPU that has no MIG mode is rarely asked again.
        """
        if now < self._ask_at:
            return self._last
        code = self._get(*self._arguments)
        if code:
            unsupported = absence_reason(code) is AbsenceReason.UNSUPPORTED
            self._ask_at = now + UNSUPPORTED_INTERVAL_SECONDS if unsupported else now
        elif self._current.value in (0, 1):
            self._last = self._current.value == 1
        return self._last


class _Listed(NamedTuple):
    """A MIG device in NVML's list. The ids are None if they cannot be read."""

    place: int
    handle: Any
    gpu_instance: int | None
    compute_instance: int | None

    @property
    def order(self) -> tuple[int, int]:
        """The first compute instance of each GPU instance comes first."""
        return self.gpu_instance or 0, self.compute_instance or 0


class MigInstances:
    """The MIG instances of one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any, parent: DeviceIdentity) -> None:
        self._nvml, self._handle, self._parent = nvml, handle, parent
        self._instances: dict[str, _MigInstance] = {}
        self._listed_at: float | None = None

    def read(self, now: float) -> list[DeviceReading]:
        """All present instances. `now` is monotonic seconds."""
        if self._listed_at is None or now - self._listed_at >= LIST_INTERVAL_SECONDS:
            self._list(now)
        devices = [instance.read(self._nvml, now) for instance in self._instances.values()]
        if any(device.down for device in devices):
            self._listed_at = None  # list again at the next reading
        return devices

    def down_readings(self, reason: DownReason) -> list[DeviceReading]:
        """The instances while the whole GPU is down."""
        return [DeviceReading(mig_instance.identity, down=reason) for mig_instance in self._instances.values()]

    def close(self) -> None:
        for mig_instance in self._instances.values():
            mig_instance.close()
        self._instances = {}

    def _list(self, now: float) -> None:
        """List the instances. One that the driver fails to list stays: its own calls show whether it is there."""
        self._listed_at = now
        listed, unknown_places = self._list_devices()
        found = {uuid: known for uuid, known in self._instances.items() if known.place in unknown_places}
        gpu_instances = {known.identity.gpu_instance_id for known in found.values() if known.is_first}
        for device in sorted(listed, key=lambda device: device.order):
            uuid = _uuid(self._nvml, device.handle)
            if not uuid or uuid in (self._parent.uuid, *found):
                uuid = self._known_uuid(device.handle) or self._made_up_uuid(device)
            if not uuid or uuid in found:
                continue
            gpu_instance = "" if device.gpu_instance is None else str(device.gpu_instance)
            is_first = not gpu_instance or gpu_instance not in gpu_instances
            gpu_instances.add(gpu_instance)
            known = self._instances.get(uuid)
            same = known and known.address == handle_address(device.handle) and known.is_first == is_first
            found[uuid] = known if known and same else self._open(device, uuid, is_first)
        for uuid, mig_instance in self._instances.items():
            if found.get(uuid) is not mig_instance:
                mig_instance.close()
        self._instances = dict(sorted(found.items(), key=lambda item: item[1].place))

    def _list_devices(self) -> tuple[list[_Listed], Container[int]]:
        """The MIG devices, and the places in NVML's list of which nothing is known."""
        try:
            count: int = self._nvml.call("nvmlDeviceGetMaxMigDeviceCount", self._handle)
        except (NvmlValueError, GpuLost, DriverUnloaded):
            return [], range(MAX_INSTANCES)
        listed, unknown = [], set()
        for place in range(min(count, MAX_INSTANCES)):
            try:
                handle = self._nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, place)
            except (NvmlValueError, GpuLost, DriverUnloaded) as error:
                if not isinstance(error, NvmlValueError) or error.code not in (NOT_FOUND, INVALID_ARGUMENT):
                    unknown.add(place)
                continue
            if handle:
                gpu_instance = self._id("nvmlDeviceGetGpuInstanceId", handle)
                listed.append(_Listed(place, handle, gpu_instance, self._id("nvmlDeviceGetComputeInstanceId", handle)))
        return listed, unknown

    def _known_uuid(self, handle: Any) -> str:
        """The uuid that the device with this handle had; empty if it is new."""
        address = handle_address(handle)
        return next((uuid for uuid, known in self._instances.items() if known.address == address), "")

    def _made_up_uuid(self, device: _Listed) -> str:
        """A uuid from those of the GPU and the ids of the instance; empty if these cannot be read."""
        if device.gpu_instance is None or device.compute_instance is None:
            return ""
        return f"MIG-{self._parent.uuid}/{device.gpu_instance}/{device.compute_instance}"

    def _id(self, function: str, handle: Any) -> int | None:
        """The id of the GPU or compute instance; None if it cannot be read."""
        try:
            number: int = self._nvml.call(function, handle)
        except (NvmlValueError, GpuLost, DriverUnloaded):
            return None
        return number if number < MAX_INSTANCES else None

    def _placement(self, gpu_instance: int) -> str:
        """The first memory slice of the GPU instance, by which Kubernetes' DRA driver names it; empty if not known."""
        try:
            instance = self._nvml.call("nvmlDeviceGetGpuInstanceById", self._handle, gpu_instance)
            start: int = self._nvml.call("nvmlGpuInstanceGetInfo", instance).placement.start
        except (NvmlValueError, GpuLost, DriverUnloaded):
            return ""
        return str(start) if start < MAX_PLACEMENT else ""

    def _open(self, device: _Listed, uuid: str, is_first: bool) -> _MigInstance:
        handle, gpu_instance = device.handle, device.gpu_instance
        identity = replace(
            self._parent,
            uuid=uuid,
            index=f"{self._parent.index}:{device.place}",
            parent_uuid=self._parent.uuid,
            mig_profile=self._profile(handle),
            gpu_instance_id="" if gpu_instance is None else str(gpu_instance),
            mig_placement="" if gpu_instance is None else self._placement(gpu_instance),
        )
        version = parse_version(self._parent.driver_version)
        return _MigInstance(
            identity,
            handle,
            is_first,
            CallPlan(self._nvml, handle, MEMORY_METRICS),
            ComputeProcesses(self._nvml, handle, version, device.compute_instance),
            GpmSampler(self._nvml, self._handle, gpu_instance) if is_first and gpu_instance is not None else None,
        )

    def _profile(self, handle: Any) -> str:
        """NVIDIA's name of the profile, or else one from its attributes: not every driver has it in the device name."""
        with suppress(NvmlValueError, GpuLost, DriverUnloaded):
            found = _PROFILE.search(self._nvml.text("nvmlDeviceGetName", handle))
            if found:
                return found[1]
        try:
            attributes = self._nvml.call("nvmlDeviceGetAttributes_v2", handle)
            total: int = self._nvml.call("nvmlDeviceGetMemoryInfo", self._handle).total
        except (NvmlValueError, GpuLost, DriverUnloaded):
            return ""
        gpu_slices, compute_slices = attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount
        prefix = f"{compute_slices}c." if compute_slices != gpu_slices else ""
        return f"{prefix}{gpu_slices}g.{profile_gigabytes(attributes.memorySizeMB * MIB, total)}gb"
