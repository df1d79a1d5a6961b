"""NVIDIA GPUs through NVML: finds them, reads each, and remembers those that get lost.

What is read stands in tables beside this file: nvidia_calls (one call, one answer), nvidia_fields (many field values in
one call), nvidia_gpm (activity between two samples), nvidia_xid (errors that the driver reports), nvidia_mig (slices).
nvidia_gpu puts them together for one GPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.busy import BusySource
from gpu_exporter.devices.nvidia_gpu import Gpu, Meters
from gpu_exporter.devices.nvidia_xid import XidWatch
from gpu_exporter.devices.nvml import GpuLost, NoValue, Nvml
from gpu_exporter.devices.roster import Roster
from gpu_exporter.snapshot import AbsentReason, DeviceReading, DownReason, DriverState, Identity

log = logging.getLogger(__name__)

RETRY_LOST_SECONDS = 60.0
"""A lost GPU comes back only to a new session. Opening one is slow: not at every read."""


GAUGE_SECONDS = 0.08
"""Where a GPU keeps no sample buffer: twice in the shortest period over which drivers average, 1/6 s, for a mean that
is right within a percentage point (benchmarks/accuracy.py)."""


class NvidiaDriver:
    """All NVIDIA GPUs of this machine.

    `state_file` keeps the identities of the GPUs over a restart of the exporter; None keeps them in memory only.
    `clock` gives monotonic seconds, `wall` seconds since 1970. `xids` listens for the errors that the driver reports.
    """

    vendor = "nvidia"

    def __init__(
        self,
        state_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        xids: XidWatch | None = None,
    ) -> None:
        self._clock, self._wall = clock, wall
        self._xids = xids or XidWatch(wall=wall)
        self._nvml: Nvml | None = None
        self._opened_at = 0.0
        self._count = 0
        self._version = ""
        self._gpus: dict[int, Gpu] = {}
        self._closed: dict[int, DownReason] = {}
        self._roster = Roster(state_file)
        self._meters: dict[str, Meters] = {}
        self._gone = False

    @property
    def busy_sources(self) -> Mapping[str, BusySource]:
        """Where the busy time of each GPU comes from, by uuid."""
        return {uuid: meters.busy.source for uuid, meters in self._meters.items()}

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs, those lost since the start included, and after each the slices of it.

        Raises DriverUnavailable while NVML has never worked. After that a driver that went away is
        a reason why the GPUs are down, not a reason to forget them.
        """
        self._roster.load()
        try:
            found = self._read_present(self._session())
        except DriverUnavailable as error:
            self.close()
            if not self._roster:
                raise
            if not self._gone:
                log.warning("%s", error)
            self._gone = True
            reason = DownReason.ERROR if error.state is DriverState.NO_PERMISSION else DownReason.DRIVER_GONE
            return tuple(DeviceReading(identity, down=reason) for identity in self._roster)
        self._gone = False
        missing = [identity for identity in self._roster if identity.uuid not in found]
        unknown = self._never_seen({identity.index for identity in missing})
        if (missing or unknown or any(devices[0].down for devices in found.values())) and self._session_is_old():
            self.close()
        known = (found.get(who.uuid) or [DeviceReading(who, down=DownReason.LOST)] for who in self._roster)
        return (*(device for devices in known for device in devices), *unknown)

    def sampling_seconds(self) -> float | None:
        return GAUGE_SECONDS if any(gpu.counts_by_gauge for gpu in self._gpus.values()) else None

    def sample(self) -> None:
        for gpu in self._gpus.values():
            if gpu.counts_by_gauge:
                gpu.sample(self._clock(), self._wall())

    def close(self) -> None:
        """End the session and unmap NVML. What was seen is remembered, what was counted goes on.

        Waits up to a second for the thread that listens for Xids.
        """
        self._xids.stop()
        self._let_go()
        if self._nvml is not None:
            self._nvml.close()
        self._nvml = None

    def _let_go(self) -> None:
        for gpu in self._gpus.values():
            gpu.close()
        self._gpus = {}

    def _session_is_old(self) -> bool:
        return self._clock() - self._opened_at > RETRY_LOST_SECONDS

    def _session(self) -> Nvml:
        if self._nvml is None:
            self._nvml = Nvml()
            self._opened_at = self._clock()
            self._count = -1
        try:
            count = self._nvml.call("nvmlDeviceGetCount")
            if count != self._count:
                self._version = self._nvml.call("nvmlSystemGetDriverVersion")
                self._let_go()
                self._closed = {}
                self._open_all(self._nvml, range(count))
                self._count = count
            elif self._closed:
                self._open_all(self._nvml, self._closed)
        except (NoValue, GpuLost) as error:
            refused = isinstance(error, NoValue) and error.reason is AbsentReason.NO_PERMISSION
            state = DriverState.NO_PERMISSION if refused else DriverState.FAILED
            raise DriverUnavailable(state, f"NVML does not list the GPUs: {error}") from error
        self._xids.start()
        return self._nvml

    def _open_all(self, nvml: Nvml, indices: Iterable[int]) -> None:
        opened = False
        for index in tuple(indices):
            try:
                self._gpus[index] = self._open(nvml, index)
            except GpuLost:
                self._closed[index] = DownReason.LOST
            except NoValue:
                self._closed[index] = DownReason.ERROR
            else:
                self._closed.pop(index, None)
                opened = True
        if opened:
            self._xids.renew()
            for uuid in self._roster.see([gpu.identity for gpu in self._gpus.values()]):
                self._meters.pop(uuid, None)

    def _open(self, nvml: Nvml, index: int) -> Gpu:
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
        identity = Identity(
            uuid=nvml.call("nvmlDeviceGetUUID", handle),
            index=str(index),
            name=nvml.call("nvmlDeviceGetName", handle),
            vendor=self.vendor,
            pci_bus_id=nvml.pci_bus_id(handle),
            driver_version=self._version,
        )
        return Gpu(nvml, handle, identity, self._meters.setdefault(identity.uuid, Meters()))

    def _read_present(self, nvml: Nvml) -> dict[str, list[DeviceReading]]:
        found: dict[str, list[DeviceReading]] = {}
        for _, gpu in sorted(self._gpus.items()):
            devices = gpu.read(self._clock(), self._wall())
            if not devices[0].down:
                devices[0] = self._xids.told(devices[0])
            found[gpu.identity.uuid] = devices
        return found

    def _never_seen(self, explained: set[str]) -> list[DeviceReading]:
        """GPUs that NVML counts but does not open, and that we never saw: all we know of them is the index."""
        return [
            DeviceReading(Identity(f"nvidia-index-{index}", str(index), "", self.vendor), down=reason)
            for index, reason in self._closed.items()
            if str(index) not in explained
        ]
