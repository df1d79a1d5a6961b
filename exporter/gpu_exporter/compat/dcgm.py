"""The families of NVIDIA GPUs under the names, labels and units of dcgm-exporter, for dashboards made for it.

Values come from our own readings: DCGM is not needed, and a value that we do not have is absent here too. Names, types
and units are those of dcgm-exporter's etc/default-counters.csv and etc/dcp-metrics-included.csv. Traffic, which is a
rate there and a counter here, is the mean rate since the last scrape. Not mapped: the violation times, whose unit in
these files changed from microseconds to nanoseconds between versions.

dcgm-exporter repeats the values of a GPU in MIG mode for each instance. Here each value appears once, on the instances
if they report it and otherwise on the whole GPU, so that a sum counts nothing twice. A GPU that pods share has the
labels of the first of them, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.compat.source import (
    CounterRates,
    Gpu,
    PodLabels,
    ValuesByLabels,
    parse_gpu_info,
    pods_by_uuid,
    values_by_family,
)
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType

MIB = 1024.0**2
PERCENT = 100.0
MEGAHERTZ = 1e-6
MILLIJOULES = 1000.0

LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName")
MIG_LABELS = ("GPU_I_PROFILE", "GPU_I_ID")
"""Only if there are MIG instances: the profile and the driver's id of the GPU instance."""
TRAILING_LABELS = ("Hostname", "DCGM_FI_DRIVER_VERSION")
POD_LABELS = ("container", "namespace", "pod")
"""Only if pods own GPUs. Where Prometheus scrapes pods, it renames these to exported_pod and so on, as DCGM's users
know, unless honor_labels is set."""


class FieldMapping(NamedTuple):
    """A DCGM field as `value * scale` of the row of our family that has these labels after uuid."""

    family: MetricFamily
    source: MetricFamily
    scale: float = 1.0
    row: tuple[str, ...] = ()


def _dcgm_family(name: str, type_: MetricType, help_: str) -> MetricFamily:
    return MetricFamily(f"{metrics.DCGM_PREFIX}{name}", type_, help_, (*LABELS, *TRAILING_LABELS))


def _map_gauge(name: str, help_: str, source: MetricFamily, scale: float = 1.0) -> FieldMapping:
    return FieldMapping(_dcgm_family(name, "gauge", help_), source, scale)


def _map_counter(
    name: str, help_: str, source: MetricFamily, row: tuple[str, ...] = (), scale: float = 1.0
) -> FieldMapping:
    return FieldMapping(_dcgm_family(name, "counter", help_), source, scale, row)


FIELD_MAPPINGS: tuple[FieldMapping, ...] = (
    _map_gauge("DEV_SM_CLOCK", "Current SM clock, in MHz.", metrics.SM_CLOCK, MEGAHERTZ),
    _map_gauge("DEV_MEM_CLOCK", "Current memory clock, in MHz.", metrics.MEMORY_CLOCK, MEGAHERTZ),
    _map_gauge("DEV_MAX_SM_CLOCK", "Maximum SM clock, in MHz.", metrics.SM_CLOCK_MAX, MEGAHERTZ),
    _map_gauge("DEV_MAX_MEM_CLOCK", "Maximum memory clock, in MHz.", metrics.MEMORY_CLOCK_MAX, MEGAHERTZ),
    _map_gauge("DEV_MEMORY_TEMP", "Temperature of the GPU memory, in degrees Celsius.", metrics.MEMORY_TEMPERATURE),
    _map_gauge("DEV_GPU_TEMP", "Temperature of the GPU core, in degrees Celsius.", metrics.TEMPERATURE),
    _map_gauge("DEV_FAN_SPEED", "Fan speed, in percent.", metrics.FAN_SPEED, PERCENT),
    _map_gauge("DEV_POWER_USAGE", "Power draw, in watts.", metrics.POWER),
    _map_gauge("DEV_POWER_MGMT_LIMIT", "Enforced power limit, in watts.", metrics.POWER_LIMIT),
    _map_gauge("DEV_POWER_MGMT_LIMIT_MAX", "Highest power limit that may be set, in watts.", metrics.POWER_LIMIT_MAX),
    _map_gauge("DEV_VIDEO_CLOCK", "Current video clock, in MHz.", metrics.VIDEO_CLOCK, MEGAHERTZ),
    _map_counter(
        "DEV_TOTAL_ENERGY_CONSUMPTION", "Energy consumed since driver load, in mJ.", metrics.ENERGY, scale=MILLIJOULES
    ),
    _map_gauge("DEV_PSTATE", "Performance state: 0 is the fastest.", metrics.PERFORMANCE_STATE),
    _map_counter("DEV_PCIE_REPLAY_COUNTER", "PCIe replays.", metrics.PCIE_REPLAYS),
    _map_gauge(
        "DEV_GPU_UTIL", "Share of time during which a kernel was running, in percent.", metrics.UTILIZATION, PERCENT
    ),
    _map_gauge(
        "DEV_MEM_COPY_UTIL",
        "Share of time during which memory was read or written, in percent.",
        metrics.MEMORY_ACTIVITY,
        PERCENT,
    ),
    _map_gauge("DEV_ENC_UTIL", "Utilization of the video encoder, in percent.", metrics.ENCODER_UTILIZATION, PERCENT),
    _map_gauge("DEV_DEC_UTIL", "Utilization of the video decoder, in percent.", metrics.DECODER_UTILIZATION, PERCENT),
    _map_gauge("DEV_FB_TOTAL", "Total memory of the GPU, in MiB.", metrics.MEMORY_TOTAL, 1 / MIB),
    _map_gauge("DEV_FB_USED", "Used memory, in MiB.", metrics.MEMORY_USED, 1 / MIB),
    _map_gauge("DEV_FB_RESERVED", "Memory reserved by the driver, in MiB.", metrics.MEMORY_RESERVED, 1 / MIB),
    _map_counter(
        "DEV_ECC_SBE_AGG_TOTAL",
        "Corrected memory errors over the lifetime of the GPU.",
        metrics.ECC_ERRORS,
        ("corrected",),
    ),
    _map_counter(
        "DEV_ECC_DBE_AGG_TOTAL",
        "Uncorrected memory errors over the lifetime of the GPU.",
        metrics.ECC_ERRORS,
        ("uncorrected",),
    ),
    _map_counter("DEV_RETIRED_SBE", "Pages retired for single-bit errors.", metrics.RETIRED_PAGES, ("single_bit",)),
    _map_counter("DEV_RETIRED_DBE", "Pages retired for double-bit errors.", metrics.RETIRED_PAGES, ("double_bit",)),
    _map_counter(
        "DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after uncorrectable errors.",
        metrics.REMAPPED_ROWS,
        ("uncorrectable",),
    ),
    _map_counter(
        "DEV_CORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after correctable errors.",
        metrics.REMAPPED_ROWS,
        ("correctable",),
    ),
    _map_gauge("DEV_ROW_REMAP_FAILURE", "1 if a row remapping has failed.", metrics.ROW_REMAP_FAILED),
    _map_gauge("PROF_GR_ENGINE_ACTIVE", "Ratio of time the compute engine was active.", metrics.ENGINE_ACTIVITY),
    _map_gauge("PROF_SM_ACTIVE", "SM activity, 0 to 1.", metrics.SM_ACTIVITY),
    _map_gauge("PROF_SM_OCCUPANCY", "Resident warps as a ratio of the maximum.", metrics.SM_OCCUPANCY),
    _map_gauge("PROF_PIPE_TENSOR_ACTIVE", "Ratio of time the tensor cores were active.", metrics.TENSOR_ACTIVITY),
    _map_gauge("PROF_PIPE_FP64_ACTIVE", "Ratio of time the FP64 pipe was active.", metrics.FP64_ACTIVITY),
    _map_gauge("PROF_PIPE_FP32_ACTIVE", "Ratio of time the FP32 pipe was active.", metrics.FP32_ACTIVITY),
    _map_gauge("PROF_PIPE_FP16_ACTIVE", "Ratio of time the FP16 pipe was active.", metrics.FP16_ACTIVITY),
    _map_gauge("PROF_DRAM_ACTIVE", "Memory bandwidth in use as a ratio of the peak.", metrics.DRAM_BANDWIDTH),
)

RATES: tuple[FieldMapping, ...] = tuple(
    FieldMapping(_dcgm_family(f"PROF_{name}_BYTES", "gauge", f"{what}, in bytes per second."), source)
    for name, what, source in (
        ("PCIE_TX", "Data sent over PCIe", metrics.PCIE_TRANSMIT),
        ("PCIE_RX", "Data received over PCIe", metrics.PCIE_RECEIVE),
        ("NVLINK_TX", "Data sent over NVLink", metrics.NVLINK_TRANSMIT),
        ("NVLINK_RX", "Data received over NVLink", metrics.NVLINK_RECEIVE),
    )
)
"""Families whose source is a counter."""

FB_FREE = _dcgm_family("DEV_FB_FREE", "gauge", "Free memory, in MiB.")
XID_ERRORS = _dcgm_family("DEV_XID_ERRORS", "gauge", "Code of the last Xid error, 0 if none.")

DCGM_FAMILIES: tuple[MetricFamily, ...] = (
    *(line.family for line in (*FIELD_MAPPINGS, *RATES)), FB_FREE, XID_ERRORS,
)  # fmt: skip


class DcgmFamilies:
    """The DCGM families of each page."""

    def __init__(self, rates: CounterRates | None = None) -> None:
        self._rates = rates or CounterRates()

    def samples(self, samples: Sequence[FamilySamples], owners: Sequence[FamilySamples] = ()) -> list[FamilySamples]:
        """The families of these GPUs.

        `samples` are those of snapshot.device_samples(), including gpu_info; `owners` those of the owner collector.
        """
        values = values_by_family(samples)
        gpus, pods = parse_gpu_info(values), pods_by_uuid(owners)
        has_mig = any(gpu.parent for gpu in gpus)
        has_pods = any(gpu.uuid in pods for gpu in gpus)
        result = []
        for family, rows in self._values(values):
            reporting = [gpu for gpu in gpus if gpu.uuid in rows]
            reported_by_instances = {gpu.parent for gpu in reporting}
            labelled_rows = tuple(
                (_labels(gpu, has_mig, pods if has_pods else None), rows[gpu.uuid])
                for gpu in reporting
                if gpu.uuid not in reported_by_instances
            )
            if labelled_rows:
                result.append(FamilySamples(_with_labels(family, has_mig, has_pods), labelled_rows))
        return result

    def _values(
        self, values: Mapping[MetricFamily, ValuesByLabels]
    ) -> Iterator[tuple[MetricFamily, Mapping[str, float]]]:
        """Each DCGM family, with its values by uuid."""
        for line in FIELD_MAPPINGS:
            rows = values.get(line.source, {})
            # Rounded because of binary fractions: 0.29 * 100 is 28.999999999999996.
            yield line.family, {key[0]: round(v * line.scale, 9) for key, v in rows.items() if key[1:] == line.row}
        for line in RATES:
            yield line.family, self._rates.rates(line.source, values.get(line.source, {}))
        memory = [values.get(f, {}) for f in (metrics.MEMORY_TOTAL, metrics.MEMORY_USED, metrics.MEMORY_RESERVED)]
        total, used, reserved = memory
        complete_keys = [key for key in total if key in used and key in reserved]
        yield FB_FREE, {key[0]: max(0.0, total[key] - used[key] - reserved[key]) / MIB for key in complete_keys}
        yield XID_ERRORS, _last_xids(values.get(metrics.XID_ERRORS, {}), values.get(metrics.XID_LAST_TIMESTAMP, {}))


def _last_xids(counts: ValuesByLabels, when: ValuesByLabels) -> dict[str, float]:
    """Last Xid by uuid; 0 for a GPU whose Xids are counted and that had none."""
    last = dict.fromkeys((uuid for uuid, _ in counts), (0.0, 0.0))
    for (uuid, xid), at in when.items():
        last[uuid] = max(last.get(uuid, (0.0, 0.0)), (at, float(xid)))
    return {uuid: xid for uuid, (_, xid) in last.items()}


def _labels(gpu: Gpu, has_mig: bool, pods: Mapping[str, PodLabels] | None) -> tuple[str, ...]:
    """`pods` is None if no GPU belongs to a pod."""
    _, _, place = gpu.nvml_index.partition(":")
    # A compute instance has the values of its GPU instance: 1c.3g.40gb is a third of the compute of a 3g.40gb.
    profile = gpu.mig_profile.rpartition("c.")[2]
    instance = gpu.gpu_instance_id or (f"unknown-{place}" if place else "")
    mig = (profile, instance) if has_mig else ()
    # As in dcgm-exporter: an instance has the uuid of its GPU, and GPU_I_ID distinguishes it.
    own = (gpu.number, gpu.whole_uuid, gpu.pci_bus_id, f"nvidia{gpu.number}", gpu.name)
    pod = pods.get(gpu.uuid, PodLabels("", "", "")) if pods is not None else None
    owner = (pod.container, pod.namespace, pod.pod) if pod else ()
    return (*own, *mig, gpu.nodename, gpu.driver_version, *owner)


@lru_cache(maxsize=4 * len(DCGM_FAMILIES))
def _with_labels(family: MetricFamily, has_mig: bool, has_pods: bool) -> MetricFamily:
    labels = (*LABELS, *(MIG_LABELS if has_mig else ()), *TRAILING_LABELS, *(POD_LABELS if has_pods else ()))
    return family if labels == family.labels else MetricFamily(family.name, family.type, family.help, labels)
