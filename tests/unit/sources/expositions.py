"""What exporters say of the same GPUs, each in its own names, labels and units, and a history of it for promtool.

Written from their public documentation; the addresses are in the mapping files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MIB = 1024.0**2


class SampleLine(NamedTuple):
    metric: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class ExportedGpu:
    """A GPU that does the same all the time. What is None, or not true of a GPU, is for a test to say."""

    uuid: str
    index: int = 0
    name: str = "NVIDIA H100 80GB HBM3"
    utilization: float = 0.9  # ratio
    used_mib: float = 60_000.0
    total_mib: float = 80_000.0
    watts: float = 400.0
    celsius: float = 60.0


@dataclass(frozen=True)
class ExportedHost:
    """A node with its exporter; `at` is seconds after the history's begin, for what counts."""

    name: str
    address: str
    cards: tuple[ExportedGpu, ...]


def gpu_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        yield SampleLine(
            "gpu_info",
            {"uuid": card.uuid, "index": str(card.index), "name": card.name, "vendor": "nvidia", "nodename": host.name},
            1,
        )
        for metric, value in (
            ("gpu_up", 1.0),
            ("gpu_busy_seconds_total", 1000 + at * card.utilization),
            ("gpu_observed_seconds_total", 2000 + at),
            ("gpu_memory_used_bytes", card.used_mib * MIB),
            ("gpu_memory_total_bytes", card.total_mib * MIB),
            ("gpu_temperature_celsius", card.celsius),
            ("gpu_power_watts", card.watts),
        ):
            yield SampleLine(metric, {"uuid": card.uuid}, value)


def dcgm_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        labels = {
            "gpu": str(card.index), "UUID": card.uuid, "device": f"nvidia{card.index}", "modelName": card.name,
            "Hostname": host.name, "DCGM_FI_DRIVER_VERSION": "550.54.15", "pci_bus_id": "00000000:1B:00.0",
        }  # fmt: skip
        for metric, value in (
            ("DCGM_FI_DEV_GPU_UTIL", 100 * card.utilization),
            ("DCGM_FI_DEV_FB_USED", card.used_mib),
            ("DCGM_FI_DEV_FB_FREE", card.total_mib - card.used_mib),
            ("DCGM_FI_DEV_GPU_TEMP", card.celsius),
            ("DCGM_FI_DEV_POWER_USAGE", card.watts),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1000 * at * card.watts),
        ):
            yield SampleLine(metric, labels, value)


def nvidia_gpu_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        uuid = card.uuid.removeprefix("GPU-")
        labels = {"uuid": uuid, "name": card.name, "index": str(card.index), "pci_bus_id": "00000000:1B:00.0"}
        yield SampleLine("nvidia_smi_gpu_info", {**labels, "driver_version": "550.54.15"}, 1)
        for metric, value in (
            ("nvidia_smi_utilization_gpu_ratio", card.utilization),
            ("nvidia_smi_memory_used_bytes", card.used_mib * MIB),
            ("nvidia_smi_memory_total_bytes", card.total_mib * MIB),
            ("nvidia_smi_temperature_gpu", card.celsius),
            ("nvidia_smi_power_draw_watts", card.watts),
        ):
            yield SampleLine(metric, {"uuid": uuid}, value)


def nvitop_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        labels = {"hostname": "172.17.0.2", "index": str(card.index), "devicename": card.name, "uuid": card.uuid}
        for metric, value in (
            ("gpu_utilization_Percentage", 100 * card.utilization),
            ("gpu_memory_used_MiB", card.used_mib),
            ("gpu_memory_total_MiB", card.total_mib),
            ("gpu_temperature_C", card.celsius),
            ("gpu_power_usage_W", card.watts),
        ):
            yield SampleLine(metric, labels, value)


def amd_device_metrics_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        labels = {
            "serial_number": card.uuid, "gpu_id": str(card.index), "card_series": card.name, "card_model": "102-G302",
            "hostname": host.name, "gpu_partition_id": "0", "gpu_compute_partition_type": "spx", "pod": "",
        }  # fmt: skip
        for metric, value in (
            ("gpu_gfx_activity", 100 * card.utilization),
            ("gpu_used_vram", card.used_mib),
            ("gpu_total_vram", card.total_mib),
            ("gpu_junction_temperature", card.celsius),
            ("gpu_package_power", card.watts),
        ):
            yield SampleLine(metric, labels, value)


def npu_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    for card in host.cards:
        labels = {"id": str(card.index), "vdie_id": card.uuid, "model_name": card.name, "pcie_bus_info": "0000:61:00.0"}
        for metric, value in (
            ("npu_chip_info_utilization", 100 * card.utilization),
            ("npu_chip_info_hbm_used_memory", card.used_mib),
            ("npu_chip_info_hbm_total_memory", card.total_mib),
            ("npu_chip_info_used_memory", 0.0),
            ("npu_chip_info_total_memory", 0.0),
            ("npu_chip_info_temperature", card.celsius),
            ("npu_chip_info_power", card.watts),
        ):
            yield SampleLine(metric, labels, value)


Exposition = Callable[[ExportedHost, float], Iterable[SampleLine]]

#: By the mapping's name.
EXPOSITIONS: dict[str, Exposition] = {
    "gpu-exporter": gpu_exporter,
    "dcgm-exporter": dcgm_exporter,
    "nvidia_gpu_exporter": nvidia_gpu_exporter,
    "nvitop-exporter": nvitop_exporter,
    "amd-device-metrics-exporter": amd_device_metrics_exporter,
    "npu-exporter": npu_exporter,
}


def node_exporter(host: ExportedHost, at: float) -> Iterator[SampleLine]:
    yield SampleLine("node_uname_info", {"nodename": host.name}, 1)
    for mode, share in (("idle", 0.25), ("user", 0.75)):
        yield SampleLine("node_cpu_seconds_total", {"cpu": "0", "mode": mode}, 100 + at * share)


def exposition(lines: Iterable[SampleLine]) -> str:
    """The page that an exporter serves."""
    return "".join(f"{line.metric}{{{_labels(line.labels)}}} {_number(line.value)}\n" for line in lines)


def openmetrics_lines(lines: Iterable[SampleLine], job: str, instance: str, at: float) -> str:
    """The same as a Prometheus stores it, in OpenMetrics' form for promtool, with `up`."""
    target = {"job": job, "instance": instance}
    every = [*lines, SampleLine("up", {}, 1)]
    return "".join(
        f"{line.metric}{{{_labels({**line.labels, **target})}}} {_number(line.value)} {at:.3f}\n" for line in every
    )


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "NaN" if value != value else repr(value)
