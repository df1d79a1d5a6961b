"""NVIDIA GPUs through NVML: discovery, readings, and identities of lost GPUs.

The metrics are in tables in the modules beside this one: nvidia_calls (one function call each), nvidia_fields (field
values, batched), nvidia_gpm (activity between two samples), nvidia_xid (Xid errors), nvidia_mig (MIG instances).
nvidia_gpu combines them for one GPU. nvidia_drivers has what generations of drivers differ in, nvidia_families the
same for GPUs.

Any call may be missing, fail or return nonsense, without the GPU being down for it: only what most calls say is true.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from gpu_exporter.devices.base import DriverSettings, DriverUnavailable
from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.devices.meters import BusySource
from gpu_exporter.devices.nvidia_drivers import MINIMUM_VERSION, parse_version
from gpu_exporter.devices.nvidia_gpu import GpuMeters, NvidiaGpu
from gpu_exporter.devices.nvidia_identity import GpuProbe, made_up_uuid, name_gpus, probe_gpu
from gpu_exporter.devices.nvidia_xid import XidListener
from gpu_exporter.devices.nvml import (
    INVALID_ARGUMENT,
    MAX_GPUS,
    DriverUnloaded,
    GpuLost,
    NvmlSession,
    NvmlValueError,
    handle_address,
)
from gpu_exporter.devices.sysfs import machine_hash
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity, DeviceReading, DownReason, DriverState

log = logging.getLogger(__name__)

LOST_GPU_RETRY_SECONDS = 60.0
"""A lost GPU only comes back in a new session. Opening one is too slow for each reading."""

GAUGE_INTERVAL_SECONDS = 0.08
"""For GPUs without a sample buffer: two samples per shortest averaging period of drivers, 1/6 s, give a mean within one
percentage point (benchmarks/accuracy.py)."""


_NO_NEW_SESSION = (None, DownReason.NO_PERMISSION)
"""A new session helps neither a GPU that is up, nor one that the exporter may not open."""


class NvidiaDriver:
    """All NVIDIA GPUs of this machine.

    `state_file` keeps the identities of the GPUs across restarts, and a file beside it their Xid counts; None keeps
    both in memory only. `clock` returns
    monotonic seconds, `wall` Unix time. `xids` counts the Xid errors that the driver reports.
    """

    vendor = "nvidia"

    def __init__(
        self,
        state_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        xids: XidListener | None = None,
        settings: DriverSettings | None = None,
    ) -> None:
        settings = settings or DriverSettings()
        self._clock, self._wall = clock, wall
        self._sysfs, self._procfs = str(settings.sysfs), str(settings.procfs)
        xid_file = state_file.with_name(f"{state_file.stem}-xids.json") if state_file else None
        self._xids = xids or XidListener(wall=wall, state_file=xid_file)
        self._nvml: NvmlSession | None = None
        self._opened_at = 0.0
        self._count = 0
        self._version = ""
        self._probes: dict[int, GpuProbe] = {}
        self._gpus: dict[str, NvidiaGpu] = {}
        self._unopened: dict[int, DownReason] = {}
        self._listening: dict[int | None, str] = {}
        self._probed_at = 0.0
        self._inventory = DeviceInventory(state_file)
        self._meters: dict[str, GpuMeters] = {}
        self._driver_error = ""
        self._open_errors: dict[int, str] = {}

    @cached_property
    def _machine(self) -> str:
        return machine_hash(self._sysfs, self._procfs)

    @property
    def busy_sources(self) -> Mapping[str, BusySource]:
        """The source of each GPU's busy time, by uuid."""
        return {uuid: meters.busy.source for uuid, meters in self._meters.items()}

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs, including those lost since the start, each followed by its MIG instances.

        Raises DriverUnavailable until NVML has listed a GPU. After that, all GPUs are down while the driver is
        unavailable.
        """
        self._inventory.load()
        try:
            found = self._read_present(self._session())
        except DriverUnavailable as error:
            self.close()
            if not self._inventory:
                raise
            if str(error) != self._driver_error:
                log.warning("%s", error)
            self._driver_error = str(error)
            reason = DownReason.ERROR if error.state is DriverState.NO_PERMISSION else DownReason.DRIVER_GONE
            return tuple(DeviceReading(identity, down=reason) for identity in self._inventory)
        self._driver_error = ""
        self._inventory.store()
        missing = {identity.index for identity in self._inventory if identity.uuid not in found}
        known = (
            found.get(identity.uuid) or [DeviceReading(identity, down=self._missing_reason(identity))]
            for identity in self._inventory
        )
        readings = (*(device for devices in known for device in devices), *self._unopened_readings(missing))
        if self._session_is_old() and any(device.down not in _NO_NEW_SESSION for device in readings):
            self.close()
        return _distinct(readings)

    def sampling_interval_seconds(self) -> float | None:
        return GAUGE_INTERVAL_SECONDS if any(gpu.uses_gauge for gpu in self._gpus.values()) else None

    def sample(self) -> None:
        for gpu in self._gpus.values():
            if gpu.uses_gauge:
                gpu.sample(self._clock(), self._wall())

    def close(self) -> None:
        """Close the session and unmap NVML. Known GPUs and counters are kept.

        Waits for the Xid listener thread, a second and a half at most.
        """
        self._xids.stop()
        for gpu in self._gpus.values():
            gpu.close()
        self._gpus, self._probes, self._unopened, self._listening = {}, {}, {}, {}
        if self._nvml is not None:
            self._nvml.close()
        self._nvml = None

    def _session_is_old(self) -> bool:
        return self._clock() - self._opened_at > LOST_GPU_RETRY_SECONDS

    def _session(self) -> NvmlSession:
        """The open session, with all GPUs opened that can be. Raises DriverUnavailable."""
        if self._nvml is None:
            self._nvml = NvmlSession()
            self._opened_at = self._probed_at = self._clock()
            self._count = -1
        count = self._count_gpus(self._nvml)
        if count != self._count:
            self._version = self._driver_version(self._nvml)
            self._probes, self._unopened = {}, {}
            self._probe(self._nvml, range(count))
            self._count = count
        else:
            self._probe(self._nvml, self._to_probe())
        self._xids.start()
        return self._nvml

    def _count_gpus(self, nvml: NvmlSession) -> int:
        """The number of GPUs; the last one if it cannot be read, and GPUs are open: they show whether the driver works.

        Raises DriverUnavailable.
        """
        try:
            count: int = nvml.call("nvmlDeviceGetCount")
        except (NvmlValueError, GpuLost, DriverUnloaded) as error:
            if self._gpus:
                return self._count
            if isinstance(error, DriverUnloaded):
                raise
            refused = isinstance(error, NvmlValueError) and error.reason is AbsenceReason.NO_PERMISSION
            state = DriverState.NO_PERMISSION if refused else DriverState.FAILED
            raise DriverUnavailable(state, f"NVML cannot list the GPUs: {error}") from error
        if count <= MAX_GPUS:
            return count
        if self._gpus:
            return self._count
        raise DriverUnavailable(DriverState.FAILED, f"NVML counts {count} GPUs")

    def _driver_version(self, nvml: NvmlSession) -> str:
        try:
            version = nvml.text("nvmlSystemGetDriverVersion")
        except (NvmlValueError, GpuLost, DriverUnloaded) as error:
            log.info("the version of the NVIDIA driver is unknown: %s", error)
            return ""
        if () < parse_version(version) < MINIMUM_VERSION:
            minimum = ".".join(map(str, MINIMUM_VERSION))
            log.warning("NVIDIA driver %s is older than %s: some metrics may be absent", version, minimum)
        return version

    def _to_probe(self) -> list[int]:
        """The GPUs to try again: those that failed at each reading, the others once in a while."""
        failed = [index for index, reason in self._unopened.items() if reason not in _NO_NEW_SESSION]
        if self._clock() - self._probed_at <= LOST_GPU_RETRY_SECONDS:
            return failed
        self._probed_at = self._clock()
        return [index for index in range(self._count) if index not in self._probes or not self._probes[index].complete]

    def _probe(self, nvml: NvmlSession, indices: Sequence[int]) -> None:
        """Try to open these GPUs, and name all again if that changed anything. Raises DriverUnavailable.

        GPUs that are no longer listed stay until their own calls fail: a wrong count loses no GPU. It adds none either:
        an index that NVML calls invalid is no GPU.
        """
        opened = False
        for index in indices:
            try:
                self._probes[index] = probe_gpu(nvml, index)
            except (NvmlValueError, GpuLost, DriverUnloaded) as error:
                if isinstance(error, DriverUnloaded):
                    self._check_session(nvml)
                is_gpu = not isinstance(error, NvmlValueError) or error.code != INVALID_ARGUMENT
                if is_gpu and index not in self._probes:
                    self._unopened[index] = _down_reason(error)
                    self._log_open_error(index, error)
            else:
                self._unopened.pop(index, None)
                self._open_errors.pop(index, None)
                opened = True
        if opened:
            self._open_gpus(nvml)
        elif indices and not (self._gpus or self._unopened):
            raise DriverUnavailable(DriverState.FAILED, "NVML counts GPUs, but has a handle for none")

    def _log_open_error(self, index: int, error: Exception) -> None:
        """Log why a GPU cannot be opened, once."""
        if self._open_errors.get(index) != str(error):
            level = logging.INFO if self._unopened[index] is DownReason.NO_PERMISSION else logging.WARNING
            log.log(level, "GPU %d cannot be opened: %s", index, error)
        self._open_errors[index] = str(error)

    def _open_gpus(self, nvml: NvmlSession) -> None:
        probes = _distinct_handles(self._probes.values())
        open_gpus: dict[str, NvidiaGpu] = {}
        identities = name_gpus(probes, self._inventory, self._machine, self._version)
        for probe, identity in zip(probes, identities, strict=True):
            gpu = self._gpus.get(identity.uuid)
            if gpu is None or gpu.identity != identity or gpu.address != handle_address(probe.handle):
                meters = self._meters.setdefault(identity.uuid, GpuMeters())
                gpu = NvidiaGpu(nvml, probe.handle, identity, meters, self._procfs, self._sysfs)
            open_gpus[identity.uuid] = gpu
        kept_addresses = {gpu.address for gpu in open_gpus.values()}
        for uuid, gpu in self._gpus.items():
            if open_gpus.get(uuid) is gpu:
                continue
            if uuid in open_gpus or gpu.address in kept_addresses:
                gpu.close()
            else:
                open_gpus[uuid] = gpu
        self._gpus = open_gpus
        self._listen({gpu.address: uuid for uuid, gpu in open_gpus.items()})
        for uuid in self._inventory.remember([gpu.identity for gpu in self._gpus.values()]):
            self._meters.pop(uuid, None)

    def _listen(self, uuids: dict[int | None, str]) -> None:
        """Register for the Xids of these GPUs, by the address of their handle. Xids meanwhile are lost."""
        if uuids != self._listening:
            self._listening = uuids
            self._xids.restart(uuids)

    def _read_present(self, nvml: NvmlSession) -> dict[str, list[DeviceReading]]:
        """The readings of the open GPUs, by uuid. Raises DriverUnloaded if the session is dead."""
        found: dict[str, list[DeviceReading]] = {}
        for uuid, gpu in self._gpus.items():
            try:
                devices = gpu.read(self._clock(), self._wall())
            except DriverUnloaded:
                self._check_session(nvml)
                devices = [DeviceReading(gpu.identity, down=DownReason.ERROR)]
            if not devices[0].down:
                devices[0] = self._xids.with_xids(devices[0])
            found[uuid] = devices
        return found

    @staticmethod
    def _check_session(nvml: NvmlSession) -> None:
        """Raise DriverUnloaded if NVML as a whole says what one GPU does."""
        try:
            nvml.call("nvmlDeviceGetCount")
        except (NvmlValueError, GpuLost):
            return

    def _missing_reason(self, identity: DeviceIdentity) -> DownReason:
        """Why a known GPU is not open."""
        return self._unopened.get(int(identity.index), DownReason.LOST) if identity.index.isdigit() else DownReason.LOST

    def _unopened_readings(self, known_indices: set[str]) -> list[DeviceReading]:
        """GPUs that NVML counts but cannot open, and that were never read: only their index is known."""
        return [
            DeviceReading(
                DeviceIdentity(made_up_uuid(self._machine, str(index)), str(index), "", self.vendor), down=reason
            )
            for index, reason in self._unopened.items()
            if str(index) not in known_indices
        ]


def _distinct(devices: tuple[DeviceReading, ...]) -> tuple[DeviceReading, ...]:
    """The same readings, with the index added to a uuid that another device has, as a MIG instance that of its GPU."""
    if len({device.identity.uuid for device in devices}) == len(devices):
        return devices
    found: dict[str, DeviceReading] = {}
    for device in devices:
        identity = device.identity
        if identity.uuid in found:
            device = replace(device, identity=replace(identity, uuid=f"{identity.uuid}-{identity.index}"))
        found.setdefault(device.identity.uuid, device)
    return tuple(found.values())


def _down_reason(error: NvmlValueError | GpuLost | DriverUnloaded) -> DownReason:
    if isinstance(error, GpuLost):
        return DownReason.LOST
    refused = isinstance(error, NvmlValueError) and error.reason is AbsenceReason.NO_PERMISSION
    return DownReason.NO_PERMISSION if refused else DownReason.ERROR


def _distinct_handles(probes: Iterable[GpuProbe]) -> list[GpuProbe]:
    """The probes in the order of their index, without those whose handle is that of another GPU."""
    found: dict[int | None, GpuProbe] = {}
    for probe in sorted(probes, key=lambda probe: probe.index):
        found.setdefault(handle_address(probe.handle), probe)
    return list(found.values())
