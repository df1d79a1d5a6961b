"""Metrics that come from NVML field values, as a table; one call per GPU reads them all.

To add a metric, add a line to `FIELD_METRICS`. The first reading of a session finds out which fields the GPU supports;
later ones request only these. Units are those of nvml.h: violation times in ns, NVLink throughput in KiB, NVLink5 and
PCIe counts in bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from ctypes import byref, c_int, create_string_buffer, memmove
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_calls import Converter, ImplausibleValue, ranged
from gpu_exporter.devices.nvidia_drivers import Version
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import INVALID_ARGUMENT, NvmlSession, absence_reason
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading

LINK_INTERVAL_SECONDS = 10.0
"""Links change rarely and need one field each: they are not read each time."""

ALL_LINKS = 0xFFFFFFFF
"""Scope of an NVLink field: sum of all links."""

LINK_COUNT, LINK_STATE = 91, 165
_LINK_STATES = (0, 1, 2)  # inactive, active, saving power

_ENTRY = "IIqqIIQ"  # nvmlFieldValue_t: field, scope, timestamp, latency, value type, error, value
_ENTRY_BYTES = struct.calcsize(_ENTRY)
_DOUBLE, _UINT, _ULONG, _ULONGLONG, _LONGLONG, _INT, _USHORT = range(7)  # nvmlValueType_t

_VALUE_TYPES = frozenset({_DOUBLE, _UINT, _ULONG, _ULONGLONG, _LONGLONG, _INT, _USHORT})

_NOT_ANSWERED = 0xFFFFFFFE
"""Written into the error code of each entry before a call: a driver that skips an entry would otherwise repeat the
former value, or return a zero."""

MAX_RECOVERY_ACTION = 15
"""Above those of the present nvml.h, whose highest is 7."""

_NO_START: Version = ()
_NO_END: Version = (math.inf,)


class FieldMetric(NamedTuple):
    """A field that is a row of a family. Of several for the same row, the first that the GPU supports is used.

    `since` and `before` bound the driver versions in which the number has this meaning: NVIDIA has reused some numbers.
    """

    family: MetricFamily
    number: int
    convert: Converter
    labels: tuple[str, ...] = ()
    scope: int = 0
    since: Version = _NO_START
    before: Version = _NO_END


_NANOSECONDS = ranged(10**18, per=1e9)  # thirty years
_BYTES = ranged(2**63)
_KIBIBYTES = ranged(2**53, times=1024)
_COUNT = ranged(2**53)
_PAGES = ranged(10_000)
_FLAG = ranged(1)

# 251 to 253 were power smoothing up to R570, clocks event reasons in R575 and the first R580, and are power smoothing
# again since 580.82, which moved the reasons to 269 to 271: see pynvml.py of nvidia-ml-py 12.570, 12.575, 13.580.65
# and 13.580.82. With the wrong number, a power setting would be exported as throttle time.
_R570: Version = (570,)  # the first whose nvml.h has the recovery action
_R575: Version = (575,)
_R580_82: Version = (580, 82)


def _throttle(reason: str, field: int, since: Version = _NO_START, before: Version = _NO_END) -> FieldMetric:
    return FieldMetric(metrics.THROTTLE_SECONDS, field, _NANOSECONDS, (reason,), 0, since, before)


def _link_errors(kind: str, field: int, scope: int = 0) -> FieldMetric:
    return FieldMetric(metrics.NVLINK_ERRORS, field, _COUNT, (kind,), scope)


FIELD_METRICS: tuple[FieldMetric, ...] = (
    _throttle("sw_power_cap", 74),
    _throttle("sync_boost", 76),
    _throttle("board_limit", 77),
    _throttle("reliability", 79),
    _throttle("sw_thermal", 269, since=_R580_82),
    _throttle("hw_thermal", 270, since=_R580_82),
    _throttle("hw_power_brake", 271, since=_R580_82),
    _throttle("sw_thermal", 251, since=_R575, before=_R580_82),
    _throttle("hw_thermal", 252, since=_R575, before=_R580_82),
    _throttle("hw_power_brake", 253, since=_R575, before=_R580_82),
    _throttle("thermal", 75, before=_R575),  # older drivers do not distinguish the two
    FieldMetric(metrics.MEMORY_TEMPERATURE, 82, ranged(150, min_value=1)),  # a working card is never at 0 °C
    FieldMetric(metrics.RECOVERY_ACTION, 230, ranged(MAX_RECOVERY_ACTION), since=_R570),
    FieldMetric(metrics.RETIRED_PAGES, 29, _PAGES, ("single_bit",)),
    FieldMetric(metrics.RETIRED_PAGES, 30, _PAGES, ("double_bit",)),
    FieldMetric(metrics.RETIRED_PAGES_PENDING, 31, _FLAG),
    FieldMetric(metrics.PCIE_TRANSMIT, 197, _BYTES),
    FieldMetric(metrics.PCIE_RECEIVE, 198, _BYTES),
    FieldMetric(metrics.NVLINK_TRANSMIT, 138, _KIBIBYTES, scope=ALL_LINKS),
    FieldMetric(metrics.NVLINK_RECEIVE, 139, _KIBIBYTES, scope=ALL_LINKS),
    FieldMetric(metrics.NVLINK_TRANSMIT, 202, _BYTES, scope=ALL_LINKS),  # NVLink5
    FieldMetric(metrics.NVLINK_RECEIVE, 204, _BYTES, scope=ALL_LINKS),
    _link_errors("crc_flit", 38),
    _link_errors("crc_data", 45),
    _link_errors("replay", 52),
    _link_errors("recovery", 59),
    _link_errors("ecc_data", 160),
    _link_errors("malformed_packet", 206, ALL_LINKS),  # NVLink5 from here
    _link_errors("buffer_overrun", 207, ALL_LINKS),
    _link_errors("receive", 208, ALL_LINKS),
    _link_errors("link_integrity", 211, ALL_LINKS),
    _link_errors("transmit_discard", 212, ALL_LINKS),
    _link_errors("recovery", 215, ALL_LINKS),
)

_32_BITS = (_UINT, _INT, _USHORT)
_WRAPPING_COUNTERS = (metrics.PCIE_TRANSMIT, metrics.PCIE_RECEIVE)
"""nvml.h says that these may wrap. In 32 bits they would wrap many times between two readings: such a value is useless,
and the family is unsupported."""


class FieldValue(NamedTuple):
    """One field of a response: error code, value type, and the 8 bytes of the value as an integer."""

    code: int
    kind: int
    bits: int

    def value(self) -> float:
        """The value, decoded by its type."""
        if self.kind == _DOUBLE:
            return float(struct.unpack("=d", struct.pack("=Q", self.bits))[0])
        if self.kind in (_LONGLONG, _INT):
            size = 64 if self.kind == _LONGLONG else 32
            raw = self.bits & ((1 << size) - 1)
            return raw - (1 << size) if raw >> (size - 1) else raw
        return self.bits & {_UINT: 0xFFFFFFFF, _USHORT: 0xFFFF}.get(self.kind, 0xFFFFFFFFFFFFFFFF)


class FieldBatch:
    """Fields of one GPU, read in one call. `fields` are pairs of number and scope."""

    def __init__(self, nvml: NvmlSession, handle: Any, fields: Sequence[tuple[int, int]]) -> None:
        self._get = nvml.function("nvmlDeviceGetFieldValues")
        self._layout = struct.Struct("=" + _ENTRY * len(fields))
        self._request = b"".join(
            struct.pack("=" + _ENTRY, field, scope, 0, 0, 0, _NOT_ANSWERED, 0) for field, scope in fields
        )
        self._entries = create_string_buffer(2 * len(self._request))  # no driver writes longer entries, so far
        self._arguments = (handle, c_int(len(fields)), byref(self._entries))
        self._empty = not fields

    def query(self) -> tuple[int, Sequence[int]]:
        """The error code of the call, and seven numbers per field, as in nvmlFieldValue_t."""
        if self._empty:
            return 0, ()
        memmove(self._entries, self._request, len(self._request))
        return self._get(*self._arguments), self._layout.unpack_from(self._entries)


FIELD_FAMILIES = tuple(dict.fromkeys(line.family for line in FIELD_METRICS))


class FieldPlan:
    """The metrics of the table that this GPU supports, read in one batch."""

    def __init__(self, nvml: NvmlSession, handle: Any, version: Version) -> None:
        self._nvml, self._handle = nvml, handle
        self._version = version
        self._lines: list[FieldMetric] | None = None

    def execute(self, values: NvmlReadings) -> None:
        """Read all fields."""
        code = self._probe_fields() if self._lines is None else 0
        lines: Iterable[FieldMetric] = self._lines or ()
        raw: Sequence[int] = ()
        if not code:
            code, raw = self._batch.query()
        if code:
            reason = absence_reason(code)
            values.absent.update(dict.fromkeys((line.family for line in lines or FIELD_METRICS), reason))
            return
        for i, line in enumerate(lines):
            kind, code, bits = raw[7 * i + 4 : 7 * i + 7]
            known = self._last_readings[i]
            if known is None or code or known[0] != bits or known[1] != kind:
                outcome = _convert_value(line, FieldValue(code, kind, bits))
                if isinstance(outcome, AbsenceReason):
                    self._last_readings[i] = None
                    values.add_absent(line.family, outcome)
                    continue
                self._last_readings[i] = known = (bits, kind, outcome)
            values.readings.append(known[2])
        values.absent.update(self._unsupported)

    def _probe_fields(self) -> int:
        """Find the supported metrics; of several for one row, the first. Returns the error code of the call."""
        lines = [line for line in FIELD_METRICS if line.since <= self._version < line.before]
        code, raw = self._make_batch(lines).query()
        if code:
            return code
        rows: dict[tuple[MetricFamily, tuple[str, ...]], FieldMetric] = {}
        for line, answer in zip(lines, _parse_values(raw), strict=True):
            if _convert_value(line, answer) is not AbsenceReason.UNSUPPORTED:
                rows.setdefault((line.family, line.labels), line)
        self._lines = list(rows.values())
        self._batch = self._make_batch(self._lines)
        self._last_readings: list[tuple[int, int, MetricReading] | None] = [None] * len(self._lines)
        supported = {line.family for line in self._lines}
        self._unsupported = {family: AbsenceReason.UNSUPPORTED for family in FIELD_FAMILIES if family not in supported}
        return 0

    def _make_batch(self, lines: Iterable[FieldMetric]) -> FieldBatch:
        return FieldBatch(self._nvml, self._handle, [(line.number, line.scope) for line in lines])


def _field_reason(code: int) -> AbsenceReason:
    """Drivers return INVALID_ARGUMENT for fields newer than themselves."""
    return AbsenceReason.UNSUPPORTED if code == INVALID_ARGUMENT else absence_reason(code)


def _convert_value(line: FieldMetric, answer: FieldValue) -> MetricReading | AbsenceReason:
    if answer.code:
        return _field_reason(answer.code)
    if answer.kind not in _VALUE_TYPES:
        return AbsenceReason.ERROR
    if answer.kind in _32_BITS and line.family in _WRAPPING_COUNTERS:
        return AbsenceReason.UNSUPPORTED
    try:
        return MetricReading(line.family, line.convert(answer.value()), line.labels)
    except ImplausibleValue:
        return AbsenceReason.ERROR


class NvlinkPlan:
    """Counts the NVLinks of one GPU by state. Reads them every LINK_INTERVAL_SECONDS."""

    def __init__(self, nvml: NvmlSession, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._count = FieldBatch(nvml, handle, [(LINK_COUNT, 0)])
        self._links: FieldBatch | None = None
        self._due = -math.inf
        self._last = NvmlReadings()

    def execute(self, values: NvmlReadings, now: float) -> None:
        """Add the counts. `now` is monotonic seconds."""
        if now >= self._due:
            self._last = NvmlReadings()
            self._read()
            self._due = now + LINK_INTERVAL_SECONDS
        values.readings += self._last.readings
        values.absent.update(self._last.absent)

    def _read(self) -> None:
        if self._links is None:
            code, entry = self._count.query()
            answers = _parse_values(entry)
            code = code or answers[0].code
            links = 0 if code else int(answers[0].value())
            if code or not 0 < links <= 64:
                self._last.absent[metrics.NVLINK_LINKS] = _field_reason(code) if code else AbsenceReason.UNSUPPORTED
                return
            self._links = FieldBatch(self._nvml, self._handle, [(LINK_STATE, link) for link in range(links)])
        code, entries = self._links.query()
        states = _parse_values(entries)
        code = code or next((state.code for state in states if state.code), 0)
        if code:
            self._last.absent[metrics.NVLINK_LINKS] = _field_reason(code)
            return
        if any(state.value() not in _LINK_STATES for state in states):
            self._last.absent[metrics.NVLINK_LINKS] = AbsenceReason.ERROR
            return
        active = sum(state.value() != 0 for state in states)  # a link in a power-saving state counts as active
        rows = (("active", active), ("inactive", len(states) - active))
        self._last.readings += [MetricReading(metrics.NVLINK_LINKS, count, (state,)) for state, count in rows]


def _parse_values(entries: Iterable[int]) -> list[FieldValue]:
    flat = tuple(entries)
    return [FieldValue(flat[i + 5], flat[i + 4], flat[i + 6]) for i in range(0, len(flat), 7)]
