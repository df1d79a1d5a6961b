"""The catalogue of signals: each quantity that the advisor uses, defined once.

A signal is a quantity, one of a closed set of reductions, and a window. The mapping of the exporter present turns it
into an expression; the source evaluates that for the whole fleet in one query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpu_advisor.promql.expressions import Aggregate, Expression, restrict_to_values
from gpu_advisor.promql.vocabulary import Reduction, ScopeName
from gpu_advisor.settings import EvaluationSettings

Unit = Literal["ratio", "bytes", "celsius", "count", "seconds", "watts", "hertz", "bytes_per_second"]
WindowName = Literal["now", "short", "half", "idle"]


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    about: str
    scope: ScopeName
    unit: Unit
    quantity: str
    reduction: Reduction
    window: WindowName = "now"

    def window_seconds(self, settings: EvaluationSettings) -> int | None:
        """None for an instant value; "half" is half the idle window."""
        idle = settings.idle_window_seconds
        return {"now": None, "short": settings.window_seconds, "half": max(1, idle // 2), "idle": idle}[self.window]


GPU_UP = Signal("gpu_up", "GPU health", "gpu", "count", "gpu_up", "last")
UTILIZATION = Signal(
    "gpu_utilization", "GPU utilization: share of time a kernel ran", "gpu", "ratio", "gpu_utilization", "mean", "short"
)
UTILIZATION_COVERAGE = Signal(
    "gpu_utilization_coverage", "data coverage of the window", "gpu", "ratio", "gpu_utilization", "coverage",
    "short",
)  # fmt: skip
IDLE_UTILIZATION = Signal(
    "gpu_idle_utilization", "GPU utilization over the idle window", "gpu", "ratio", "gpu_utilization", "mean",
    "idle",
)  # fmt: skip
IDLE_COVERAGE = Signal(
    "gpu_idle_coverage", "data coverage of the idle window", "gpu", "ratio", "gpu_utilization", "coverage",
    "idle",
)  # fmt: skip
IDLE_SAMPLES = Signal(
    "gpu_idle_samples", "samples in the idle window", "gpu", "count", "gpu_utilization", "samples", "idle"
)
MEMORY_USED = Signal("gpu_memory_used", "GPU memory used", "gpu", "ratio", "gpu_memory_used", "mean", "short")
MEMORY_TOTAL = Signal("gpu_memory_total", "GPU memory size", "gpu", "bytes", "gpu_memory_total", "last")
PROCESSES = Signal("gpu_processes", "processes on the GPU", "gpu", "count", "gpu_processes", "last")

# Further signals for diagnoses, all over the idle window: one sample shows a moment only, and how a workload is written
# does not change within minutes.
HALF_IDLE_UTILIZATION = Signal(
    "gpu_half_utilization", "GPU utilization over half the idle window", "gpu", "ratio", "gpu_utilization",
    "mean", "half",
)  # fmt: skip
IDLE_MEMORY_USED = Signal(
    "gpu_memory_held", "GPU memory used over the idle window", "gpu", "ratio", "gpu_memory_used",
    "mean", "idle",
)  # fmt: skip
DAILY_PEAK_UTILIZATION = Signal(
    "gpu_utilization_day_peak", "highest hourly mean of GPU utilization within a day", "gpu", "ratio",
    "gpu_utilization_day_peak", "last",
)  # fmt: skip
SM_ACTIVITY = Signal(
    "gpu_sm_activity", "SM activity: share of SMs busy", "gpu", "ratio", "gpu_sm_activity", "mean", "idle"
)
TENSOR_ACTIVITY = Signal(
    "gpu_tensor_activity", "tensor core activity", "gpu", "ratio", "gpu_tensor_activity",
    "mean", "idle",
)  # fmt: skip
FP32_ACTIVITY = Signal(
    "gpu_fp32_activity", "FP32 pipe activity", "gpu", "ratio", "gpu_fp32_activity", "mean",
    "idle",
)  # fmt: skip
FP64_ACTIVITY = Signal(
    "gpu_fp64_activity", "FP64 pipe activity", "gpu", "ratio", "gpu_fp64_activity", "mean",
    "idle",
)  # fmt: skip
DRAM_ACTIVITY = Signal(
    "gpu_dram_activity", "memory bandwidth used, of the maximum", "gpu", "ratio", "gpu_dram_activity", "mean", "idle"
)
POWER = Signal("gpu_power", "power draw", "gpu", "watts", "gpu_power", "mean", "idle")
POWER_LIMIT = Signal("gpu_power_limit", "power limit", "gpu", "watts", "gpu_power_limit", "last")
SM_CLOCK = Signal("gpu_sm_clock", "SM clock", "gpu", "hertz", "gpu_sm_clock", "mean", "idle")
SM_CLOCK_MAX = Signal("gpu_sm_clock_max", "maximum SM clock", "gpu", "hertz", "gpu_sm_clock_max", "last")
TEMPERATURE = Signal("gpu_temperature", "core temperature", "gpu", "celsius", "gpu_temperature", "last")
THROTTLE_HW_THERMAL = Signal(
    "gpu_throttle_hw_thermal", "share of time thermally throttled by the hardware", "gpu", "ratio",
    "gpu_throttle_hw_thermal", "rate", "idle",
)  # fmt: skip
THROTTLE_SW_THERMAL = Signal(
    "gpu_throttle_sw_thermal", "share of time thermally throttled by the driver", "gpu", "ratio",
    "gpu_throttle_sw_thermal", "rate", "idle",
)  # fmt: skip
THROTTLE_POWER_BRAKE = Signal(
    "gpu_throttle_power_brake", "share of time throttled by the power brake", "gpu", "ratio",
    "gpu_throttle_power_brake", "rate", "idle",
)  # fmt: skip
THROTTLE_POWER_CAP = Signal(
    "gpu_throttle_power_cap", "share of time throttled by the power limit", "gpu", "ratio",
    "gpu_throttle_power_cap", "rate", "idle",
)  # fmt: skip
PCIE_RECEIVE = Signal(
    "gpu_pcie_receive", "PCIe receive rate", "gpu", "bytes_per_second", "gpu_pcie_receive", "rate", "idle"
)
PCIE_TRANSMIT = Signal(
    "gpu_pcie_transmit", "PCIe transmit rate", "gpu", "bytes_per_second", "gpu_pcie_transmit", "rate", "idle"
)
PCIE_GENERATION = Signal("gpu_pcie_generation", "PCIe link generation", "gpu", "count", "gpu_pcie_generation", "last")
PCIE_WIDTH = Signal("gpu_pcie_width", "PCIe link width (lanes)", "gpu", "count", "gpu_pcie_width", "last")
NVLINK_RECEIVE = Signal(
    "gpu_nvlink_receive", "NVLink receive rate", "gpu", "bytes_per_second", "gpu_nvlink_receive", "rate", "idle"
)
FATAL_ERRORS = Signal(
    "gpu_fatal_errors", "fatal errors (Xids) over the idle window", "gpu", "count",
    "gpu_fatal_errors", "increase", "idle",
)  # fmt: skip
ROW_REMAP_FAILED = Signal(
    "gpu_row_remap_failed", "1 if remapping a faulty memory row failed", "gpu", "count", "gpu_row_remap_failed",
    "last",
)  # fmt: skip
ROW_REMAP_PENDING = Signal(
    "gpu_row_remap_pending",
    "1 if faulty memory rows need a reset to be remapped",
    "gpu",
    "count",
    "gpu_row_remap_pending",
    "last",
)

# Metrics that jobs report, joined by the uuid of the GPU that a rank runs on.
JOB_STEP_TIME = Signal(
    "training_stepping", "share of time in training steps", "gpu", "ratio", "training_step_seconds", "rate",
    "idle",
)  # fmt: skip
JOB_DATA_WAIT = Signal(
    "training_data_wait", "share of time waiting for data", "gpu", "ratio",
    "training_data_wait_seconds", "rate", "idle",
)  # fmt: skip
JOB_COMMUNICATION = Signal(
    "training_communication", "share of time waiting for other ranks", "gpu", "ratio",
    "training_communication_seconds", "rate", "idle",
)  # fmt: skip
JOB_PEAK_MEMORY = Signal(
    "training_peak_memory", "peak memory of the job", "gpu", "bytes", "training_peak_memory", "last"
)
JOB_BATCH_SIZE = Signal(
    "training_batch_size", "batch size per rank (samples)", "gpu", "count", "training_batch_size", "last"
)
JOB_GRADIENT_NOISE = Signal(
    "training_gradient_noise", "gradient noise scale, in samples over all ranks", "gpu", "count",
    "training_gradient_noise", "last",
)  # fmt: skip

NODE_CPU = Signal("node_cpu", "node CPU utilization", "node", "ratio", "node_cpu", "mean", "short")
NODE_MEMORY = Signal("node_memory", "node memory used", "node", "ratio", "node_memory_used", "last")
NODE_IO_PRESSURE = Signal(
    "node_io_pressure", "I/O pressure: share of time a task waited for storage", "node", "ratio", "node_io_pressure",
    "rate", "short",
)  # fmt: skip
NODE_DISK_BUSY = Signal(
    "node_disk_busy", "utilization of the busiest disk", "node", "ratio", "node_disk_busy", "rate",
    "short",
)  # fmt: skip
NODE_NETWORK_RECEIVE = Signal(
    "node_network_receive", "inbound utilization of the busiest network link", "node", "ratio", "node_network_receive",
    "rate", "short",
)  # fmt: skip
NODE_NETWORK_TRANSMIT = Signal(
    "node_network_transmit", "outbound utilization of the busiest network link", "node", "ratio",
    "node_network_transmit", "rate", "short",
)  # fmt: skip

SIGNALS: tuple[Signal, ...] = (
    GPU_UP, UTILIZATION, UTILIZATION_COVERAGE, IDLE_UTILIZATION, IDLE_COVERAGE, IDLE_SAMPLES, MEMORY_USED, MEMORY_TOTAL,
    PROCESSES, HALF_IDLE_UTILIZATION, IDLE_MEMORY_USED, DAILY_PEAK_UTILIZATION, SM_ACTIVITY, TENSOR_ACTIVITY,
    FP32_ACTIVITY, FP64_ACTIVITY, DRAM_ACTIVITY, POWER, POWER_LIMIT, SM_CLOCK, SM_CLOCK_MAX, TEMPERATURE,
    THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL, THROTTLE_POWER_BRAKE, THROTTLE_POWER_CAP, PCIE_RECEIVE, PCIE_TRANSMIT,
    PCIE_GENERATION, PCIE_WIDTH,
    NVLINK_RECEIVE, FATAL_ERRORS, ROW_REMAP_FAILED, ROW_REMAP_PENDING, JOB_STEP_TIME, JOB_DATA_WAIT, JOB_COMMUNICATION,
    JOB_PEAK_MEMORY, JOB_BATCH_SIZE, JOB_GRADIENT_NOISE,
    NODE_CPU, NODE_MEMORY, NODE_IO_PRESSURE, NODE_DISK_BUSY, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT,
)  # fmt: skip


def select_or_average(expression: Expression, label: str, values: tuple[str, ...], everything: bool) -> Expression:
    """The expression of one GPU or node, or the mean over several: the query shown with evidence."""
    if len(values) == 1:
        return restrict_to_values(expression, label, values)
    return Aggregate("avg", (), expression if everything else restrict_to_values(expression, label, values))
