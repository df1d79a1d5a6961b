"""The families of NVIDIA GPUs under the names, labels and units of dcgm-exporter, for dashboards made for it.

Values come from our own readings: DCGM is not needed, and a value that we do not have is absent here too. Names, types
and units are those of dcgm-exporter's etc/default-counters.csv and etc/dcp-metrics-included.csv. Not mapped: fields
that are rates there and counters here (PCIe and NVLink traffic), and the violation times, whose unit in these files
changed from microseconds to nanoseconds between versions.

dcgm-exporter repeats the values of a GPU in MIG mode for each instance. Here each value appears once, on the instances
if they report it and otherwise on the whole GPU, so that a sum counts nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType

VENDOR = "nvidia"
"""DCGM supports no other vendor."""

MIB = 1024.0**2
PERCENT = 100.0
MEGAHERTZ = 1e-6
MILLIJOULES = 1000.0

LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName")
MIG_LABELS = ("GPU_I_PROFILE", "GPU_I_ID")
"""Only if there are MIG instances: the profile and the driver's id of the GPU instance."""
TRAILING_LABELS = ("Hostname", "DCGM_FI_DRIVER_VERSION")


class FieldMapping(NamedTuple):
    """A DCGM field as `value * scale` of the row of our family that has these labels after uuid."""

    family: MetricFamily
    source: MetricFamily
    scale: float = 1.0
    row: tuple[str, ...] = ()


def _dcgm_family(name: str, type_: MetricType, help_: str) -> MetricFamily:
    return MetricFamily(f"DCGM_FI_{name}", type_, help_, (*LABELS, *TRAILING_LABELS))


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
    _map_counter(
        "DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy consumed since driver load, in mJ.",
        metrics.ENERGY,
        scale=MILLIJOULES,
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

FB_FREE = _dcgm_family("DEV_FB_FREE", "gauge", "Free memory, in MiB.")
XID_ERRORS = _dcgm_family("DEV_XID_ERRORS", "gauge", "Code of the last Xid error, 0 if none.")

DCGM_FAMILIES: tuple[MetricFamily, ...] = (*(line.family for line in FIELD_MAPPINGS), FB_FREE, XID_ERRORS)

ValuesByLabels = dict[tuple[str, ...], float]


def dcgm_samples(samples: Sequence[FamilySamples]) -> list[FamilySamples]:
    """The DCGM families of these GPUs. `samples` are those of snapshot.device_samples(), including gpu_info."""
    values = {each.family: dict(each.rows) for each in samples}
    gpus = _parse_gpu_info(values.get(metrics.INFO, {}))
    has_mig = any(gpu.parent for gpu in gpus)
    result = []
    for family, rows in _dcgm_values(values):
        reporting = [gpu for gpu in gpus if gpu.uuid in rows]
        reported_by_instances = {gpu.parent for gpu in reporting}
        labelled_rows = tuple(
            (gpu.labels(has_mig), rows[gpu.uuid]) for gpu in reporting if gpu.uuid not in reported_by_instances
        )
        if labelled_rows:
            result.append(FamilySamples(_with_mig_labels(family) if has_mig else family, labelled_rows))
    return result


def _dcgm_values(values: dict[MetricFamily, ValuesByLabels]) -> Iterator[tuple[MetricFamily, dict[str, float]]]:
    """Each DCGM family, with its values by uuid."""
    for line in FIELD_MAPPINGS:
        rows = values.get(line.source, {})
        # Rounded because of binary fractions: 0.29 * 100 is 28.999999999999996.
        yield line.family, {key[0]: round(v * line.scale, 9) for key, v in rows.items() if key[1:] == line.row}
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


class _Gpu(NamedTuple):
    """A GPU from gpu_info. `parent` is the uuid of the whole GPU for a MIG instance, else empty."""

    uuid: str
    nvml_index: str
    name: str
    pci_bus_id: str
    driver_version: str
    parent: str
    mig_profile: str
    gpu_instance_id: str
    nodename: str

    def labels(self, has_mig: bool) -> tuple[str, ...]:
        number, _, place = self.nvml_index.partition(":")
        # As in dcgm-exporter: an instance has the uuid of its GPU, and GPU_I_ID distinguishes it.
        uuid = self.parent or self.uuid
        # A compute instance has the values of its GPU instance: 1c.3g.40gb is a third of the compute of a 3g.40gb.
        profile = self.mig_profile.rpartition("c.")[2]
        instance = self.gpu_instance_id or (f"unknown-{place}" if place else "")
        mig = (profile, instance) if has_mig else ()
        own = (number, uuid, self.pci_bus_id, f"nvidia{number}", self.name)
        return (*own, *mig, self.nodename, self.driver_version)


def _parse_gpu_info(info: Iterable[tuple[str, ...]]) -> list[_Gpu]:
    result = []
    for labels in info:
        of = dict(zip(metrics.INFO.labels, labels, strict=True))
        if of["vendor"] == VENDOR:
            result.append(
                _Gpu(
                    of["uuid"],
                    of["index"],
                    of["name"],
                    of["pci_bus_id"],
                    of["driver_version"],
                    of["parent_uuid"],
                    of["mig_profile"],
                    of["gpu_instance_id"],
                    of["nodename"],
                )
            )
    return result


@lru_cache(maxsize=len(DCGM_FAMILIES))
def _with_mig_labels(family: MetricFamily) -> MetricFamily:
    return MetricFamily(family.name, family.type, family.help, (*LABELS, *MIG_LABELS, *TRAILING_LABELS))
