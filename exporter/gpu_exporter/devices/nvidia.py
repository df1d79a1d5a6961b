"""NVIDIA GPUs through NVML: discovery, readings, and identities of lost GPUs.

The metrics are in tables in the modules beside this one: nvidia_calls (one function call each), nvidia_fields (field
values, batched), nvidia_gpm (activity between two samples), nvidia_xid (Xid errors), nvidia_mig (MIG instances).
nvidia_gpu combines them for one GPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.devices.meters import BusySource
from gpu_exporter.devices.nvidia_gpu import GpuMeters, NvidiaGpu
from gpu_exporter.devices.nvidia_xid import XidListener
from gpu_exporter.devices.nvml import GpuLost, NvmlSession, NvmlValueError
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity, DeviceReading, DownReason, DriverState

log = logging.getLogger(__name__)

LOST_GPU_RETRY_SECONDS = 60.0
"""A lost GPU only comes back in a new session. Opening one is too slow for each reading."""

GAUGE_INTERVAL_SECONDS = 0.08
"""For GPUs without a sample buffer: two samples per shortest averaging period of drivers, 1/6 s, give a mean within one
percentage point (benchmarks/accuracy.py)."""


class NvidiaDriver:
    """All NVIDIA GPUs of this machine.

    `state_file` keeps the identities of the GPUs across restarts; None keeps them in memory only. `clock` returns
    monotonic seconds, `wall` Unix time. `xids` counts the Xid errors that the driver reports.
    """

    vendor = "nvidia"

    def __init__(
        self,
        state_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        xids: XidListener | None = None,
    ) -> None:
        self._clock, self._wall = clock, wall
        self._xids = xids or XidListener(wall=wall)
        self._nvml: NvmlSession | None = None
        self._opened_at = 0.0
        self._count = 0
        self._version = ""
        self._gpus: dict[int, NvidiaGpu] = {}
        self._unopened: dict[int, DownReason] = {}
        self._inventory = DeviceInventory(state_file)
        self._meters: dict[str, GpuMeters] = {}
        self._driver_missing = False

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
            if not self._driver_missing:
                log.warning("%s", error)
            self._driver_missing = True
            reason = DownReason.ERROR if error.state is DriverState.NO_PERMISSION else DownReason.DRIVER_GONE
            return tuple(DeviceReading(identity, down=reason) for identity in self._inventory)
        self._driver_missing = False
        missing = [identity for identity in self._inventory if identity.uuid not in found]
        unknown = self._unopened_readings({identity.index for identity in missing})
        if (missing or unknown or any(devices[0].down for devices in found.values())) and self._session_is_old():
            self.close()
        known = (
            found.get(device_identity.uuid) or [DeviceReading(device_identity, down=DownReason.LOST)]
            for device_identity in self._inventory
        )
        return (*(device for devices in known for device in devices), *unknown)

    def sampling_interval_seconds(self) -> float | None:
        return GAUGE_INTERVAL_SECONDS if any(gpu.uses_gauge for gpu in self._gpus.values()) else None

    def sample(self) -> None:
        for gpu in self._gpus.values():
            if gpu.uses_gauge:
                gpu.sample(self._clock(), self._wall())

    def close(self) -> None:
        """Close the session and unmap NVML. Known GPUs and counters are kept.

        Waits up to a second for the Xid listener thread.
        """
        self._xids.stop()
        self._close_gpus()
        if self._nvml is not None:
            self._nvml.close()
        self._nvml = None

    def _close_gpus(self) -> None:
        for gpu in self._gpus.values():
            gpu.close()
        self._gpus = {}

    def _session_is_old(self) -> bool:
        return self._clock() - self._opened_at > LOST_GPU_RETRY_SECONDS

    def _session(self) -> NvmlSession:
        if self._nvml is None:
            self._nvml = NvmlSession()
            self._opened_at = self._clock()
            self._count = -1
        try:
            count = self._nvml.call("nvmlDeviceGetCount")
            if count != self._count:
                self._version = self._nvml.call("nvmlSystemGetDriverVersion")
                self._close_gpus()
                self._unopened = {}
                self._open_gpus(self._nvml, range(count))
                self._count = count
            elif self._unopened:
                self._open_gpus(self._nvml, self._unopened)
        except (NvmlValueError, GpuLost) as error:
            refused = isinstance(error, NvmlValueError) and error.reason is AbsenceReason.NO_PERMISSION
            state = DriverState.NO_PERMISSION if refused else DriverState.FAILED
            raise DriverUnavailable(state, f"NVML cannot list the GPUs: {error}") from error
        self._xids.start()
        return self._nvml

    def _open_gpus(self, nvml: NvmlSession, indices: Iterable[int]) -> None:
        opened = False
        for index in tuple(indices):
            try:
                self._gpus[index] = self._open(nvml, index)
            except GpuLost:
                self._unopened[index] = DownReason.LOST
            except NvmlValueError:
                self._unopened[index] = DownReason.ERROR
            else:
                self._unopened.pop(index, None)
                opened = True
        if opened:
            self._xids.restart()
            for uuid in self._inventory.remember([gpu.identity for gpu in self._gpus.values()]):
                self._meters.pop(uuid, None)

    def _open(self, nvml: NvmlSession, index: int) -> NvidiaGpu:
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
        identity = DeviceIdentity(
            uuid=nvml.call("nvmlDeviceGetUUID", handle),
            index=str(index),
            name=nvml.call("nvmlDeviceGetName", handle),
            vendor=self.vendor,
            pci_bus_id=nvml.pci_bus_id(handle),
            driver_version=self._version,
        )
        return NvidiaGpu(nvml, handle, identity, self._meters.setdefault(identity.uuid, GpuMeters()))

    def _read_present(self, nvml: NvmlSession) -> dict[str, list[DeviceReading]]:
        found: dict[str, list[DeviceReading]] = {}
        for _, gpu in sorted(self._gpus.items()):
            devices = gpu.read(self._clock(), self._wall())
            if not devices[0].down:
                devices[0] = self._xids.with_xids(devices[0])
            found[gpu.identity.uuid] = devices
        return found

    def _unopened_readings(self, known_indices: set[str]) -> list[DeviceReading]:
        """GPUs that NVML counts but cannot open, and that were never read: only their index is known."""
        return [
            DeviceReading(DeviceIdentity(f"nvidia-index-{index}", str(index), "", self.vendor), down=reason)
            for index, reason in self._unopened.items()
            if str(index) not in known_indices
        ]
