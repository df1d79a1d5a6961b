"""The catalogue of signals: each quantity that the advisor uses, defined once.

A signal is a quantity, one of a closed set of reductions, and a window. The mapping of the exporter present turns it
into an expression; the source evaluates that for the whole fleet in one query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpu_advisor.promql.expressions import (
    Aggregate,
    Expression,
    Matcher,
    Reduction,
    ScopeName,
    restrict_to_values,
    with_matchers,
)
from gpu_advisor.settings import EvaluationSettings

Unit = Literal["ratio", "bytes", "celsius", "count", "seconds", "watts", "hertz", "bytes_per_second", "tokens",
               "per_second", "tokens_per_second"]  # fmt: skip
WindowName = Literal["now", "short", "quarter", "half", "idle"]


@dataclass(frozen=True, slots=True)
class Signal:
    """`quantity` is what a mapping names, the signal's own name if not given."""

    name: str
    about: str
    scope: ScopeName
    unit: Unit
    reduction: Reduction
    window: WindowName = "now"
    quantity: str = ""

    def __post_init__(self) -> None:
        if not self.quantity:
            object.__setattr__(self, "quantity", self.name)

    def window_seconds(self, settings: EvaluationSettings) -> int | None:
        """None for an instant value; "half" and "quarter" are parts of the idle window."""
        idle, short = settings.idle_window_seconds, settings.window_seconds
        parts = {"quarter": max(1, idle // 4), "half": max(1, idle // 2), "idle": idle}
        return {"now": None, "short": short, **parts}[self.window]


GPU_UP = Signal("gpu_up", "GPU health", "gpu", "count", "last")
GPU_UP_HIGHEST = Signal(
    "gpu_up_highest", "GPU up (1) or down (0): highest of the window", "gpu", "count", "max", "short",
    quantity="gpu_up",
)  # fmt: skip
GPU_UP_COVERAGE = Signal(
    "gpu_up_coverage", "data coverage of GPU health", "gpu", "ratio", "coverage", "short", quantity="gpu_up"
)
UTILIZATION = Signal("gpu_utilization", "GPU utilization: share of time a kernel ran", "gpu", "ratio", "mean", "short")
UTILIZATION_COVERAGE = Signal(
    "gpu_utilization_coverage", "data coverage", "gpu", "ratio", "coverage", "short",
    quantity="gpu_utilization",
)  # fmt: skip
IDLE_UTILIZATION = Signal(
    "gpu_idle_utilization", "GPU utilization", "gpu", "ratio", "mean", "idle",
    quantity="gpu_utilization",
)  # fmt: skip
IDLE_COVERAGE = Signal(
    "gpu_idle_coverage", "data coverage", "gpu", "ratio", "coverage", "idle",
    quantity="gpu_utilization",
)  # fmt: skip
IDLE_SAMPLES = Signal("gpu_idle_samples", "samples", "gpu", "count", "samples", "idle", quantity="gpu_utilization")
MEMORY_USED = Signal("gpu_memory_used", "GPU memory used", "gpu", "ratio", "mean", "short")
MEMORY_TOTAL = Signal("gpu_memory_total", "GPU memory size", "gpu", "bytes", "last")
PROCESSES = Signal("gpu_processes", "processes on the GPU", "gpu", "count", "last")

# Further signals for diagnoses, all over the idle window: one sample shows a moment only, and how a workload is written
# does not change within minutes.
HALF_IDLE_UTILIZATION = Signal(
    "gpu_half_utilization", "GPU utilization", "gpu", "ratio", "mean", "half",
    quantity="gpu_utilization",
)  # fmt: skip
QUARTER_IDLE_UTILIZATION = Signal(
    "gpu_quarter_utilization", "GPU utilization", "gpu", "ratio", "mean", "quarter",
    quantity="gpu_utilization",
)  # fmt: skip
IDLE_MEMORY_USED = Signal(
    "gpu_memory_held", "GPU memory used", "gpu", "ratio", "mean", "idle",
    quantity="gpu_memory_used",
)  # fmt: skip
DAILY_PEAK_UTILIZATION = Signal(
    "gpu_utilization_day_peak", "highest hourly mean of GPU utilization in the last day", "gpu", "ratio", "last"
)
SM_ACTIVITY = Signal("gpu_sm_activity", "SM activity: share of SMs busy", "gpu", "ratio", "mean", "idle")
TENSOR_ACTIVITY = Signal("gpu_tensor_activity", "tensor core activity", "gpu", "ratio", "mean", "idle")
FP32_ACTIVITY = Signal("gpu_fp32_activity", "FP32 pipe activity", "gpu", "ratio", "mean", "idle")
FP64_ACTIVITY = Signal("gpu_fp64_activity", "FP64 pipe activity", "gpu", "ratio", "mean", "idle")
DRAM_ACTIVITY = Signal("gpu_dram_activity", "memory bandwidth used, of the maximum", "gpu", "ratio", "mean", "idle")
MEMORY_ACTIVITY = Signal(
    "gpu_memory_activity", "share of time the GPU's memory was read or written", "gpu", "ratio", "mean", "idle"
)
POWER = Signal("gpu_power", "power draw", "gpu", "watts", "mean", "idle")
POWER_LIMIT = Signal("gpu_power_limit", "power limit", "gpu", "watts", "last")
POWER_LIMIT_DEFAULT = Signal("gpu_power_limit_default", "default power limit", "gpu", "watts", "last")
SM_CLOCK = Signal("gpu_sm_clock", "SM clock", "gpu", "hertz", "mean", "idle")
SM_CLOCK_MAX = Signal("gpu_sm_clock_max", "maximum SM clock", "gpu", "hertz", "last")
TEMPERATURE = Signal("gpu_temperature", "core temperature", "gpu", "celsius", "last")
THROTTLE_HW_THERMAL = Signal(
    "gpu_throttle_hw_thermal", "share of time thermally throttled by the hardware", "gpu", "ratio", "rate", "idle"
)
THROTTLE_SW_THERMAL = Signal(
    "gpu_throttle_sw_thermal", "share of time thermally throttled by the driver", "gpu", "ratio", "rate", "idle"
)
THROTTLE_POWER_BRAKE = Signal(
    "gpu_throttle_power_brake", "share of time throttled by the power brake", "gpu", "ratio", "rate", "idle"
)
THROTTLE_POWER_CAP = Signal(
    "gpu_throttle_power_cap", "share of time throttled by the power limit", "gpu", "ratio", "rate", "idle"
)
PCIE_RECEIVE = Signal("gpu_pcie_receive", "PCIe receive rate", "gpu", "bytes_per_second", "rate", "idle")
PCIE_TRANSMIT = Signal("gpu_pcie_transmit", "PCIe transmit rate", "gpu", "bytes_per_second", "rate", "idle")
PCIE_GENERATION = Signal("gpu_pcie_generation", "PCIe link generation", "gpu", "count", "last")
PCIE_WIDTH = Signal("gpu_pcie_width", "PCIe link width (lanes)", "gpu", "count", "last")
NVLINK_RECEIVE = Signal("gpu_nvlink_receive", "NVLink receive rate", "gpu", "bytes_per_second", "rate", "idle")
LAST_ERROR = Signal("gpu_last_error", "code of the last error (Xid), at an unknown time", "gpu", "count", "last")
FATAL_ERRORS = Signal("gpu_fatal_errors", "fatal errors (Xids)", "gpu", "count", "increase", "idle")
ROW_REMAP_FAILED = Signal("gpu_row_remap_failed", "1 if remapping a faulty memory row failed", "gpu", "count", "last")
ROW_REMAP_PENDING = Signal(
    "gpu_row_remap_pending", "1 if faulty memory rows need a reset to be remapped", "gpu", "count", "last"
)

# Metrics that jobs report, joined by the uuid of the GPU that a rank runs on.
JOB_STEP_TIME = Signal(
    "training_stepping", "share of time in training steps", "gpu", "ratio", "rate", "idle",
    quantity="training_step_seconds",
)  # fmt: skip
JOB_DATA_WAIT = Signal(
    "training_data_wait", "share of time waiting for data", "gpu", "ratio", "rate", "idle",
    quantity="training_data_wait_seconds",
)  # fmt: skip
JOB_COMMUNICATION = Signal(
    "training_communication", "share of time waiting for other ranks", "gpu", "ratio", "rate", "idle",
    quantity="training_communication_seconds",
)  # fmt: skip
JOB_PEAK_MEMORY = Signal("training_peak_memory", "peak memory of the job", "gpu", "bytes", "last")
JOB_BATCH_SIZE = Signal("training_batch_size", "batch size per rank (samples)", "gpu", "count", "last")
JOB_GRADIENT_NOISE = Signal(
    "training_gradient_noise", "gradient noise scale, in samples over all ranks", "gpu", "count", "last"
)

NODE_CPU = Signal("node_cpu", "node CPU utilization", "node", "ratio", "mean", "short")
NODE_MEMORY = Signal("node_memory", "node memory used", "node", "ratio", "last", quantity="node_memory_used")
NODE_IO_PRESSURE = Signal(
    "node_io_pressure", "I/O pressure: share of time a task waited for storage", "node", "ratio", "rate", "short"
)
NODE_DISK_BUSY = Signal("node_disk_busy", "utilization of the busiest disk", "node", "ratio", "rate", "short")
NODE_NETWORK_RECEIVE = Signal(
    "node_network_receive", "inbound utilization of the busiest network link", "node", "ratio", "rate", "short"
)
NODE_NETWORK_TRANSMIT = Signal(
    "node_network_transmit", "outbound utilization of the busiest network link", "node", "ratio", "rate", "short"
)

SIGNALS: tuple[Signal, ...] = (
    GPU_UP, GPU_UP_HIGHEST, GPU_UP_COVERAGE,
    UTILIZATION, UTILIZATION_COVERAGE, IDLE_UTILIZATION, IDLE_COVERAGE, IDLE_SAMPLES, MEMORY_USED, MEMORY_TOTAL,
    PROCESSES, HALF_IDLE_UTILIZATION, QUARTER_IDLE_UTILIZATION, IDLE_MEMORY_USED,
    DAILY_PEAK_UTILIZATION, SM_ACTIVITY, TENSOR_ACTIVITY,
    FP32_ACTIVITY, FP64_ACTIVITY, DRAM_ACTIVITY, MEMORY_ACTIVITY, POWER, POWER_LIMIT, POWER_LIMIT_DEFAULT, SM_CLOCK,
    SM_CLOCK_MAX, TEMPERATURE,
    THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL, THROTTLE_POWER_BRAKE, THROTTLE_POWER_CAP, PCIE_RECEIVE, PCIE_TRANSMIT,
    PCIE_GENERATION, PCIE_WIDTH,
    NVLINK_RECEIVE, LAST_ERROR, FATAL_ERRORS, ROW_REMAP_FAILED, ROW_REMAP_PENDING, JOB_STEP_TIME, JOB_DATA_WAIT,
    JOB_COMMUNICATION, JOB_PEAK_MEMORY, JOB_BATCH_SIZE, JOB_GRADIENT_NOISE,
    NODE_CPU, NODE_MEMORY, NODE_IO_PRESSURE, NODE_DISK_BUSY, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT,
)  # fmt: skip


def select_or_average(
    expression: Expression, label: str, values: tuple[str, ...], everything: bool, matchers: tuple[Matcher, ...] = ()
) -> Expression:
    """The expression of one GPU or node, or the mean over several: the query shown with evidence."""
    if len(values) == 1:
        return with_matchers(restrict_to_values(expression, label, values), matchers)
    selected = expression if everything else with_matchers(restrict_to_values(expression, label, values), matchers)
    return Aggregate("avg", (), selected)
