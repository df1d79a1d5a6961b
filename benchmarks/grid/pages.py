"""The pages of exporters over a simulated fleet.

Each exporter publishes what it does without options: dcgm-exporter the fields of its default file without profiling
(https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv), nvidia_gpu_exporter all but what its flags
turn on (https://github.com/utkuozdemir/nvidia_gpu_exporter/blob/main/docs/METRICS.md), AMD's the fields that an MI300X
has without profiling (https://github.com/ROCm/device-metrics-exporter/blob/main/docs/configuration/metricslist.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gpu_exporter import metrics
from gpu_exporter.compat.dcgm import DcgmFamilies
from gpu_exporter.compat.nvidia_smi import NvidiaSmiFamilies
from gpu_exporter.devices.simulated import SimulatedGpu
from gpu_exporter.metrics import FamilySamples, MetricFamily
from gpu_exporter.snapshot import device_samples

DCGM_DEFAULT_FIELDS = frozenset(
    f"DCGM_FI_DEV_{field}"
    for field in (
        "SM_CLOCK", "MEM_CLOCK", "MEMORY_TEMP", "GPU_TEMP", "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION",
        "PCIE_REPLAY_COUNTER", "GPU_UTIL", "MEM_COPY_UTIL", "ENC_UTIL", "DEC_UTIL", "XID_ERRORS", "FB_FREE", "FB_USED",
        "FB_RESERVED", "UNCORRECTABLE_REMAPPED_ROWS", "CORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_FAILURE",
    )
)  # fmt: skip

#: Families of nvidia_gpu_exporter that a flag or another backend turns on.
NVIDIA_SMI_OPTIONAL = ("nvidia_smi_pcie_throughput", "nvidia_smi_compute_app", "nvidia_smi_xid", "nvidia_smi_mig")


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    name: str
    gpus: tuple[SimulatedGpu, ...]


#: The families of one page at a time (Unix time).
Page = Callable[[SimulatedNode, float], Sequence[FamilySamples]]


def _own(node: SimulatedNode, at: float) -> list[FamilySamples]:
    return device_samples((gpu.read(at) for gpu in node.gpus), node.name)


def gpu_exporter(node: SimulatedNode, at: float) -> Sequence[FamilySamples]:
    return _own(node, at)


def dcgm_exporter(node: SimulatedNode, at: float) -> Sequence[FamilySamples]:
    found = DcgmFamilies().samples(_own(node, at))
    return [each for each in found if each.family.name in DCGM_DEFAULT_FIELDS]


def nvidia_gpu_exporter(node: SimulatedNode, at: float) -> Sequence[FamilySamples]:
    found = NvidiaSmiFamilies().samples(_own(node, at), ())
    return [each for each in found if not each.family.name.startswith(NVIDIA_SMI_OPTIONAL)]


_AMD_LABELS = ("serial_number", "gpu_id", "card_series", "hostname", "gpu_compute_partition_type")
_AMD_COLUMNS: tuple[tuple[str, MetricFamily, float], ...] = (
    ("gpu_gfx_activity", metrics.UTILIZATION, 100.0),
    ("gpu_umc_activity", metrics.MEMORY_ACTIVITY, 100.0),
    ("gpu_used_vram", metrics.MEMORY_USED, 2.0**-20),
    ("gpu_total_vram", metrics.MEMORY_TOTAL, 2.0**-20),
    ("gpu_junction_temperature", metrics.TEMPERATURE, 1.0),
    ("gpu_package_power", metrics.POWER, 1.0),
)


def amd_device_metrics_exporter(node: SimulatedNode, at: float) -> Sequence[FamilySamples]:
    labels = {
        gpu.identity.uuid: (gpu.identity.uuid, gpu.identity.index, gpu.model.name, node.name, "spx")
        for gpu in node.gpus
        if not gpu.scenario.down
    }
    own = {each.family: each.rows for each in _own(node, at)}
    return [
        FamilySamples(
            MetricFamily(name, "gauge", "", _AMD_LABELS),
            tuple((labels[row[0]], value * scale) for row, value in own.get(source, ()) if row[0] in labels),
        )
        for name, source, scale in _AMD_COLUMNS
    ]


PAGES: dict[str, Page] = {
    "gpu-exporter": gpu_exporter,
    "dcgm-exporter": dcgm_exporter,
    "nvidia_gpu_exporter": nvidia_gpu_exporter,
    "amd-device-metrics-exporter": amd_device_metrics_exporter,
}


def samples(families: Sequence[FamilySamples]) -> Iterator[tuple[str, dict[str, str], float]]:
    for each in families:
        for row, value in each.rows:
            yield each.family.name, dict(zip(each.family.labels, row, strict=True)), float(value)
