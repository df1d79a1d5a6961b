"""Activity metrics (SM activity, tensor cores, ...) through NVML's GPM, on Hopper and newer, without DCGM.

GPM takes samples; two samples give the activity between them, here between two readings. NVML returns percent, and
MiB/s for traffic, which is accumulated to the counters that other GPUs have as field values: MIG instances have no
others.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ctypes import Structure, byref, c_char_p, c_double, c_uint, c_void_p
from typing import Any

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import NvmlSession, absence_reason
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading

MIN_SAMPLE_SECONDS = 0.1
"""Samples closer than this are too imprecise: the older one is kept, and the last values are repeated."""

RATIO_METRICS: tuple[tuple[MetricFamily, int], ...] = (
    (metrics.ENGINE_ACTIVITY, 1),
    (metrics.SM_ACTIVITY, 2),
    (metrics.SM_OCCUPANCY, 3),
    (metrics.TENSOR_ACTIVITY, 5),
    (metrics.DRAM_BANDWIDTH, 10),
    (metrics.FP64_ACTIVITY, 11),
    (metrics.FP32_ACTIVITY, 12),
    (metrics.FP16_ACTIVITY, 13),
)
"""Family and NVML_GPM_METRIC_*, all in percent."""

TRAFFIC_METRICS: tuple[tuple[MetricFamily, int], ...] = (
    (metrics.PCIE_TRANSMIT, 20),
    (metrics.PCIE_RECEIVE, 21),
    (metrics.NVLINK_RECEIVE, 60),
    (metrics.NVLINK_TRANSMIT, 61),
)
"""Family and NVML_GPM_METRIC_*, all in MiB/s."""

_ALL_METRICS = (*RATIO_METRICS, *TRAFFIC_METRICS)
_VERSION = 1
_MIB = 1024.0**2
_MAX_MIB_PER_SECOND = 16.0 * 1024**2  # more than eight times NVLink5
_MAX_OVERSHOOT_PERCENT = 1.0  # a ratio of two counters may slightly exceed 100 %


class _Metric(Structure):
    _fields_ = [
        ("metric", c_uint),
        ("code", c_uint),
        ("value", c_double),
        ("name", c_char_p),
        ("short_name", c_char_p),
        ("unit", c_char_p),
    ]


class _MetricsGet(Structure):
    """nvmlGpmMetricsGet_t, with room for our metrics only: NVML reads no more than `count` entries."""

    _fields_ = [
        ("version", c_uint),
        ("count", c_uint),
        ("older", c_void_p),
        ("newer", c_void_p),
        ("metrics", _Metric * len(_ALL_METRICS)),
    ]


class _Support(Structure):
    _fields_ = [("version", c_uint), ("supported", c_uint)]


_ANSWERS = struct.Struct("=" + "4xId24x" * len(_ALL_METRICS))
_ANSWERS_AT = _MetricsGet.metrics.offset


class GpmSampler:
    """GPM of one GPU or MIG instance. Allocates two samples in the driver, which `close` frees."""

    def __init__(self, nvml: NvmlSession, handle: Any, gpu_instance: int | None = None) -> None:
        """`handle` is that of the whole GPU; `gpu_instance` the id of the MIG instance, None for the whole GPU."""
        self._nvml, self._handle = nvml, handle
        self._is_mig_instance = gpu_instance is not None
        if gpu_instance is None:
            self._take_sample = nvml.function("nvmlGpmSampleGet")
            self._sample_arguments: tuple[Any, ...] = (handle,)
        else:
            self._take_sample, self._sample_arguments = (
                nvml.function("nvmlGpmMigSampleGet"),
                (handle, c_uint(gpu_instance)),
            )
        self._compare = nvml.function("nvmlGpmMetricsGet")
        self._older, self._newer = c_void_p(), c_void_p()
        self._taken_at: float | None = None
        self._permanent_absence: AbsenceReason | None = None
        self._last = NvmlReadings()
        self._last_ratios: tuple[float, ...] = ()
        self._ratios = NvmlReadings()
        self._sums: dict[MetricFamily, float] = dict.fromkeys((family for family, _ in TRAFFIC_METRICS), 0.0)
        self._traffic: dict[MetricFamily, MetricReading | AbsenceReason] = {}
        self._get = _MetricsGet(_VERSION, len(_ALL_METRICS))
        for entry, (_, metric) in zip(self._get.metrics, _ALL_METRICS, strict=True):
            entry.metric = metric

    def execute(self, values: NvmlReadings, now: float) -> None:
        """Add the activity since the last call. `now` is monotonic seconds.

        Traffic is added if `values` has no counter from field values.
        """
        if self._taken_at is None or now - self._taken_at >= MIN_SAMPLE_SECONDS:
            self._last = self._measure(now)
        values.readings += self._last.readings
        values.absent.update(self._last.absent)
        for family, outcome in self._traffic.items():
            if not self._is_mig_instance and values.absent.get(family) is not AbsenceReason.UNSUPPORTED:
                continue
            if isinstance(outcome, MetricReading):
                values.absent.pop(family, None)
                values.readings.append(outcome)
            elif self._is_mig_instance:
                values.absent[family] = outcome

    def close(self) -> None:
        """Free the samples. May be called more than once."""
        free = self._nvml.function("nvmlGpmSampleFree")
        for sample in (self._older, self._newer):
            if sample:
                free(sample)
        self._older, self._newer = c_void_p(), c_void_p()
        self._taken_at = None

    def _measure(self, now: float) -> NvmlReadings:
        reason = self._permanent_absence or self._sample()
        if reason is not None:
            self._taken_at = None
            if reason is AbsenceReason.UNSUPPORTED:
                self._permanent_absence = reason
                self.close()
            return self._absent_readings(reason)
        before, self._taken_at = self._taken_at, now
        values = self._absent_readings(AbsenceReason.NOT_YET) if before is None else self._compare_samples(now - before)
        self._older, self._newer = self._newer, self._older
        return values

    def _sample(self) -> AbsenceReason | None:
        """Take the newer sample. Returns the reason if that failed."""
        if not self._newer:
            support = _Support(_VERSION)
            code = self._nvml.function("nvmlGpmQueryDeviceSupport")(self._handle, byref(support))
            if not code and not support.supported:
                return AbsenceReason.UNSUPPORTED
            allocate = self._nvml.function("nvmlGpmSampleAlloc")
            for sample in (self._older, self._newer):
                code = code or (0 if sample else allocate(byref(sample)))
            if code:
                return absence_reason(code)
            if not self._older or not self._newer:
                return AbsenceReason.ERROR
        code = self._take_sample(*self._sample_arguments, self._newer)
        return absence_reason(code) if code else None

    def _compare_samples(self, seconds: float) -> NvmlReadings:
        self._get.older, self._get.newer = self._older, self._newer
        code = self._compare(byref(self._get))
        if code:
            return self._absent_readings(absence_reason(code))
        answers = _ANSWERS.unpack_from(self._get, _ANSWERS_AT)
        ratios = answers[: 2 * len(RATIO_METRICS)]
        if ratios != self._last_ratios:  # those of an idle GPU repeat
            self._last_ratios, self._ratios = ratios, _ratio_readings(ratios)
        for i, (family, _) in enumerate(TRAFFIC_METRICS, start=len(RATIO_METRICS)):
            code, rate = answers[2 * i], answers[2 * i + 1]
            if code:
                self._traffic[family] = absence_reason(code)
            elif 0 <= rate <= _MAX_MIB_PER_SECOND:
                self._sums[family] += rate * _MIB * seconds
                self._traffic[family] = MetricReading(family, self._sums[family])
            else:
                self._traffic[family] = AbsenceReason.ERROR
        return self._ratios

    def _absent_readings(self, reason: AbsenceReason) -> NvmlReadings:
        self._traffic = dict.fromkeys(self._sums, reason)
        return NvmlReadings(absent=dict.fromkeys((family for family, _ in RATIO_METRICS), reason))


def _ratio_readings(answers: Sequence[float]) -> NvmlReadings:
    """`answers` are the error code and the percentage of each of RATIO_METRICS."""
    values = NvmlReadings()
    for i, (family, _) in enumerate(RATIO_METRICS):
        code, percent = answers[2 * i], answers[2 * i + 1]
        if code:
            values.absent[family] = absence_reason(int(code))
        elif 0 <= percent <= 100 + _MAX_OVERSHOOT_PERCENT:  # neither invalid nor NaN
            values.readings.append(MetricReading(family, min(percent, 100.0) / 100))
        else:
            values.absent[family] = AbsenceReason.ERROR
    return values
