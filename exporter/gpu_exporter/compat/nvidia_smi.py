"""The families of NVIDIA GPUs under the names of nvidia_gpu_exporter, for its dashboard.

That exporter (github.com/utkuozdemir/nvidia_gpu_exporter, docs/METRICS.md) names its families after the columns of
`nvidia-smi --query-gpu`, in base units. Values come from our own readings: neither it nor nvidia-smi is needed, and a
value that we do not have is absent. Its graphics clock is our SM clock, which on present GPUs is the same clock. Its
uuids lack the prefix of NVIDIA's. It has the paths of processes; here they have their names, which hold no secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.compat.source import CounterRates, Gpu, ValuesByLabels, parse_gpu_info, values_by_family
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType, group_by_family
from gpu_exporter.snapshot import DeviceReading

UUID_PREFIX = "GPU-"


class ColumnMapping(NamedTuple):
    """A column of nvidia-smi as the row of our family that has these labels after uuid."""

    family: MetricFamily
    source: MetricFamily
    row: tuple[str, ...] = ()


def _smi_family(name: str, help_: str, *labels: str, type_: MetricType = "gauge") -> MetricFamily:
    return MetricFamily(f"{metrics.NVIDIA_SMI_PREFIX}{name}", type_, help_, ("uuid", *labels))


def _column(name: str, help_: str, source: MetricFamily, *row: str) -> ColumnMapping:
    return ColumnMapping(_smi_family(name, help_), source, row)


def _reason(name: str, ours: str) -> ColumnMapping:
    help_ = f"1 while the clocks are lowered for the reason {ours}."
    return _column(f"clocks_event_reasons_{name}", help_, metrics.THROTTLE_ACTIVE, ours)


def _reason_time(name: str, ours: str) -> ColumnMapping:
    help_ = f"Time during which the clocks were lowered for the reason {ours}."
    return _column(f"clocks_event_reasons_counters_{name}_seconds", help_, metrics.THROTTLE_SECONDS, ours)


COLUMNS: tuple[ColumnMapping, ...] = (
    _column("utilization_gpu_ratio", "Ratio of time during which a kernel was running.", metrics.UTILIZATION),
    _column("utilization_memory_ratio", "Ratio of time during which memory was accessed.", metrics.MEMORY_ACTIVITY),
    _column("utilization_encoder_ratio", "Utilization of the video encoder.", metrics.ENCODER_UTILIZATION),
    _column("utilization_decoder_ratio", "Utilization of the video decoder.", metrics.DECODER_UTILIZATION),
    _column("memory_total_bytes", "Total memory.", metrics.MEMORY_TOTAL),
    _column("memory_used_bytes", "Memory allocated by processes.", metrics.MEMORY_USED),
    _column("memory_reserved_bytes", "Memory reserved by the driver.", metrics.MEMORY_RESERVED),
    _column("temperature_gpu", "Temperature of the core, in degrees Celsius.", metrics.TEMPERATURE),
    _column("temperature_memory", "Temperature of the memory, in degrees Celsius.", metrics.MEMORY_TEMPERATURE),
    _column("power_draw_watts", "Power draw of the board.", metrics.POWER),
    _column("power_limit_watts", "Power limit.", metrics.POWER_LIMIT),
    _column("enforced_power_limit_watts", "Enforced power limit.", metrics.POWER_LIMIT),
    _column("power_max_limit_watts", "Highest power limit that may be set.", metrics.POWER_LIMIT_MAX),
    _column("clocks_current_graphics_clock_hz", "Current graphics clock.", metrics.SM_CLOCK),
    _column("clocks_current_sm_clock_hz", "Current SM clock.", metrics.SM_CLOCK),
    _column("clocks_current_memory_clock_hz", "Current memory clock.", metrics.MEMORY_CLOCK),
    _column("clocks_current_video_clock_hz", "Current video clock.", metrics.VIDEO_CLOCK),
    _column("clocks_max_graphics_clock_hz", "Maximum graphics clock.", metrics.SM_CLOCK_MAX),
    _column("clocks_max_sm_clock_hz", "Maximum SM clock.", metrics.SM_CLOCK_MAX),
    _column("clocks_max_memory_clock_hz", "Maximum memory clock.", metrics.MEMORY_CLOCK_MAX),
    _column("fan_speed_ratio", "Requested fan speed.", metrics.FAN_SPEED),
    _column("pstate", "Performance state: 0 is the fastest.", metrics.PERFORMANCE_STATE),
    _column("gpu_recovery_action", "Action recommended by the driver: 0 is none.", metrics.RECOVERY_ACTION),
    _column("fabric_state", "State of joining the NVLink fabric: 3 is completed.", metrics.FABRIC_STATE),
    _column("compute_mode", "Compute mode: 0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process.",
            metrics.COMPUTE_MODE),
    _column("pcie_link_gen_current", "Current PCIe link generation.", metrics.PCIE_GENERATION),
    _column("pcie_link_width_current", "Current PCIe link width, in lanes.", metrics.PCIE_WIDTH),
    _column("compute_apps", "Processes with a compute context.", metrics.PROCESSES),
    _column("ecc_errors_corrected_aggregate_total", "Corrected memory errors.", metrics.ECC_ERRORS, "corrected"),
    _column("ecc_errors_uncorrected_aggregate_total", "Uncorrected memory errors.", metrics.ECC_ERRORS, "uncorrected"),
    _column("remapped_rows_correctable", "Rows remapped after correctable errors.", metrics.REMAPPED_ROWS,
            "correctable"),
    _column("remapped_rows_uncorrectable", "Rows remapped after uncorrectable errors.", metrics.REMAPPED_ROWS,
            "uncorrectable"),
    _column("remapped_rows_pending", "1 if a row remapping is pending.", metrics.ROW_REMAP_PENDING),
    _column("remapped_rows_failure", "1 if a row remapping has failed.", metrics.ROW_REMAP_FAILED),
    _column("clocks_event_reasons_gpu_idle", "1 while the clocks are lowered because nothing runs.",
            metrics.IDLE_REASON_ACTIVE),
    _reason("applications_clocks_setting", "application_clocks"),
    _reason("sw_power_cap", "sw_power_cap"),
    _reason("hw_slowdown", "hw_slowdown"),
    _reason("sync_boost", "sync_boost"),
    _reason("sw_thermal_slowdown", "sw_thermal"),
    _reason("hw_thermal_slowdown", "hw_thermal"),
    _reason("hw_power_brake_slowdown", "hw_power_brake"),
    _reason_time("sw_power_cap", "sw_power_cap"),
    _reason_time("sync_boost", "sync_boost"),
    _reason_time("sw_thermal_slowdown", "sw_thermal"),
    _reason_time("hw_thermal_slowdown", "hw_thermal"),
    _reason_time("hw_power_brake_slowdown", "hw_power_brake"),
    ColumnMapping(_smi_family("energy_joules_total", "Energy consumed since driver load.", type_="counter"),
                  metrics.ENERGY),
)  # fmt: skip
RATES: tuple[ColumnMapping, ...] = (
    _column("pcie_throughput_tx_bytes_per_second", "Data sent over PCIe, since the last scrape.",
            metrics.PCIE_TRANSMIT),
    _column("pcie_throughput_rx_bytes_per_second", "Data received over PCIe, since the last scrape.",
            metrics.PCIE_RECEIVE),
)  # fmt: skip
MEMORY_FREE = _smi_family("memory_free_bytes", "Free memory.")

#: Families with further labels, which ours have, too.
XID_ERRORS = _smi_family("xid_errors_total", "Xid errors by code.", "xid", type_="counter")
XID_LAST_TIMESTAMP = _smi_family("xid_last_timestamp_seconds", "Time of the last Xid with this code.", "xid")
LABELLED: tuple[ColumnMapping, ...] = (
    ColumnMapping(XID_ERRORS, metrics.XID_ERRORS),
    ColumnMapping(XID_LAST_TIMESTAMP, metrics.XID_LAST_TIMESTAMP),
)

INFO = _smi_family(
    "gpu_info", "Identity of the GPU, always 1.", "index", "name", "driver_version", "pci_bus_id"
)  # fmt: skip
INDEX = _smi_family("index", "Index of the GPU.")
MIG_INFO = _smi_family(
    "mig_info", "MIG instance of the GPU, always 1.", "mig_uuid", "gpu_instance_id", "compute_instance_id", "profile"
)
INSTANCE = "gpu_instance_id"
MIG_COLUMNS: tuple[ColumnMapping, ...] = tuple(
    ColumnMapping(_smi_family(f"mig_{name}", help_, INSTANCE), source)
    for name, help_, source in (
        ("memory_total_bytes", "Total memory of the MIG instance.", metrics.MEMORY_TOTAL),
        ("memory_used_bytes", "Memory of the MIG instance allocated by processes.", metrics.MEMORY_USED),
        ("memory_reserved_bytes", "Memory of the MIG instance reserved by the driver.", metrics.MEMORY_RESERVED),
        ("graphics_activity_ratio", "Activity of the MIG instance's engines.", metrics.ENGINE_ACTIVITY),
        ("sm_activity_ratio", "SM activity of the MIG instance.", metrics.SM_ACTIVITY),
        ("sm_occupancy_ratio", "SM occupancy of the MIG instance.", metrics.SM_OCCUPANCY),
        ("tensor_activity_ratio", "Tensor core activity of the MIG instance.", metrics.TENSOR_ACTIVITY),
    )
)
APP_LABELS = ("pid", "process_name")
APP_INFO = _smi_family("compute_app_info", "Process with a compute context, always 1.", *APP_LABELS)
APP_MEMORY = _smi_family("compute_app_used_memory_bytes", "GPU memory used by the process.", *APP_LABELS)
COUNT = MetricFamily("nvidia_smi_count", "gauge", "NVIDIA GPUs that are up.")
COLLECTED = MetricFamily("nvidia_smi_last_collect_success", "gauge", "1 if a GPU could be read.")
APPS_COLLECTED = MetricFamily(
    "nvidia_smi_compute_apps_last_collect_success", "gauge", "1 if the processes of a GPU could be read."
)

NVIDIA_SMI_FAMILIES: tuple[MetricFamily, ...] = (
    *(line.family for line in (*COLUMNS, *RATES, *LABELLED, *MIG_COLUMNS)),
    MEMORY_FREE, INFO, INDEX, MIG_INFO, APP_INFO, APP_MEMORY, COUNT, COLLECTED, APPS_COLLECTED,
)  # fmt: skip

Row = tuple[MetricFamily, tuple[str, ...], float]


class NvidiaSmiFamilies:
    """The families of each page. `procfs` is where the names of processes are read."""

    def __init__(self, procfs: Path = Path("/proc"), rates: CounterRates | None = None) -> None:
        self._names = ProcessNames(procfs)
        self._rates = rates or CounterRates()

    def samples(self, samples: Sequence[FamilySamples], devices: Sequence[DeviceReading]) -> list[FamilySamples]:
        """The families of these GPUs. `samples` are those of snapshot.device_samples() of `devices`."""
        values = values_by_family(samples)
        gpus = parse_gpu_info(values)
        whole = {gpu.uuid: gpu for gpu in gpus if not gpu.parent}
        instances = {gpu.uuid: gpu for gpu in gpus if gpu.parent}
        rows = [*_identity_rows(whole.values(), instances.values()), *self._column_rows(values, whole)]
        rows += _instance_rows(values, instances)
        rows += self._process_rows(devices, whole | instances)
        has_processes = any(uuid in whole for uuid, *_ in values.get(metrics.PROCESSES, {}))
        rows += [
            (COUNT, (), float(len(whole))),
            (COLLECTED, (), float(bool(whole))),
            (APPS_COLLECTED, (), float(has_processes)),
        ]
        return group_by_family(rows) if gpus else []

    def _column_rows(self, values: Mapping[MetricFamily, ValuesByLabels], whole: Mapping[str, Gpu]) -> Iterator[Row]:
        for family, source, row in COLUMNS:
            for (uuid, *labels), value in values.get(source, {}).items():
                if uuid in whole and tuple(labels) == row:
                    yield family, (_short(uuid),), value
        for family, source, _ in LABELLED:
            for (uuid, *labels), value in values.get(source, {}).items():
                if uuid in whole:
                    yield family, (_short(uuid), *labels), value
        for family, source, _ in RATES:
            for uuid, rate in self._rates.rates(source, values.get(source, {})).items():
                if uuid in whole:
                    yield family, (_short(uuid),), rate
        total, used = values.get(metrics.MEMORY_TOTAL, {}), values.get(metrics.MEMORY_USED, {})
        reserved = values.get(metrics.MEMORY_RESERVED, {})
        for key in total:
            if key[0] in whole and key in used and key in reserved:
                yield MEMORY_FREE, (_short(key[0]),), max(0.0, total[key] - used[key] - reserved[key])

    def _process_rows(self, devices: Sequence[DeviceReading], gpus: Mapping[str, Gpu]) -> Iterator[Row]:
        self._names.keep_only({process.pid for device in devices for process in device.processes})
        seen: dict[tuple[str, ...], int | None] = {}
        for device in devices:
            gpu = gpus.get(device.identity.uuid)
            for process in device.processes if gpu else ():
                assert gpu
                seen[_short(gpu.whole_uuid), str(process.pid), self._names.name(process.pid)] = process.used_bytes
        for labels, used_bytes in seen.items():
            yield APP_INFO, labels, 1.0
            if used_bytes is not None:
                yield APP_MEMORY, labels, float(used_bytes)


class ProcessNames:
    """Names of processes by pid, read once: a process that is listed all the time keeps its name."""

    def __init__(self, procfs: Path) -> None:
        self._procfs = str(procfs)
        self._names: dict[int, str] = {}

    def name(self, pid: int) -> str:
        """Empty if the process ended, or belongs to another pid namespace."""
        if pid not in self._names:
            try:
                with open(f"{self._procfs}/{pid}/comm", "rb", buffering=0) as file:
                    self._names[pid] = file.read().strip().decode("utf-8", "replace")
            except OSError:
                return ""
        return self._names[pid]

    def keep_only(self, pids: Iterable[int]) -> None:
        """Forget the other processes: their numbers may be used again."""
        self._names = {pid: name for pid, name in self._names.items() if pid in pids}


def _identity_rows(whole: Iterable[Gpu], instances: Iterable[Gpu]) -> Iterator[Row]:
    for gpu in whole:
        uuid = _short(gpu.uuid)
        yield INFO, (uuid, gpu.nvml_index, gpu.name, gpu.driver_version, gpu.pci_bus_id), 1.0
        if gpu.nvml_index.isdigit():
            yield INDEX, (uuid,), float(gpu.nvml_index)
    for gpu in instances:
        # NVML's list has no compute instance ids; one GPU instance rarely has several.
        yield MIG_INFO, (_short(gpu.parent), gpu.uuid, gpu.gpu_instance_id, "", gpu.mig_profile), 1.0


def _instance_rows(values: Mapping[MetricFamily, ValuesByLabels], instances: Mapping[str, Gpu]) -> Iterator[Row]:
    for family, source, _ in MIG_COLUMNS:
        found: dict[tuple[str, ...], float] = {}
        for (uuid, *_), value in values.get(source, {}).items():
            if gpu := instances.get(uuid):
                found.setdefault((_short(gpu.parent), gpu.gpu_instance_id), value)
        yield from ((family, labels, value) for labels, value in found.items())


def _short(uuid: str) -> str:
    return uuid.removeprefix(UUID_PREFIX)
