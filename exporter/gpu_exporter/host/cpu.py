"""CPU time by mode, and how often the hardware throttled the CPUs.

Kernel documents: Documentation/filesystems/proc.rst, ABI/testing/sysfs-devices-system-cpu (`thermal_throttle`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import (
    SlowlyRead,
    list_folder,
    parse_unsigned,
    read_file,
    read_label,
    read_number,
    samples_by_column,
)
from gpu_exporter.metrics import FamilySamples, MetricFamily

CPU_SECONDS = MetricFamily(
    "node_cpu_seconds_total", "counter", "Time that each CPU spent in each mode; user and nice include guest time.",
    ("cpu", "mode"),
)  # fmt: skip
GUEST_SECONDS = MetricFamily(
    "node_cpu_guest_seconds_total", "counter", "Time that each CPU spent running virtual machines, by priority.",
    ("cpu", "mode"),
)  # fmt: skip
CORE_THROTTLES = MetricFamily(
    "node_cpu_core_throttles_total", "counter", "Times that the core was throttled because of heat.",
    ("package", "core"),
)  # fmt: skip
PACKAGE_THROTTLES = MetricFamily(
    "node_cpu_package_throttles_total", "counter", "Times that the package was throttled because of heat.",
    ("package",),
)  # fmt: skip

#: In the order of the columns of a cpu line, followed by those of guests. Old kernels print fewer.
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
GUEST_MODES = ("user", "nice")
COLUMNS = len(MODES) + len(GUEST_MODES)
MIN_COLUMNS = 4
IDLE_COLUMN = MODES.index("idle")

#: The kernel estimates idle and iowait at each read, and they may decrease slightly. After CPU hotplug they restart
#: from a much lower value. node_exporter uses the same limit.
MIN_RESET_SECONDS = 3.0

#: Four files per CPU, of which a server has hundreds.
THROTTLES_INTERVAL_SECONDS = 15.0


class CpuCollector:
    def __init__(self, settings: HostSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = f"{settings.procfs}/stat"
        self._cpu_folder = f"{settings.sysfs}/devices/system/cpu"
        self._throttles = SlowlyRead(self._read_throttles, THROTTLES_INTERVAL_SECONDS, clock)
        self._tick_rate = os.sysconf("SC_CLK_TCK")
        self._seconds: dict[bytes, list[float]] = {}
        self._labels: dict[bytes, tuple[tuple[str, str], ...]] = {}

    def collect(self) -> list[FamilySamples]:
        """Counters by CPU and mode. Raises OSError, or ValueError if no CPU's line could be parsed."""
        # The new dictionary drops CPUs that are no longer in the file.
        self._seconds = {cpu: self._monotonic(cpu, seconds) for cpu, seconds in self._read().items()}
        if not self._seconds:
            raise ValueError(f"{self._path}: no cpu line could be parsed")
        times: list[tuple[tuple[str, ...], float]] = []
        guests: list[tuple[tuple[str, ...], float]] = []
        split = len(MODES)
        for cpu, seconds in self._seconds.items():
            labels = self._labels_of(cpu)
            times.extend(zip(labels, seconds[:split], strict=False))
            guests.extend(zip(labels, seconds[split:], strict=False))
        samples = [FamilySamples(CPU_SECONDS, tuple(times))]
        if guests:
            samples.append(FamilySamples(GUEST_SECONDS, tuple(guests)))
        return samples + self._throttles.value()

    def _read(self) -> dict[bytes, list[float]]:
        rate = self._tick_rate
        cpus = {}
        for line in read_file(self._path).split(b"\n"):
            if not line.startswith(b"cpu"):
                continue
            word, *fields = line.split()
            # The line "cpu" without a number is the sum over all CPUs.
            if not word[3:].isdigit() or len(fields) < MIN_COLUMNS:
                continue
            try:
                cpus[word[3:]] = [parse_unsigned(field) / rate for field in fields[:COLUMNS]]
            except ValueError:
                continue
        return cpus

    def _monotonic(self, cpu: bytes, now: list[float]) -> list[float]:
        """The counters as exported: they only decrease when the CPU was restarted."""
        before = self._seconds.get(cpu)
        if before is None or len(before) != len(now) or before[IDLE_COLUMN] - now[IDLE_COLUMN] >= MIN_RESET_SECONDS:
            return now
        return list(map(max, before, now))

    def _read_throttles(self) -> list[FamilySamples]:
        """Empty on CPUs and virtual machines that do not count. Threads of a core have the same counter."""
        cores: dict[tuple[str, ...], list[float | None]] = {}
        packages: dict[tuple[str, ...], list[float | None]] = {}
        for name in list_folder(self._cpu_folder, r"cpu\d+"):
            folder = f"{self._cpu_folder}/{name}"
            core = read_number(f"{folder}/thermal_throttle/core_throttle_count")
            package = read_number(f"{folder}/thermal_throttle/package_throttle_count")
            if core is None and package is None:
                continue
            package_id, core_id = (read_label(f"{folder}/topology/{x}") for x in ("physical_package_id", "core_id"))
            cores.setdefault((package_id, core_id), [core])
            packages.setdefault((package_id,), [package])
        return samples_by_column((CORE_THROTTLES,), cores) + samples_by_column((PACKAGE_THROTTLES,), packages)

    def _labels_of(self, cpu: bytes) -> tuple[tuple[str, str], ...]:
        labels = self._labels.get(cpu)
        if labels is None:
            number = cpu.decode()
            # The guest modes are named like the first modes, so they share these labels.
            labels = self._labels[cpu] = tuple((number, mode) for mode in MODES)
        return labels
