"""Metric families: the type, and the catalogue of the device, owner and self families.

Host collectors declare theirs beside the code that reads them, under node_exporter's names and labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MetricType = Literal["counter", "gauge", "untyped"]
"""`untyped` only for families that other exporters declare so."""


@dataclass(frozen=True, slots=True, eq=False)
class MetricFamily:
    """A metric family: the name, type, help and label names that all its samples share.

    Compared by identity, one object per family: hashing four strings for every sample of every reading took a tenth of
    the exporter's idle CPU.
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
    """The only sample of a family without labels."""
    return FamilySamples(family, (((), value),))


def _device_family(name: str, type_: MetricType, help_: str, *extra: str) -> MetricFamily:
    """Device series carry `uuid` and the labels that distinguish their rows; everything else is in gpu_info."""
    return MetricFamily(name, type_, help_, ("uuid", *extra))


INFO = MetricFamily(
    "gpu_info",
    "gauge",
    "Identity of a GPU, always 1. Join on uuid. unified is true if GPU and CPU share their memory.",
    (
        "uuid", "index", "name", "vendor", "pci_bus_id", "driver_version", "parent_uuid", "mig_profile",
        "gpu_instance_id", "unified", "nodename",
    ),
)  # fmt: skip
UP = _device_family(
    "gpu_up",
    "gauge",
    "1 if the last reading of the GPU succeeded, 0 if the GPU is lost or does not respond; absent if the exporter may "
    "not open it.",
)
DOWN_INFO = _device_family("gpu_down_info", "gauge", "Why gpu_up is 0 or absent; absent while the GPU is up.", "reason")
FAMILY_ABSENT_INFO = _device_family(
    "gpu_family_absent_info", "gauge", "Why a family has no value for this GPU.", "family", "reason"
)

UTILIZATION = _device_family(
    "gpu_utilization_ratio",
    "gauge",
    "Ratio of the driver's last sampling period (1/6 to 1 s) during which at least one kernel was running. "
    "A duty cycle, not the share of the GPU in use; for averages use rate(gpu_busy_seconds_total).",
)
BUSY_SECONDS_TOTAL = _device_family(
    "gpu_busy_seconds_total", "counter", "Time during which at least one kernel was running, within the observed time."
)
OBSERVED_SECONDS_TOTAL = _device_family(
    "gpu_observed_seconds_total", "counter", "Time covered by gpu_busy_seconds_total."
)
MEMORY_TOTAL = _device_family("gpu_memory_total_bytes", "gauge", "Total memory of the GPU.")
MEMORY_USED = _device_family(
    "gpu_memory_used_bytes", "gauge", "Memory allocated by processes, without the memory reserved by the driver."
)
MEMORY_POOL_TOTAL = _device_family(
    "gpu_memory_pool_total_bytes",
    "gauge",
    "Size of a pool of memory of an AMD APU: vram (set aside by the firmware) or gtt (mapped on demand). "
    "gpu_memory_total_bytes is the larger one.",
    "pool",
)
MEMORY_POOL_USED = _device_family(
    "gpu_memory_pool_used_bytes", "gauge", "Memory used in a pool of memory of an AMD APU.", "pool"
)
MEMORY_RESERVED = _device_family("gpu_memory_reserved_bytes", "gauge", "Memory reserved by the driver.")
MEMORY_ACTIVITY = _device_family(
    "gpu_memory_activity_ratio",
    "gauge",
    "Ratio of the driver's last sampling period during which device memory was read or written.",
)
TEMPERATURE = _device_family("gpu_temperature_celsius", "gauge", "Temperature of the GPU core.")
POWER = _device_family("gpu_power_watts", "gauge", "Power draw of the whole board.")
POWER_LIMIT = _device_family("gpu_power_limit_watts", "gauge", "Enforced power limit.")
POWER_LIMIT_MAX = _device_family("gpu_power_limit_max_watts", "gauge", "Highest power limit that may be set.")
ENERGY = _device_family("gpu_energy_joules_total", "counter", "Energy consumed since driver load.")
SM_CLOCK = _device_family("gpu_sm_clock_hertz", "gauge", "Current SM clock.")
SM_CLOCK_MAX = _device_family("gpu_sm_clock_max_hertz", "gauge", "Maximum SM clock.")
MEMORY_CLOCK = _device_family("gpu_memory_clock_hertz", "gauge", "Current memory clock.")
VIDEO_CLOCK = _device_family("gpu_video_clock_hertz", "gauge", "Current clock of the video engines.")
FAN_SPEED = _device_family("gpu_fan_speed_ratio", "gauge", "Requested fan speed as a ratio of the maximum.")
PERFORMANCE_STATE = _device_family(
    "gpu_performance_state", "gauge", "Performance state: 0 is the fastest, 15 the slowest."
)
COMPUTE_MODE = _device_family(
    "gpu_compute_mode", "gauge", "Compute mode: 0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process."
)
RECOVERY_ACTION = _device_family(
    "gpu_recovery_action",
    "gauge",
    "What the driver recommends to recover the GPU: 0 nothing, 1 reset it, 2 reboot the node, 3 end peer-to-peer "
    "traffic, 4 drain and reset it; higher numbers are those of NVML.",
)
FABRIC_STATE = _device_family(
    "gpu_fabric_state",
    "gauge",
    "State of joining the NVLink fabric: 1 not started, 2 in progress, 3 completed; absent without a fabric.",
)
IDLE_REASON_ACTIVE = _device_family(
    "gpu_idle_reason_active", "gauge", "1 while the driver lowers the clocks because nothing runs."
)
ENCODER_UTILIZATION = _device_family(
    "gpu_encoder_utilization_ratio", "gauge", "Ratio of the sampling period during which the video encoder was busy."
)
DECODER_UTILIZATION = _device_family(
    "gpu_decoder_utilization_ratio", "gauge", "Ratio of the sampling period during which the video decoder was busy."
)
PCIE_GENERATION = _device_family("gpu_pcie_link_generation", "gauge", "Current PCIe link generation.")
PCIE_WIDTH = _device_family("gpu_pcie_link_width", "gauge", "Current PCIe link width, in lanes.")
PCIE_REPLAYS = _device_family("gpu_pcie_replays_total", "counter", "PCIe replays.")
THROTTLE_ACTIVE = _device_family(
    "gpu_throttle_active", "gauge", "1 while the driver throttles the clocks for this reason.", "reason"
)
ECC_ERRORS = _device_family(
    "gpu_ecc_errors_total", "counter", "Memory errors over the lifetime of the GPU.", "error_type"
)
REMAPPED_ROWS = _device_family("gpu_remapped_rows", "gauge", "Memory rows remapped after errors.", "cause")
HEALTH = _device_family(
    "gpu_health_info",
    "gauge",
    "Health as reported by the vendor's tool, in lower case, always 1; ok if healthy.",
    "health",
)
PROCESSES = _device_family("gpu_processes", "gauge", "Processes with a compute context on the GPU.")

THROTTLE_SECONDS = _device_family(
    "gpu_throttle_seconds_total",
    "counter",
    "Time during which the driver throttled the clocks for this reason, since driver load. "
    "sw_power_cap is the power limit in effect: normal under full load.",
    "reason",
)
IDLE_HELD_SECONDS = _device_family(
    "gpu_idle_held_seconds_total",
    "counter",
    "Time during which no kernel was running while processes had memory allocated, within the observed time.",
)
BUSY_SOURCE = _device_family(
    "gpu_busy_source_info",
    "gauge",
    "Source of gpu_busy_seconds_total, always 1: buffer (the driver's sample buffer), gauge (utilization polled by the "
    "exporter), driver (the driver's own counter).",
    "source",
)
UTILIZATION_WINDOW = _device_family(
    "gpu_utilization_window_ratio",
    "gauge",
    "Min, mean and max of utilization over the last complete window of gpu_window_seconds on the wall clock.",
    "statistic",
)
POWER_WINDOW = _device_family(
    "gpu_power_window_watts",
    "gauge",
    "Min, mean and max of power over the last complete window of gpu_window_seconds on the wall clock.",
    "statistic",
)
WINDOW_LENGTH = _device_family("gpu_window_seconds", "gauge", "Length of the windows of the gpu_*_window_* families.")
WINDOW_END = _device_family(
    "gpu_window_end_timestamp_seconds", "gauge", "End of the window of the gpu_*_window_* families."
)
MEMORY_TEMPERATURE = _device_family("gpu_memory_temperature_celsius", "gauge", "Temperature of the GPU memory.")
MEMORY_CLOCK_MAX = _device_family("gpu_memory_clock_max_hertz", "gauge", "Maximum memory clock.")
ROW_REMAP_PENDING = _device_family(
    "gpu_row_remap_pending", "gauge", "1 if a row remapping is pending until the next reset of the GPU."
)
ROW_REMAP_FAILED = _device_family("gpu_row_remap_failed", "gauge", "1 if a row remapping has failed.")
RETIRED_PAGES = _device_family(
    "gpu_retired_pages", "gauge", "Memory pages retired after errors, on GPUs without row remapping.", "cause"
)
RETIRED_PAGES_PENDING = _device_family(
    "gpu_retired_pages_pending", "gauge", "1 if a page retirement is pending until the next reset of the GPU."
)
PCIE_TRANSMIT = _device_family("gpu_pcie_transmit_bytes_total", "counter", "Bytes transmitted by the GPU over PCIe.")
PCIE_RECEIVE = _device_family("gpu_pcie_receive_bytes_total", "counter", "Bytes received by the GPU over PCIe.")
NVLINK_TRANSMIT = _device_family(
    "gpu_nvlink_transmit_bytes_total", "counter", "Data bytes transmitted by the GPU over all NVLinks."
)
NVLINK_RECEIVE = _device_family(
    "gpu_nvlink_receive_bytes_total", "counter", "Data bytes received by the GPU over all NVLinks."
)
NVLINK_ERRORS = _device_family("gpu_nvlink_errors_total", "counter", "Errors of all NVLinks, by type.", "error_type")
NVLINK_LINKS = _device_family("gpu_nvlink_links", "gauge", "NVLinks by state: active or inactive.", "state")

ENGINE_ACTIVITY = _device_family(
    "gpu_engine_activity_ratio",
    "gauge",
    "Ratio of time between two samplings during which the compute engine was active.",
)
SM_ACTIVITY = _device_family(
    "gpu_sm_activity_ratio",
    "gauge",
    "Ratio of cycles between two samplings in which an SM had at least one warp assigned, averaged over all SMs.",
)
SM_OCCUPANCY = _device_family("gpu_sm_occupancy_ratio", "gauge", "Resident warps as a ratio of the maximum.")
TENSOR_ACTIVITY = _device_family(
    "gpu_tensor_activity_ratio", "gauge", "Ratio of time during which the tensor cores were active."
)
FP64_ACTIVITY = _device_family(
    "gpu_fp64_activity_ratio", "gauge", "Ratio of time during which the FP64 pipe was active."
)
FP32_ACTIVITY = _device_family(
    "gpu_fp32_activity_ratio", "gauge", "Ratio of time during which the FP32 pipe was active."
)
FP16_ACTIVITY = _device_family(
    "gpu_fp16_activity_ratio", "gauge", "Ratio of time during which the FP16 pipe was active."
)
DRAM_BANDWIDTH = _device_family("gpu_dram_bandwidth_ratio", "gauge", "Memory bandwidth in use as a ratio of the peak.")

XID_ERRORS = _device_family(
    "gpu_xid_errors_total",
    "counter",
    "Xid errors reported by the NVIDIA driver since the exporter registered for events, by code; kept across restarts "
    "with --state.directory.",
    "xid",
)
XID_LAST_TIMESTAMP = _device_family(
    "gpu_xid_last_timestamp_seconds", "gauge", "Time of the last Xid with this code.", "xid"
)
XID_INFO = _device_family(
    "gpu_xid_info",
    "gauge",
    "Class and immediate action recommended by NVIDIA for each reported Xid, always 1.",
    "xid",
    "class",
    "action",
)

#: Prefixes of the families that the modules in compat/ serve.
DCGM_PREFIX = "DCGM_FI_"
NVIDIA_SMI_PREFIX = "nvidia_smi_"

DEVICE_FAMILIES: tuple[MetricFamily, ...] = (
    INFO, UP, DOWN_INFO, FAMILY_ABSENT_INFO, UTILIZATION, BUSY_SECONDS_TOTAL, OBSERVED_SECONDS_TOTAL, MEMORY_TOTAL,
    MEMORY_USED, MEMORY_RESERVED, MEMORY_ACTIVITY, TEMPERATURE, POWER, POWER_LIMIT, ENERGY, SM_CLOCK, SM_CLOCK_MAX,
    MEMORY_CLOCK, FAN_SPEED, PERFORMANCE_STATE, ENCODER_UTILIZATION, DECODER_UTILIZATION, PCIE_GENERATION, PCIE_WIDTH,
    PCIE_REPLAYS, THROTTLE_ACTIVE, ECC_ERRORS, REMAPPED_ROWS, PROCESSES, THROTTLE_SECONDS, IDLE_HELD_SECONDS,
    BUSY_SOURCE, UTILIZATION_WINDOW, POWER_WINDOW, WINDOW_LENGTH, WINDOW_END, MEMORY_TEMPERATURE, MEMORY_CLOCK_MAX,
    ROW_REMAP_PENDING, ROW_REMAP_FAILED, RETIRED_PAGES, RETIRED_PAGES_PENDING, PCIE_TRANSMIT, PCIE_RECEIVE,
    NVLINK_TRANSMIT, NVLINK_RECEIVE, NVLINK_ERRORS, NVLINK_LINKS, ENGINE_ACTIVITY, SM_ACTIVITY, SM_OCCUPANCY,
    TENSOR_ACTIVITY, FP64_ACTIVITY, FP32_ACTIVITY, FP16_ACTIVITY, DRAM_BANDWIDTH, XID_ERRORS, XID_LAST_TIMESTAMP,
    XID_INFO, POWER_LIMIT_MAX, VIDEO_CLOCK, COMPUTE_MODE, IDLE_REASON_ACTIVE, RECOVERY_ACTION,
    FABRIC_STATE,
)  # fmt: skip

VENDOR_FAMILIES: tuple[MetricFamily, ...] = (HEALTH, MEMORY_POOL_TOTAL, MEMORY_POOL_USED)
"""Device families of some vendors only; the drivers of others do not list them as absent."""

_OWNER_LABELS = (
    "owner_kind", "owner_namespace", "owner_pod", "owner_container", "owner_unit", "owner_user", "training_job",
    "owner_pod_uid", "owner_container_id", "owner_job_name", "owner_account", "owner_partition", "owner_array_task",
    "owner_step",
)  # fmt: skip
OWNER_INFO = _device_family(
    "gpu_owner_info",
    "gauge",
    "Owner of a process on the GPU or of its allocation, always 1; one series per owner. Join on uuid, owners on the "
    "many side.",
    *_OWNER_LABELS,
)
OWNER_START = _device_family(
    "gpu_owner_start_time_seconds",
    "gauge",
    "Start of the owner's first process on the GPU (Unix time); absent for an allocation without a process.",
    *_OWNER_LABELS,
)
OWNER_MEMORY = _device_family(
    "gpu_owner_memory_used_bytes",
    "gauge",
    "GPU memory used by the processes of this owner; absent if the driver does not report it for all of them.",
    *_OWNER_LABELS,
)
GPU_ALLOCATED = _device_family(
    "gpu_allocated",
    "gauge",
    "1 if the kubelet or Slurm has allocated the GPU or a MIG instance of it, else 0; absent while unknown.",
)

#: With --collector.slurm-queue: the queue of a whole cluster.
QUEUE_ELIGIBLE_JOBS = MetricFamily(
    "gpu_queue_eligible_jobs",
    "gauge",
    "Pending jobs that ask for GPUs and wait only for resources or for jobs before them; tasks of an array count too.",
    ("scheduler", "partition"),
)
QUEUE_ELIGIBLE_GPUS = MetricFamily(
    "gpu_queue_eligible_gpus",
    "gauge",
    "GPUs that the eligible pending jobs ask for; shares of a GPU are not counted.",
    ("scheduler", "partition"),
)
QUEUE_BLOCKED_JOBS = MetricFamily(
    "gpu_queue_blocked_jobs",
    "gauge",
    "Pending jobs that ask for GPUs and wait for something else, by the scheduler's reason: more GPUs would not help.",
    ("scheduler", "partition", "reason"),
)

OWNER_FAMILIES: tuple[MetricFamily, ...] = (
    OWNER_INFO, OWNER_START, OWNER_MEMORY, GPU_ALLOCATED, QUEUE_ELIGIBLE_JOBS, QUEUE_ELIGIBLE_GPUS, QUEUE_BLOCKED_JOBS,
)  # fmt: skip

BUILD_INFO = MetricFamily(
    "gpu_exporter_build_info",
    "gauge",
    "Version of the exporter and of Python, always 1.",
    ("version", "python_version"),
)
SIMULATED_INFO = MetricFamily(
    "gpu_exporter_simulated_info", "gauge", "1 if the GPUs are simulated, else absent.", ("fleet",)
)
DRIVER_INFO = MetricFamily(
    "gpu_exporter_driver_info",
    "gauge",
    "State of each GPU driver, always 1: ok, absent (not installed), no_permission, failed, hung, released.",
    ("driver", "state"),
)
COLLECTOR_SUCCESS = MetricFamily(
    "gpu_exporter_collector_success",
    "gauge",
    "1 if the collector's last run succeeded and no run is overdue.",
    ("collector",),
)
COLLECTOR_DURATION = MetricFamily(
    "gpu_exporter_collector_duration_seconds",
    "gauge",
    "Duration of the collector's last completed run.",
    ("collector",),
)
COLLECTOR_LAST_SUCCESS = MetricFamily(
    "gpu_exporter_collector_last_success_timestamp_seconds",
    "gauge",
    "Time of the collector's last successful run.",
    ("collector",),
)
OWNER_SOURCE_INFO = MetricFamily(
    "gpu_exporter_owner_source_info",
    "gauge",
    "State of each source of owners, always 1: ok, stale (the last good response is used), absent, no_permission, "
    "no_host_pids (the exporter is not in the host's pid namespace), failed.",
    ("source", "state"),
)
OWNER_UNKNOWN_DEVICES = MetricFamily(
    "gpu_exporter_owner_unknown_devices",
    "gauge",
    "Devices that the kubelet or Slurm has allocated as GPUs and that match no known GPU.",
)
TEXTFILE_ERROR = MetricFamily(
    "gpu_exporter_textfile_error", "gauge", "Textfile that was skipped, and the reason, always 1.", ("file", "reason")
)

NODE_COLLECTOR_SUCCESS = MetricFamily(
    "node_scrape_collector_success",
    "gauge",
    "gpu_exporter_collector_success of the host collectors, under node_exporter's name.",
    ("collector",),
)
NODE_COLLECTOR_DURATION = MetricFamily(
    "node_scrape_collector_duration_seconds",
    "gauge",
    "gpu_exporter_collector_duration_seconds of the host collectors, under node_exporter's name.",
    ("collector",),
)

SELF_FAMILIES: tuple[MetricFamily, ...] = (
    BUILD_INFO, SIMULATED_INFO, DRIVER_INFO, COLLECTOR_SUCCESS, COLLECTOR_DURATION, COLLECTOR_LAST_SUCCESS,
    OWNER_SOURCE_INFO, OWNER_UNKNOWN_DEVICES, TEXTFILE_ERROR, NODE_COLLECTOR_SUCCESS, NODE_COLLECTOR_DURATION,
)  # fmt: skip


def group_by_family(readings: Iterable[tuple[MetricFamily, tuple[str, ...], float]]) -> list[FamilySamples]:
    """Group rows by family, in the order in which the families first appear."""
    rows: defaultdict[MetricFamily, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    for family, labels, value in readings:
        rows[family].append((labels, value))
    return [FamilySamples(family, tuple(values)) for family, values in rows.items()]
