"""The NVML calls of a table of metrics, prepared for one GPU.

pynvml's functions take several times as long as the calls that they wrap, so calls are prepared once per session and go
to the C functions directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from gpu_exporter.devices.nvidia_calls import CallMetric, ImplausibleValue, MissingValue, NvmlCall
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import NvmlSession, absence_reason
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading


class _CallForm:
    """One form of a call, with its arguments and the reader of its outputs."""

    __slots__ = ("arguments", "function", "read")

    def __init__(self, nvml: NvmlSession, handle: Any, call: NvmlCall) -> None:
        outs, self.read = call.shape()
        self.function = nvml.function(call.function)
        self.arguments = (handle, *call.arguments, *outs)


class _PreparedCall(_CallForm):
    """A call, and the metrics that use its response."""

    __slots__ = ("_older", "answer", "lines", "readings")

    def __init__(self, nvml: NvmlSession, handle: Any, call: NvmlCall, lines: list[CallMetric]) -> None:
        super().__init__(nvml, handle, call)
        self._older = _CallForm(nvml, handle, call.older) if call.older else None
        self.lines = lines
        self.answer: Any = None
        self.readings: list[MetricReading] = []

    def try_older(self, code: int) -> int:
        """After the call failed with `code`: the code of its older form if the driver does not have it, else the same.

        Once the older form has worked, it is used from then on.
        """
        older = self._older
        if older is None or absence_reason(code) is not AbsenceReason.UNSUPPORTED:
            return code
        code = older.function(*older.arguments)
        if not code:
            self.function, self.arguments, self.read, self._older = older.function, older.arguments, older.read, None
        return code


NO_LIMITS: Mapping[MetricFamily, float] = MappingProxyType({})


class CallPlan:
    """The distinct calls of a table, prepared for one GPU. `limits` are the highest plausible values of some families,
    for those whose range depends on the GPU.
    """

    def __init__(
        self,
        nvml: NvmlSession,
        handle: Any,
        lines: Iterable[CallMetric],
        limits: Mapping[MetricFamily, float] = NO_LIMITS,
    ) -> None:
        self._limits = limits
        calls: dict[NvmlCall, list[CallMetric]] = {}
        for line in lines:
            calls.setdefault(line.call, []).append(line)
        self._ready = [_PreparedCall(nvml, handle, call, users) for call, users in calls.items()]
        self._of_family = {line.family: ready for ready in self._ready for line in ready.lines}

    def execute(self, values: NvmlReadings) -> None:
        """Make the calls, and count in `values` what they say about the GPU."""
        for ready in self._ready:
            code = ready.function(*ready.arguments)
            if code:
                code = ready.try_older(code)
            if code:
                values.count_failure(code)
                ready.answer, ready.readings = None, []
                reason = absence_reason(code)
                for line in ready.lines:
                    values.add_absent(line.family, reason)
                continue
            values.answered += 1
            answer = ready.read()
            if answer != ready.answer:  # most responses repeat: reuse their readings
                ready.readings = self._convert_answer(answer, ready.lines, values)
                # Not cached if a value is missing: its absence must be added each time.
                ready.answer = answer if len(ready.readings) == len(ready.lines) else None
            values.readings += ready.readings

    def last_value(self, family: MetricFamily) -> float | None:
        """The last value of a family without further labels; None if it is absent."""
        ready = self._of_family.get(family)
        for reading in ready.readings if ready else ():
            if reading.family is family:
                return reading.value
        return None

    def _convert_answer(self, answer: Any, lines: list[CallMetric], values: NvmlReadings) -> list[MetricReading]:
        readings = []
        for line in lines:
            try:
                value = line.convert(answer)
            except ImplausibleValue:
                values.add_absent(line.family, AbsenceReason.ERROR)
                continue
            except MissingValue:
                values.add_absent(line.family, AbsenceReason.UNSUPPORTED)
                continue
            if value > self._limits.get(line.family, value):
                values.add_absent(line.family, AbsenceReason.ERROR)
                continue
            readings.append(MetricReading(line.family, value, line.labels))
        return readings
