"""Xids: errors that the NVIDIA driver reports, heard through NVML's events and counted.

A thread of its own waits for events with its own hold on the library, so that a reading never waits for it and
the library is never unmapped under it. It begins anew when the driver was reloaded or GPUs came and went.
"""

from __future__ import annotations

import _ctypes
import logging
import threading
import time
from collections.abc import Callable
from ctypes import CDLL, Structure, byref, c_uint, c_ulonglong, c_void_p, create_string_buffer

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_xid_codes import FATAL, meaning
from gpu_exporter.devices.nvml import TIMEOUT, DriverGone, GpuLost, why
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, Reading

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""The longest that the thread stays in one wait, and so about how long it takes to stop."""

RETRY_SECONDS = 5.0
"""After a wait failed: a lost GPU fails each wait of the set that it is in."""

STOP_SECONDS = 1.0
"""How long `stop` waits for the thread; a hung driver may keep it for ever."""

_LIBRARY = "libnvidia-ml.so.1"
_XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError


class _Deaf(Exception):
    """There are no events to be had now."""

    def __init__(self, reason: AbsentReason, message: str) -> None:
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


class _Ear:
    """One session with NVML that hears the Xids of all GPUs."""

    def __init__(self) -> None:
        """Raises _Deaf."""
        self.gpus: dict[str, AbsentReason | None] = {}
        """By uuid, why its Xids cannot be heard."""
        self._uuids: dict[int | None, str] = {}
        self._set = c_void_p()
        self._event = _Event()
        try:
            self._library = CDLL(_LIBRARY)
        except OSError as error:
            raise _Deaf(AbsentReason.ERROR, str(error)) from error
        self._started = False
        try:
            self._check(self._library.nvmlInit_v2())
            self._started = True
            self._check(self._library.nvmlEventSetCreate(byref(self._set)))
            self._register_all()
        except (_Deaf, AttributeError) as error:  # AttributeError: a library without such a function
            self.close()
            if isinstance(error, _Deaf):
                raise
            raise _Deaf(AbsentReason.UNSUPPORTED, str(error)) from error

    def _check(self, code: int) -> None:
        reason = _reason(code) if code else None
        if reason is not None:
            raise _Deaf(reason, f"NVML error {code}")

    def _register_all(self) -> None:
        library, count = self._library, c_uint()
        self._check(library.nvmlDeviceGetCount_v2(byref(count)))
        for index in range(count.value):
            device, uuid = c_void_p(), create_string_buffer(96)
            if library.nvmlDeviceGetHandleByIndex_v2(c_uint(index), byref(device)):
                continue  # lost: it is said elsewhere
            if library.nvmlDeviceGetUUID(device, uuid, c_uint(len(uuid))):
                continue
            name = uuid.value.decode("ascii", "replace")
            code = library.nvmlDeviceRegisterEvents(device, c_ulonglong(_XID_EVENT), self._set)
            self.gpus[name] = _reason(code) if code else None
            self._uuids[device.value] = name

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """(uuid, Xid) of the next event; None after that time without one. Raises _Deaf."""
        code = self._library.nvmlEventSetWait_v2(self._set, byref(self._event), c_uint(int(seconds * 1000)))
        if code == TIMEOUT:
            return None
        self._check(code)
        uuid = self._uuids.get(self._event.device)
        return (uuid, self._event.data) if uuid and self._event.type == _XID_EVENT else None

    def close(self) -> None:
        if self._set:
            self._library.nvmlEventSetFree(self._set)
        if self._started:
            self._library.nvmlShutdown()
        _ctypes.dlclose(self._library._handle)


def _reason(code: int) -> AbsentReason:
    try:
        return why(code)
    except (GpuLost, DriverGone):
        return AbsentReason.ERROR


class _Heard:
    """The Xids of one GPU."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(FATAL, 0)
        self.last: dict[int, float] = {}
        self.readings: tuple[Reading, ...] = ()
        self._prepare()

    def add(self, xid: int, now: float) -> None:
        self.counts[xid] = self.counts.get(xid, 0) + 1
        self.last[xid] = now
        self._prepare()

    def _prepare(self) -> None:
        readings = [Reading(metrics.XID_ERRORS, count, (str(xid),)) for xid, count in sorted(self.counts.items())]
        for xid, at in sorted(self.last.items()):
            kind, action, _ = meaning(xid)
            readings.append(Reading(metrics.XID_LAST, at, (str(xid),)))
            readings.append(Reading(metrics.XID_INFO, 1, (str(xid), kind, action)))
        self.readings = tuple(readings)


class XidWatch:
    """Counts Xids by GPU and code while it is started; what was counted stays. `wall` gives seconds since 1970."""

    def __init__(
        self,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._poll, self._retry, self._wall = poll_seconds, retry_seconds, wall
        self._heard: dict[str, _Heard] = {}
        self._deaf: dict[str, AbsentReason] = {}
        self._deaf_to_all: AbsentReason = AbsentReason.NOT_YET
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._renew = threading.Event()
        self._said = ""

    def start(self) -> None:
        """Listen, if nobody does. Returns at once."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="nvidia-xid", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and let go of the library. Waits for STOP_SECONDS at most."""
        self._stop.set()
        self._renew.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                log.warning("the NVIDIA driver hangs in a wait for events, and so keeps its library mapped")
            else:
                self._thread = None

    def renew(self) -> None:
        """GPUs have come or gone: listen to those that are there now."""
        self._renew.set()

    def told(self, device: DeviceReading) -> DeviceReading:
        """The reading with what was heard of this GPU. Does not wait for the driver.

        A lost GPU has no values, so its last Xid is to be had from Prometheus, or from the log.
        """
        uuid = device.identity.uuid
        with self._lock:
            heard = self._heard.get(uuid)
            reason = self._deaf.get(uuid, self._deaf_to_all)
        if heard is None:
            absence = Absence(metrics.XID_ERRORS, reason)
            return DeviceReading(
                device.identity, device.readings, (*device.absences, absence), device.down, device.processes
            )
        readings = (*device.readings, *heard.readings)
        return DeviceReading(device.identity, readings, device.absences, device.down, device.processes)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._renew.clear()
            try:
                self._listen(stop)
            except _Deaf as error:
                with self._lock:
                    self._deaf_to_all = error.reason
                if str(error) != self._said:
                    log.info("no Xids are heard from the NVIDIA driver: %s", error)
                self._said = str(error)
                self._renew.wait(self._retry)

    def _listen(self, stop: threading.Event) -> None:
        ear = _Ear()
        try:
            with self._lock:
                for uuid, reason in ear.gpus.items():
                    if reason is None:
                        self._heard.setdefault(uuid, _Heard())
                        self._deaf.pop(uuid, None)
                    else:
                        self._deaf[uuid] = reason
            while not stop.is_set() and not self._renew.is_set():
                event = ear.wait(self._poll)
                self._said = ""
                if event:
                    uuid, xid = event
                    log.warning("GPU %s: Xid %d (%s)", uuid, xid, meaning(xid).kind)
                    with self._lock:
                        self._heard[uuid].add(xid, self._wall())
        finally:
            ear.close()
