"""Pressure stall information (PSI): time that tasks waited for CPU, I/O and memory."""

from __future__ import annotations

import errno

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample


def _pressure_family(resource: str, kind: str, help_: str) -> MetricFamily:
    return MetricFamily(f"node_pressure_{resource}_{kind}_seconds_total", "counter", help_)


#: By file and the first word of the line. For CPU, "full" is undefined on a whole node; few kernels have irq.
FAMILIES = {
    ("cpu", b"some"): _pressure_family("cpu", "waiting", "Time during which at least one task waited for a CPU."),
    ("io", b"some"): _pressure_family("io", "waiting", "Time during which at least one task waited for I/O."),
    ("io", b"full"): _pressure_family("io", "stalled", "Time during which all non-idle tasks waited for I/O."),
    ("memory", b"some"): _pressure_family(
        "memory", "waiting", "Time during which at least one task waited for memory."
    ),
    ("memory", b"full"): _pressure_family(
        "memory", "stalled", "Time during which all non-idle tasks waited for memory."
    ),
    ("irq", b"full"): _pressure_family("irq", "stalled", "Time during which tasks were stalled by interrupts."),
}
RESOURCES = tuple(dict.fromkeys(resource for resource, _ in FAMILIES))
MICROSECONDS_PER_SECOND = 1e6
SWITCHED_OFF = (errno.ENOENT, errno.EOPNOTSUPP)


class PressureCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.procfs}/pressure"

    def collect(self) -> list[FamilySamples]:
        """Counters in seconds; empty if the kernel was built or booted without pressure stall information.

        Raises OSError or ValueError if no resource could be read for another reason.
        """
        found: list[FamilySamples] = []
        failures: list[OSError] = []
        for resource in RESOURCES:
            try:
                found += _parse_samples(resource, read_file(f"{self._folder}/{resource}"))
            except OSError as error:
                failures.append(error)
        if found:
            return found
        # Without CONFIG_PSI there are no files; booted with psi=0, opening or reading them fails.
        if len(failures) == len(RESOURCES):
            other = [failure for failure in failures if failure.errno not in SWITCHED_OFF]
            if not other:
                return []
            raise OSError(f"no pressure stall information: {other[0]}") from other[0]
        raise ValueError(f"{self._folder}: no line could be parsed")


def _parse_samples(resource: str, data: bytes) -> list[FamilySamples]:
    found: dict[MetricFamily, FamilySamples] = {}
    for line in data.split(b"\n"):
        family = FAMILIES.get((resource, line.partition(b" ")[0]))
        _, total, microseconds = line.partition(b" total=")
        if family is None or not total:
            continue
        try:
            found[family] = single_sample(family, parse_unsigned(microseconds) / MICROSECONDS_PER_SECOND)
        except ValueError:
            continue
    return list(found.values())
