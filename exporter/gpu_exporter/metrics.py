"""What a metric family is, and the one catalogue of the device and self families.

Host collectors declare theirs beside the code that reads them, under node_exporter's own names and labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MetricType = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True, eq=False)
class MetricFamily:
    """A metric family: the name, type, help and label names that all its samples share.

    There is one object a family, and it is equal to itself alone: hashing four texts for every sample of every reading
    was a tenth of the exporter's idle CPU.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


#: Samples of one family: `(label values in the order of family.labels, value)`.
Rows = tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True, slots=True)
class FamilySamples:
    """A family and its samples."""

    family: MetricFamily
    rows: Rows


def single_sample(family: MetricFamily, value: float) -> FamilySamples:
    """A family without labels has one sample."""
    return FamilySamples(family, (((), value),))


def _device_family(name: str, type_: MetricType, help_: str, *extra: str) -> MetricFamily:
    """Device series carry `uuid` and what tells their own rows apart; everything else is in gpu_info."""
    return MetricFamily(name, type_, help_, ("uuid", *extra))


INFO = MetricFamily(
    "gpu_info",
    "gauge",
    "Identity of a GPU, always 1. Join it on uuid.",
    (
        "uuid", "index", "name", "vendor", "pci_bus_id", "driver_version", "parent_uuid", "mig_profile", "nodename",
    ),
)  # fmt: skip
UP = _device_family(
    "gpu_up", "gauge", "1 if the last reading of the GPU succeeded, 0 if the GPU is lost or does not answer."
)
DOWN_INFO = _device_family("gpu_down_info", "gauge", "Why gpu_up is 0; absent while the GPU is up.", "reason")
FAMILY_ABSENT_INFO = _device_family(
    "gpu_family_absent_info", "gauge", "Why a family has no value for this GPU.", "family", "reason"
)

UTILIZATION = _device_family(
    "gpu_utilization_ratio",
    "gauge",
    "Share of the driver's last sampling period (1/6 to 1 s) in which a kernel was running. "
    "Duty cycle, not how much of the GPU is used; for means take rate(gpu_busy_seconds_total).",
)
BUSY_SECONDS_TOTAL = _device_family(
    "gpu_busy_seconds_total", "counter", "Time in which at least one kernel was running, within the observed time."
)
OBSERVED_SECONDS_TOTAL = _device_family(
    "gpu_observed_seconds_total", "counter", "Time covered by gpu_busy_seconds_total."
)
MEMORY_TOTAL = _device_family("gpu_memory_total_bytes", "gauge", "Memory of the GPU.")
MEMORY_USED = _device_family(
    "gpu_memory_used_bytes", "gauge", "Memory allocated by processes; what the driver reserves is not in it."
)
MEMORY_RESERVED = _device_family("gpu_memory_reserved_bytes", "gauge", "Memory that the driver keeps for itself.")
MEMORY_ACTIVITY = _device_family(
    "gpu_memory_activity_ratio",
    "gauge",
    "Share of the driver's last sampling period in which memory was read or written.",
)
TEMPERATURE = _device_family("gpu_temperature_celsius", "gauge", "Temperature of the GPU core.")
POWER = _device_family("gpu_power_watts", "gauge", "Power drawn by the whole board.")
POWER_LIMIT = _device_family("gpu_power_limit_watts", "gauge", "Power limit in force.")
ENERGY = _device_family("gpu_energy_joules_total", "counter", "Energy used since the driver was loaded.")
SM_CLOCK = _device_family("gpu_sm_clock_hertz", "gauge", "Present clock of the streaming multiprocessors.")
SM_CLOCK_MAX = _device_family("gpu_sm_clock_max_hertz", "gauge", "Highest clock of the streaming multiprocessors.")
MEMORY_CLOCK = _device_family("gpu_memory_clock_hertz", "gauge", "Present clock of the memory.")
FAN_SPEED = _device_family("gpu_fan_speed_ratio", "gauge", "Fan speed asked for, as a share of the highest.")
PERFORMANCE_STATE = _device_family(
    "gpu_performance_state", "gauge", "Performance state: 0 is the fastest, 15 the slowest."
)
ENCODER_UTILIZATION = _device_family(
    "gpu_encoder_utilization_ratio", "gauge", "Share of the sampling period in which the video encoder was busy."
)
DECODER_UTILIZATION = _device_family(
    "gpu_decoder_utilization_ratio", "gauge", "Share of the sampling period in which the video decoder was busy."
)
PCIE_GENERATION = _device_family("gpu_pcie_link_generation", "gauge", "Present generation of the PCIe link.")
PCIE_WIDTH = _device_family("gpu_pcie_link_width", "gauge", "Present number of PCIe lanes.")
PCIE_REPLAYS = _device_family("gpu_pcie_replays_total", "counter", "PCIe packets that had to be sent again.")
THROTTLE_ACTIVE = _device_family(
    "gpu_throttle_active", "gauge", "1 while the driver holds the clocks down for this reason.", "reason"
)
ECC_ERRORS = _device_family("gpu_ecc_errors_total", "counter", "Memory errors over the life of the GPU.", "error_type")
REMAPPED_ROWS = _device_family("gpu_remapped_rows", "gauge", "Memory rows replaced after errors.", "cause")
HEALTH = _device_family(
    "gpu_health_info",
    "gauge",
    "Health in the words of the vendor's own tool, in lower case, always 1; ok is the good one.",
    "health",
)
PROCESSES = _device_family("gpu_processes", "gauge", "Processes with a compute context on the GPU.")

THROTTLE_SECONDS = _device_family(
    "gpu_throttle_seconds_total",
    "counter",
    "Time in which the driver held the clocks down for this reason, since the driver was loaded. "
    "sw_power_cap is the power limit at work: normal under full load.",
    "reason",
)
IDLE_HELD_SECONDS = _device_family(
    "gpu_idle_held_seconds_total",
    "counter",
    "Time in which no kernel was running while processes held memory, within the observed time.",
)
BUSY_SOURCE = _device_family(
    "gpu_busy_source_info",
    "gauge",
    "Where gpu_busy_seconds_total comes from, always 1: buffer (the driver's samples), gauge (read at each sampling), "
    "driver (its own counter).",
    "source",
)
UTILIZATION_WINDOW = _device_family(
    "gpu_utilization_window_ratio",
    "gauge",
    "Min, mean and max of utilization in the last whole window of gpu_window_seconds on the wall clock.",
    "statistic",
)
POWER_WINDOW = _device_family(
    "gpu_power_window_watts",
    "gauge",
    "Min, mean and max of power in the last whole window of gpu_window_seconds on the wall clock.",
    "statistic",
)
WINDOW_LENGTH = _device_family("gpu_window_seconds", "gauge", "Length of the windows of the gpu_*_window_* families.")
WINDOW_END = _device_family(
    "gpu_window_end_timestamp_seconds",
    "gauge",
    "End of the window that the gpu_*_window_* families tell of, in seconds since 1970.",
)
MEMORY_TEMPERATURE = _device_family("gpu_memory_temperature_celsius", "gauge", "Temperature of the GPU's memory.")
MEMORY_CLOCK_MAX = _device_family("gpu_memory_clock_max_hertz", "gauge", "Highest clock of the memory.")
ROW_REMAP_PENDING = _device_family(
    "gpu_row_remap_pending", "gauge", "1 if faulty memory rows wait for the next reset of the GPU to be replaced."
)
ROW_REMAP_FAILED = _device_family("gpu_row_remap_failed", "gauge", "1 if a faulty memory row could not be replaced.")
RETIRED_PAGES = _device_family(
    "gpu_retired_pages", "gauge", "Memory pages taken out of use after errors, on GPUs without row remapping.", "cause"
)
RETIRED_PAGES_PENDING = _device_family(
    "gpu_retired_pages_pending", "gauge", "1 if faulty memory pages wait for the next reset to be taken out of use."
)
PCIE_TRANSMIT = _device_family("gpu_pcie_transmit_bytes_total", "counter", "Bytes sent by the GPU over PCIe.")
PCIE_RECEIVE = _device_family("gpu_pcie_receive_bytes_total", "counter", "Bytes received by the GPU over PCIe.")
NVLINK_TRANSMIT = _device_family(
    "gpu_nvlink_transmit_bytes_total", "counter", "Bytes of data sent by the GPU over all NVLinks."
)
NVLINK_RECEIVE = _device_family("gpu_nvlink_receive_bytes_total", "counter", "Bytes of data received over all NVLinks.")
NVLINK_ERRORS = _device_family(
    "gpu_nvlink_errors_total", "counter", "Errors of all NVLinks, by what went wrong.", "error_type"
)
NVLINK_LINKS = _device_family("gpu_nvlink_links", "gauge", "NVLinks that are active, and that are not.", "state")

ENGINE_ACTIVITY = _device_family(
    "gpu_engine_activity_ratio", "gauge", "Share of the time between two samplings in which the compute engine worked."
)
SM_ACTIVITY = _device_family(
    "gpu_sm_activity_ratio", "gauge", "Share of the streaming multiprocessors that were busy, between two samplings."
)
SM_OCCUPANCY = _device_family("gpu_sm_occupancy_ratio", "gauge", "Warps in flight, as a share of the most that fit.")
TENSOR_ACTIVITY = _device_family(
    "gpu_tensor_activity_ratio", "gauge", "Share of the time in which the tensor cores worked."
)
FP64_ACTIVITY = _device_family("gpu_fp64_activity_ratio", "gauge", "Share of the time in which the FP64 pipe worked.")
FP32_ACTIVITY = _device_family("gpu_fp32_activity_ratio", "gauge", "Share of the time in which the FP32 pipe worked.")
FP16_ACTIVITY = _device_family("gpu_fp16_activity_ratio", "gauge", "Share of the time in which the FP16 pipe worked.")
DRAM_BANDWIDTH = _device_family(
    "gpu_dram_bandwidth_ratio", "gauge", "Memory bandwidth in use, as a share of the highest."
)

XID_ERRORS = _device_family(
    "gpu_xid_errors_total",
    "counter",
    "Errors that the NVIDIA driver reported since the exporter began to listen, by Xid code.",
    "xid",
)
XID_LAST_TIMESTAMP = _device_family(
    "gpu_xid_last_timestamp_seconds", "gauge", "When this Xid was last reported, in seconds since 1970.", "xid"
)
XID_INFO = _device_family(
    "gpu_xid_info",
    "gauge",
    "Class of an Xid that was reported, and what NVIDIA advises to do first, always 1.",
    "xid",
    "class",
    "action",
)

DEVICE_FAMILIES: tuple[MetricFamily, ...] = (
    INFO, UP, DOWN_INFO, FAMILY_ABSENT_INFO, UTILIZATION, BUSY_SECONDS_TOTAL, OBSERVED_SECONDS_TOTAL, MEMORY_TOTAL, MEMORY_USED, MEMORY_RESERVED,
    MEMORY_ACTIVITY, TEMPERATURE, POWER, POWER_LIMIT, ENERGY, SM_CLOCK, SM_CLOCK_MAX, MEMORY_CLOCK, FAN_SPEED,
    PERFORMANCE_STATE, ENCODER_UTILIZATION, DECODER_UTILIZATION, PCIE_GENERATION, PCIE_WIDTH, PCIE_REPLAYS, THROTTLE_ACTIVE, ECC_ERRORS,
    REMAPPED_ROWS, PROCESSES,
    THROTTLE_SECONDS, IDLE_HELD_SECONDS, BUSY_SOURCE, UTILIZATION_WINDOW, POWER_WINDOW, WINDOW_LENGTH, WINDOW_END,
    MEMORY_TEMPERATURE, MEMORY_CLOCK_MAX, ROW_REMAP_PENDING, ROW_REMAP_FAILED, RETIRED_PAGES, RETIRED_PAGES_PENDING,
    PCIE_TRANSMIT, PCIE_RECEIVE, NVLINK_TRANSMIT, NVLINK_RECEIVE, NVLINK_ERRORS, NVLINK_LINKS,
    ENGINE_ACTIVITY, SM_ACTIVITY, SM_OCCUPANCY, TENSOR_ACTIVITY, FP64_ACTIVITY, FP32_ACTIVITY, FP16_ACTIVITY,
    DRAM_BANDWIDTH, XID_ERRORS, XID_LAST_TIMESTAMP, XID_INFO,
)  # fmt: skip

VENDOR_FAMILIES: tuple[MetricFamily, ...] = (HEALTH,)
"""Device families that only some vendors' drivers account for; the others do not list them as absent."""

_OWNER_LABELS = (
    "owner_kind", "owner_namespace", "owner_pod", "owner_container", "owner_unit", "owner_user", "training_job",
    "owner_pod_uid", "owner_container_id",
)  # fmt: skip
OWNER_INFO = _device_family(
    "gpu_owner_info",
    "gauge",
    "Who uses the GPU or was given it, always 1; one row an owner. Join it on uuid, owners on the many side.",
    *_OWNER_LABELS,
)
OWNER_MEMORY = _device_family(
    "gpu_owner_memory_used_bytes",
    "gauge",
    "GPU memory that the processes of this owner hold; absent where the driver does not tell it of all of them.",
    *_OWNER_LABELS,
)
GPU_ALLOCATED = _device_family(
    "gpu_allocated",
    "gauge",
    "1 if the kubelet has given the GPU or a slice of it to a container, 0 if not; absent while it does not tell.",
)

OWNER_FAMILIES: tuple[MetricFamily, ...] = (OWNER_INFO, OWNER_MEMORY, GPU_ALLOCATED)

BUILD_INFO = MetricFamily(
    "gpu_exporter_build_info", "gauge", "Version of the exporter, always 1.", ("version", "python_version")
)
SIMULATED_INFO = MetricFamily(
    "gpu_exporter_simulated_info", "gauge", "Present, and 1, if the GPUs of this exporter are simulated.", ("fleet",)
)
DRIVER_INFO = MetricFamily(
    "gpu_exporter_driver_info",
    "gauge",
    "State of each GPU driver, always 1: ok, absent (not installed), no_permission, failed, hung, released.",
    ("driver", "state"),
)
COLLECTOR_SUCCESS = MetricFamily(
    "gpu_exporter_collector_success", "gauge", "1 if the collector's last run succeeded in time.", ("collector",)
)
COLLECTOR_DURATION = MetricFamily(
    "gpu_exporter_collector_duration_seconds",
    "gauge",
    "How long the collector's last finished run took.",
    ("collector",),
)
COLLECTOR_LAST_SUCCESS = MetricFamily(
    "gpu_exporter_collector_last_success_timestamp_seconds",
    "gauge",
    "When the collector last succeeded, in seconds since 1970.",
    ("collector",),
)
OWNER_SOURCE_INFO = MetricFamily(
    "gpu_exporter_owner_source_info",
    "gauge",
    "State of each source of owners, always 1: ok, stale (the last good answer serves), absent, no_permission, "
    "no_host_pids (the exporter is not in the host's pid namespace), failed.",
    ("source", "state"),
)
OWNER_UNKNOWN_DEVICES = MetricFamily(
    "gpu_exporter_owner_unknown_devices",
    "gauge",
    "Devices that the kubelet has given away as GPUs and that are none of the GPUs known here.",
)
TEXTFILE_ERROR = MetricFamily(
    "gpu_exporter_textfile_error", "gauge", "A file of metrics that was skipped, and why, always 1.", ("file", "reason")
)

SELF_FAMILIES: tuple[MetricFamily, ...] = (
    BUILD_INFO, SIMULATED_INFO, DRIVER_INFO, COLLECTOR_SUCCESS, COLLECTOR_DURATION, COLLECTOR_LAST_SUCCESS,
    OWNER_SOURCE_INFO, OWNER_UNKNOWN_DEVICES, TEXTFILE_ERROR,
)  # fmt: skip


def group_by_family(readings: Iterable[tuple[MetricFamily, tuple[str, ...], float]]) -> list[FamilySamples]:
    """Group loose readings by family, in the order in which the families first appear."""
    rows: defaultdict[MetricFamily, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    for family, labels, value in readings:
        rows[family].append((labels, value))
    return [FamilySamples(family, tuple(values)) for family, values in rows.items()]
