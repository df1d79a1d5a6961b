"""The readings of a card whose driver has no NVML: each family has a value, or a reason for its absence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpu_exporter import metrics
from gpu_exporter.devices.meters import BusyMeter, BusySource
from gpu_exporter.devices.sysfs import SysfsSource, SysfsValueError, read_file
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import Absence, AbsenceReason, DeviceIdentity, DeviceReading, MetricReading

CARD_FAMILIES: tuple[MetricFamily, ...] = (
    metrics.UTILIZATION, metrics.BUSY_SECONDS_TOTAL, metrics.OBSERVED_SECONDS_TOTAL, metrics.BUSY_SOURCE,
    metrics.MEMORY_TOTAL, metrics.MEMORY_USED, metrics.MEMORY_RESERVED, metrics.MEMORY_ACTIVITY, metrics.TEMPERATURE,
    metrics.POWER, metrics.POWER_LIMIT, metrics.ENERGY,
    metrics.SM_CLOCK, metrics.SM_CLOCK_MAX, metrics.MEMORY_CLOCK, metrics.FAN_SPEED,
    metrics.PERFORMANCE_STATE, metrics.ENCODER_UTILIZATION, metrics.DECODER_UTILIZATION,
    metrics.PCIE_GENERATION, metrics.PCIE_WIDTH,
    metrics.PCIE_REPLAYS, metrics.THROTTLE_ACTIVE, metrics.ECC_ERRORS, metrics.REMAPPED_ROWS, metrics.PROCESSES,
)  # fmt: skip
"""Every card has a value or an Absence for each."""

BUSY_FAMILIES = (metrics.BUSY_SECONDS_TOTAL, metrics.OBSERVED_SECONDS_TOTAL, metrics.BUSY_SOURCE)


@dataclass
class CardReadings:
    """The readings of a card. `file_missing`: a file no longer exists."""

    readings: list[MetricReading] = field(default_factory=list)
    absent: dict[MetricFamily, AbsenceReason] = field(default_factory=dict)
    file_missing: bool = False

    def add(self, family: MetricFamily, value: float, *labels: str) -> None:
        self.readings.append(MetricReading(family, value, labels))

    def add_absent(self, families: Iterable[MetricFamily], why: SysfsValueError) -> None:
        self.absent.update(dict.fromkeys(families, why.reason))
        self.file_missing |= why.file_missing

    def read_sources(self, lines: Iterable[SysfsSource]) -> None:
        for line in lines:
            try:
                self.readings.append(MetricReading(line.family, line.convert(read_file(line.path)), line.labels))
            except SysfsValueError as why:
                self.add_absent((line.family,), why)

    def value(self, family: MetricFamily) -> float | None:
        return next((reading.value for reading in self.readings if reading.family is family), None)

    def add_busy(self, meter: BusyMeter, source: BusySource) -> None:
        """The meter's counters, or why they are absent: as utilization is."""
        if self.value(metrics.UTILIZATION) is None:
            reason = self.absent.get(metrics.UTILIZATION, AbsenceReason.UNSUPPORTED)
            self.absent.update(dict.fromkeys(BUSY_FAMILIES, reason))
        else:
            self.add(metrics.BUSY_SECONDS_TOTAL, meter.busy)
            self.add(metrics.OBSERVED_SECONDS_TOTAL, meter.observed)
            self.add(metrics.BUSY_SOURCE, 1, source.value)

    def of(self, identity: DeviceIdentity) -> DeviceReading:
        """As the reading of this GPU."""
        present = {reading.family for reading in self.readings}
        absences = (
            Absence(family, self.absent.get(family, AbsenceReason.UNSUPPORTED))
            for family in CARD_FAMILIES
            if family not in present
        )
        return DeviceReading(identity, tuple(self.readings), tuple(absences))
