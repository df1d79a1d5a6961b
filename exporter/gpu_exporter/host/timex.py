"""State of the kernel's clock: offset, errors and frequency, as the kernel's NTP code has them.

Units: adjtimex(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from gpu_exporter.host.base import HostSettings
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType, single_sample


def _timex_family(name: str, help_: str, type_: MetricType = "gauge") -> MetricFamily:
    return MetricFamily(f"node_timex_{name}", type_, help_)


SYNC_STATUS = _timex_family("sync_status", "1 if the clock is synchronized with a reliable server, else 0.")
OFFSET = _timex_family("offset_seconds", "Offset between the system clock and the reference clock.")
FREQUENCY = _timex_family("frequency_adjustment_ratio", "Adjustment of the clock's frequency; 1 if there is none.")
MAX_ERROR = _timex_family("maxerror_seconds", "Maximum error.")
ESTIMATED_ERROR = _timex_family("estimated_error_seconds", "Estimated error.")
STATUS = _timex_family("status", "Bits of the clock's status.")
CONSTANT = _timex_family("loop_time_constant", "Time constant of the phase-locked loop.")
TICK = _timex_family("tick_seconds", "Time between two ticks of the clock.")
PPS_FREQUENCY = _timex_family("pps_frequency_hertz", "Frequency of the pulse-per-second signal.")
PPS_JITTER = _timex_family("pps_jitter_seconds", "Jitter of the pulse-per-second signal.")
PPS_SHIFT = _timex_family("pps_shift_seconds", "Interval of the pulse-per-second signal.")
PPS_STABILITY = _timex_family(
    "pps_stability_hertz", "Mean of the last frequency changes of the pulse-per-second signal."
)
PPS_JITTER_EXCEEDED = _timex_family("pps_jitter_total", "Pulses whose jitter exceeded the limit.", "counter")
PPS_CALIBRATIONS = _timex_family("pps_calibration_total", "Calibration intervals.", "counter")
PPS_ERRORS = _timex_family("pps_error_total", "Calibration errors.", "counter")
PPS_STABILITY_EXCEEDED = _timex_family(
    "pps_stability_exceeded_total", "Pulses whose stability exceeded the limit.", "counter"
)
TAI_OFFSET = _timex_family("tai_offset_seconds", "Offset of International Atomic Time (TAI).")

#: Return value of adjtimex(): the clock is not synchronized.
TIME_ERROR = 5
#: Bit of the status: the unit of offset and jitter is nanoseconds instead of microseconds.
STA_NANO = 0x2000
MICROSECONDS = 1e-6
NANOSECONDS = 1e-9
#: Frequencies are in parts per million with 16 binary places.
PARTS_PER_MILLION = 1 / (1e6 * 2**16)


class Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h>. No mode: nothing is changed, and no privilege is needed."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("frequency", ctypes.c_long),
        ("max_error", ctypes.c_long), ("estimated_error", ctypes.c_long), ("status", ctypes.c_int),
        ("constant", ctypes.c_long), ("precision", ctypes.c_long), ("tolerance", ctypes.c_long),
        ("time_seconds", ctypes.c_long), ("time_microseconds", ctypes.c_long), ("tick", ctypes.c_long),
        ("pps_frequency", ctypes.c_long), ("jitter", ctypes.c_long), ("shift", ctypes.c_int),
        ("stability", ctypes.c_long), ("jitter_exceeded", ctypes.c_long), ("calibrations", ctypes.c_long),
        ("errors", ctypes.c_long), ("stability_exceeded", ctypes.c_long), ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    )  # fmt: skip


def adjtimex(timex: Timex) -> int:
    """Fill in the state of the clock. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = int(libc.adjtimex(ctypes.byref(timex)))
    if state < 0:
        raise OSError(ctypes.get_errno(), f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return state


class TimexCollector:
    def __init__(self, settings: HostSettings, call: Callable[[Timex], int] = adjtimex) -> None:
        self._call = call

    def collect(self) -> list[FamilySamples]:
        """One sample per family; empty where a container's seccomp profile forbids the call. Raises OSError."""
        timex = Timex()
        try:
            state = self._call(timex)
        except PermissionError:
            return []
        fraction = NANOSECONDS if timex.status & STA_NANO else MICROSECONDS
        values = (
            (SYNC_STATUS, float(state != TIME_ERROR)),
            (OFFSET, timex.offset * fraction),
            (FREQUENCY, 1 + timex.frequency * PARTS_PER_MILLION),
            (MAX_ERROR, timex.max_error * MICROSECONDS),
            (ESTIMATED_ERROR, timex.estimated_error * MICROSECONDS),
            (STATUS, timex.status),
            (CONSTANT, timex.constant),
            (TICK, timex.tick * MICROSECONDS),
            (PPS_FREQUENCY, timex.pps_frequency * PARTS_PER_MILLION),
            (PPS_JITTER, timex.jitter * fraction),
            (PPS_SHIFT, timex.shift),
            (PPS_STABILITY, timex.stability * PARTS_PER_MILLION),
            (PPS_JITTER_EXCEEDED, timex.jitter_exceeded),
            (PPS_CALIBRATIONS, timex.calibrations),
            (PPS_ERRORS, timex.errors),
            (PPS_STABILITY_EXCEEDED, timex.stability_exceeded),
            (TAI_OFFSET, timex.tai),
        )
        return [single_sample(family, float(value)) for family, value in values]
