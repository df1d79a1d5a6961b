"""Counts Xid errors from NVML events, across restarts of the exporter.

A thread waits for events in its own NVML session, so that a reading never waits for it and the library is never
unmapped while in use. It restarts after a driver reload and when GPUs are added or removed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from ctypes import CDLL, Structure, byref, c_uint, c_ulonglong, c_void_p, create_string_buffer
from pathlib import Path

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_xid_codes import describe_xid
from gpu_exporter.devices.nvidia_xid_counts import XidCountFile, XidCounts
from gpu_exporter.devices.nvml import MAX_GPUS, TEXT_BYTES, TIMEOUT, absence_reason, decode_text, unmap_library
from gpu_exporter.snapshot import Absence, AbsenceReason, DeviceReading

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Timeout of one wait for events, and so about the time that `stop` takes."""

RETRY_SECONDS = 5.0
"""Delay after a failed wait: a lost GPU makes each wait fail."""

STOP_SECONDS = 1.5
"""How long `stop` waits for the thread; a hung driver may block it forever."""

MAX_XID = 9999
"""NVIDIA's highest Xid has three digits: a driver that reports a much higher one is wrong."""

_LIBRARY = "libnvidia-ml.so.1"
_XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError


class _EventsUnavailable(Exception):
    """Events are not available now."""

    def __init__(self, reason: AbsenceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Event(Structure):
    """nvmlEventData_t."""

    _fields_ = [
        ("device", c_void_p),
        ("type", c_ulonglong),
        ("data", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    ]


class _EventSession:
    """An NVML session registered for the Xid events of all GPUs."""

    def __init__(self, names: Mapping[int | None, str]) -> None:
        """`names` has the uuids of known GPUs by the address of their handle. Raises _EventsUnavailable."""
        self._names = names
        self.gpus: dict[str, AbsenceReason | None] = {}
        """uuid -> the reason why its Xids are not available; None if they are."""
        self._uuids: dict[int | None, str] = {}
        self._set = c_void_p()
        self._event = _Event()
        try:
            self._library = CDLL(_LIBRARY)
        except OSError as error:
            raise _EventsUnavailable(AbsenceReason.ERROR, str(error)) from error
        self._started = False
        try:
            self._check(self._library.nvmlInit_v2())
            self._started = True
            self._check(self._library.nvmlEventSetCreate(byref(self._set)))
            self._register_all()
        except (_EventsUnavailable, AttributeError) as error:  # AttributeError: the library lacks the function
            self.close()
            if isinstance(error, _EventsUnavailable):
                raise
            raise _EventsUnavailable(AbsenceReason.UNSUPPORTED, str(error)) from error

    def _check(self, code: int) -> None:
        if code:
            raise _EventsUnavailable(absence_reason(code), f"NVML error {code}")

    def _register_all(self) -> None:
        library, count = self._library, c_uint()
        self._check(library.nvmlDeviceGetCount_v2(byref(count)))
        for index in range(min(count.value, MAX_GPUS)):
            device = c_void_p()
            if library.nvmlDeviceGetHandleByIndex_v2(c_uint(index), byref(device)) or not device:
                continue  # lost; NvidiaDriver reports it
            name = self._names.get(device.value) or self._uuid(device)
            if not name:
                continue
            code = library.nvmlDeviceRegisterEvents(device, c_ulonglong(_XID_EVENT), self._set)
            self.gpus[name] = absence_reason(code) if code else None
            self._uuids[device.value] = name

    def _uuid(self, device: c_void_p) -> str:
        uuid = create_string_buffer(TEXT_BYTES)
        return "" if self._library.nvmlDeviceGetUUID(device, uuid, c_uint(len(uuid))) else decode_text(uuid.value)

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """(uuid, Xid) of the next event; None after a timeout. Raises _EventsUnavailable."""
        code = self._library.nvmlEventSetWait_v2(self._set, byref(self._event), c_uint(int(seconds * 1000)))
        if code == TIMEOUT:
            return None
        self._check(code)
        uuid, xid = self._uuids.get(self._event.device), self._event.data
        return (uuid, xid) if uuid and self._event.type == _XID_EVENT and 0 < xid <= MAX_XID else None

    def close(self) -> None:
        if self._set:
            self._library.nvmlEventSetFree(self._set)
        if self._started:
            self._library.nvmlShutdown()
        unmap_library(self._library._handle)


class XidListener:
    """Counts Xids by GPU and code while it is started; counts are kept. `wall` returns Unix time.

    With `state_file` counts survive a restart, also kill -9: what a page shows has been written. Xids that the driver
    reports while the exporter is down are lost.
    """

    def __init__(
        self,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        wall: Callable[[], float] = time.time,
        state_file: Path | None = None,
    ) -> None:
        self._poll, self._retry, self._wall = poll_seconds, retry_seconds, wall
        self._file = XidCountFile(state_file)
        self._stored: dict[str, XidCounts] | None = None
        self._is_stored = True
        self._counts: dict[str, XidCounts] = {}
        self._unavailable: dict[str, AbsenceReason] = {}
        self._unavailable_all: AbsenceReason = AbsenceReason.NOT_YET
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._restart = threading.Event()
        self._last_message = ""
        self._names: Mapping[int | None, str] = {}

    def start(self) -> None:
        """Start the thread unless it is running. Does not wait."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="nvidia-xid", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and unload the library. Waits for STOP_SECONDS at most."""
        self._stop.set()
        self._restart.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                log.warning("the NVIDIA driver hangs while waiting for events; its library stays mapped")
            else:
                self._thread = None

    def restart(self, names: Mapping[int | None, str] | None = None) -> None:
        """Register again, for the GPUs that are present now. `names` has their uuids by the address of their handle."""
        self._names = names or {}
        self._restart.set()

    def with_xids(self, device: DeviceReading) -> DeviceReading:
        """The reading with the Xids of this GPU added. Does not wait for the driver.

        A lost GPU has no values: its last Xid is in Prometheus and in the log.
        """
        uuid = device.identity.uuid
        with self._lock:
            xid_counts = self._counts.get(uuid)
            reason = self._unavailable.get(uuid, self._unavailable_all)
        if xid_counts is None:
            absence = Absence(metrics.XID_ERRORS, reason)
            return DeviceReading(
                device.identity, device.readings, (*device.absences, absence), device.down, device.processes
            )
        readings = (*device.readings, *xid_counts.readings)
        return DeviceReading(device.identity, readings, device.absences, device.down, device.processes)

    def _run(self, stop: threading.Event) -> None:
        while True:
            self._restart.clear()  # before `stop` is looked at, or its wake-up could be lost
            if stop.is_set():
                return
            try:
                self._listen(stop)
            except _EventsUnavailable as error:
                with self._lock:
                    self._unavailable_all = error.reason
                if str(error) != self._last_message:
                    log.info("no Xid events from the NVIDIA driver: %s", error)
                self._last_message = str(error)
                self._restart.wait(self._retry)

    def _listen(self, stop: threading.Event) -> None:
        if self._stored is None:
            self._stored = self._file.load()
        session = _EventSession(self._names)
        try:
            with self._lock:
                for uuid, reason in session.gpus.items():
                    if reason is None:
                        self._counts.setdefault(uuid, self._stored.get(uuid) or XidCounts())
                        self._unavailable.pop(uuid, None)
                    else:
                        self._unavailable[uuid] = reason
            while not stop.is_set() and not self._restart.is_set():
                event = session.wait(self._poll)
                self._last_message = ""
                if event:
                    self._count(*event)
                elif not self._is_stored:
                    self._store(self._counts)
        finally:
            session.close()

    def _count(self, uuid: str, xid: int) -> None:
        """Count an Xid: in the file first, so that no count on a page goes back after a kill."""
        log.warning("GPU %s: Xid %d (%s)", uuid, xid, describe_xid(xid).kind)
        counts = self._counts[uuid].with_xid(xid, self._wall())
        self._store({**self._counts, uuid: counts})
        with self._lock:
            self._counts[uuid] = counts

    def _store(self, counts: Mapping[str, XidCounts]) -> None:
        """Write these counts, and those of GPUs that are not present now."""
        self._is_stored = self._file.store({**(self._stored or {}), **counts})
