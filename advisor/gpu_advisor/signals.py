"""The catalogue of signals: what we want to know, once each.

A signal is a quantity, one of a closed set of reductions, and a window. The mapping of whatever exporter is there turns
it into an expression; the source evaluates that for the whole fleet in one query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpu_advisor.expressions import Aggregate, Expression, Select, only
from gpu_advisor.settings import Evaluation
from gpu_advisor.sources.mapping import Reduction, ScopeName
from gpu_advisor.sources.speaker import Speaker

Unit = Literal["ratio", "bytes", "celsius", "count", "seconds"]
WindowName = Literal["now", "short", "idle"]


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    about: str
    scope: ScopeName
    unit: Unit
    quantity: str
    reduction: Reduction
    window: WindowName = "now"

    def window_seconds(self, settings: Evaluation) -> int | None:
        """None for the present moment."""
        return {"now": None, "short": settings.window_seconds, "idle": settings.idle_window_seconds}[self.window]


GPU_UP = Signal("gpu_up", "whether the GPU answers", "gpu", "count", "gpu_up", "last")
UTILIZATION = Signal(
    "gpu_utilization", "share of the time in which a kernel ran", "gpu", "ratio", "gpu_utilization", "mean", "short"
)
UTILIZATION_COVERAGE = Signal(
    "gpu_utilization_coverage", "share of the window that was observed", "gpu", "ratio", "gpu_utilization", "coverage",
    "short",
)  # fmt: skip
IDLE_UTILIZATION = Signal(
    "gpu_idle_utilization", "share of the idle window in which a kernel ran", "gpu", "ratio", "gpu_utilization", "mean",
    "idle",
)  # fmt: skip
IDLE_COVERAGE = Signal(
    "gpu_idle_coverage", "share of the idle window that was observed", "gpu", "ratio", "gpu_utilization", "coverage",
    "idle",
)  # fmt: skip
IDLE_SAMPLES = Signal(
    "gpu_idle_samples", "samples in the idle window", "gpu", "count", "gpu_utilization", "samples", "idle"
)
MEMORY_USED = Signal(
    "gpu_memory_used", "share of the GPU's memory held", "gpu", "ratio", "gpu_memory_used", "mean", "short"
)
MEMORY_TOTAL = Signal("gpu_memory_total", "memory of the GPU", "gpu", "bytes", "gpu_memory_total", "last")
PROCESSES = Signal("gpu_processes", "processes on the GPU", "gpu", "count", "gpu_processes", "last")

NODE_CPU = Signal("node_cpu", "share of all cores that was busy", "node", "ratio", "node_cpu", "mean", "short")
NODE_MEMORY = Signal("node_memory", "share of the memory in use", "node", "ratio", "node_memory_used", "last")
NODE_IO_PRESSURE = Signal(
    "node_io_pressure", "share of the time in which some task waited for storage", "node", "ratio", "node_io_pressure",
    "rate", "short",
)  # fmt: skip
NODE_DISK_BUSY = Signal(
    "node_disk_busy", "share of the time in which the busiest disk had work", "node", "ratio", "node_disk_busy", "rate",
    "short",
)  # fmt: skip
NODE_RECEIVE = Signal(
    "node_network_receive", "share of the fullest link's speed, inbound", "node", "ratio", "node_network_receive",
    "rate", "short",
)  # fmt: skip
NODE_TRANSMIT = Signal(
    "node_network_transmit", "share of the fullest link's speed, outbound", "node", "ratio", "node_network_transmit",
    "rate", "short",
)  # fmt: skip

CATALOGUE: tuple[Signal, ...] = (
    GPU_UP, UTILIZATION, UTILIZATION_COVERAGE, IDLE_UTILIZATION, IDLE_COVERAGE, IDLE_SAMPLES, MEMORY_USED, MEMORY_TOTAL,
    PROCESSES, NODE_CPU, NODE_MEMORY, NODE_IO_PRESSURE, NODE_DISK_BUSY, NODE_RECEIVE, NODE_TRANSMIT,
)  # fmt: skip

#: What is read besides the signals and the mappings' identity series, as it is.
IDENTITY: dict[str, Expression] = {
    "drivers": Select("gpu_exporter_driver_info"),
    "simulated": Select("gpu_exporter_simulated_info"),
    "owners": Select("gpu_owner_info"),
    "targets": Select("up"),
}


def compile_signal(signal: Signal, speaker: Speaker, settings: Evaluation) -> Expression | None:
    """The expression of a signal, or None where this exporter has nothing that gives it."""
    return speaker.expression(signal.quantity, signal.reduction, signal.window_seconds(settings))


def for_things(expression: Expression, label: str, values: tuple[str, ...], everything: bool) -> Expression:
    """The expression of one thing, or the mean over several: what evidence shows and a person pastes."""
    if len(values) == 1:
        return only(expression, label, values)
    return Aggregate("avg", (), expression if everything else only(expression, label, values))
