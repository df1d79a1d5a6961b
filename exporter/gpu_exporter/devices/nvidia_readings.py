"""What is read of one GPU through NVML, and what the calls say about the GPU itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_exporter.devices.nvml import DRIVER_UNLOADED_CODES, GPU_LOST_CODES, DriverUnloaded, GpuLost, absence_reason
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading


@dataclass
class NvmlReadings:
    """Readings and absences of one GPU, while it is read. `answered` is the number of calls that did not fail."""

    readings: list[MetricReading] = field(default_factory=list)
    absent: dict[MetricFamily, AbsenceReason] = field(default_factory=dict)
    _incomplete: set[MetricFamily] = field(default_factory=set)
    answered: int = 0
    _lost: int = 0
    _unloaded: int = 0
    _failed: int = 0
    _refused: int = 0

    def add_absent(self, family: MetricFamily, reason: AbsenceReason) -> None:
        """Record that a row of this family could not be read."""
        self.absent[family] = reason
        if len(family.labels) > 1:
            self._incomplete.add(family)

    def drop_incomplete_families(self) -> None:
        """Drop the rows of families with a missing row: a partial family would look complete."""
        if self._incomplete:
            self.readings = [reading for reading in self.readings if reading.family not in self._incomplete]

    def count_failure(self, code: int) -> None:
        """Count what a call that failed says about its GPU. One that is unsupported says nothing."""
        self._lost += code in GPU_LOST_CODES
        self._unloaded += code in DRIVER_UNLOADED_CODES
        failed = absence_reason(code) is AbsenceReason.ERROR
        self._failed += failed
        self._refused += not failed

    def add(self, other: NvmlReadings) -> None:
        """Add readings and absences, without what the calls report about the GPU."""
        self.readings += other.readings
        self.absent.update(other.absent)
        self._incomplete |= other._incomplete

    def add_calls(self, other: NvmlReadings) -> None:
        """Add what these calls report about the GPU."""
        self.answered += other.answered
        self._lost += other._lost
        self._unloaded += other._unloaded
        self._failed += other._failed
        self._refused += other._refused

    @property
    def is_doubtful(self) -> bool:
        """Whether these calls alone would have the GPU down."""
        return not self.answered or self._lost + self._unloaded > self.answered

    @property
    def only_errors(self) -> bool:
        """Whether no call succeeded, and most of them failed rather than being unsupported."""
        return not self.answered and self._failed > self._refused

    def raise_if_gone(self) -> None:
        """Raise GpuLost or DriverUnloaded if most of the calls that were counted say so.

        Each call of a lost GPU fails. If a single one does, its answer is wrong, not the GPU gone.
        """
        if self._lost + self._unloaded <= self.answered:
            return
        if self._unloaded > self._lost:
            raise DriverUnloaded(f"{self._unloaded} calls say so, {self.answered} return a value")
        raise GpuLost(f"{self._lost} calls say so, {self.answered} return a value")
