"""Frequency of each CPU, its limits and its governor.

Kernel document: Documentation/admin-guide/pm/cpufreq.rst; the files are in kHz.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_label, read_number, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily


def _frequency_family(name: str, help_: str) -> MetricFamily:
    return MetricFamily(f"node_cpu_{name}_hertz", "gauge", help_, ("cpu",))


FILES = {
    "cpuinfo_cur_freq": _frequency_family("frequency", "Frequency reported by the hardware."),
    "cpuinfo_avg_freq": _frequency_family("frequency_average", "Mean frequency reported by the hardware."),
    "cpuinfo_min_freq": _frequency_family("frequency_min", "Lowest frequency of the hardware."),
    "cpuinfo_max_freq": _frequency_family("frequency_max", "Highest frequency of the hardware."),
    "scaling_cur_freq": _frequency_family("scaling_frequency", "Frequency chosen by the kernel."),
    "scaling_min_freq": _frequency_family("scaling_frequency_min", "Lowest frequency that the kernel may choose."),
    "scaling_max_freq": _frequency_family("scaling_frequency_max", "Highest frequency that the kernel may choose."),
}
GOVERNOR = MetricFamily(
    "node_cpu_scaling_governor", "gauge", "1 for the governor that chooses the frequency, else 0.", ("cpu", "governor")
)
HERTZ_PER_KILOHERTZ = 1000.0


class CpufreqCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/devices/system/cpu"

    def collect(self) -> list[FamilySamples]:
        """Gauges by CPU; empty where the hardware or a hypervisor controls the frequency."""
        rows: dict[tuple[str, ...], list[float | None]] = {}
        governors: list[tuple[tuple[str, ...], float]] = []
        for name in list_folder(self._folder, r"cpu\d+"):
            folder, cpu = f"{self._folder}/{name}/cpufreq", name.removeprefix("cpu")
            values = [read_number(f"{folder}/{file}") for file in FILES]
            rows[(cpu,)] = [None if value is None else value * HERTZ_PER_KILOHERTZ for value in values]
            governor = read_label(f"{folder}/scaling_governor")
            available = read_label(f"{folder}/scaling_available_governors").split() if governor else []
            governors += [((cpu, each), float(each == governor)) for each in available]
        samples = samples_by_column(tuple(FILES.values()), rows)
        return [*samples, FamilySamples(GOVERNOR, tuple(governors))] if governors else samples
