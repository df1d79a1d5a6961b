"""The decision table: which figures lead to which diagnosis. Pure data; docs/diagnosis.md is made of it.

Rows are read from above; the first whose conditions all hold gives the diagnosis. Causes that would also look like
another one stand above it. A row that cannot be told, or is within a dead band, gives none.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.diagnosis.conditions import Condition, above, any_of, below, unless


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`kinds` are the recommendations that follow. Without any, there is nothing to do about the GPU itself."""

    name: str
    explanation: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """`variant` tells ways to one diagnosis apart: what is advised depends on it."""

    diagnosis: str
    variant: str
    conditions: tuple[Condition, ...]
    reason: str


HEALTHY, UNUSED, WAITING_FOR_STRAGGLER, UNKNOWN = "healthy", "idle", "held_up", "unknown"

DIAGNOSES: dict[str, Diagnosis] = {
    each.name: each
    for each in (
        Diagnosis("idle_holding_memory", "No kernel runs, but processes hold memory: usually a notebook left open, a "
                  "server without requests, or a job that hangs.", ("idle_reclaim",)),
        Diagnosis(UNUSED, "No kernel runs and nothing is held: nobody uses the GPU.", ("idle_reclaim",)),
        Diagnosis("throttled_thermal", "Heat holds the clock down.", ("cooling",)),
        Diagnosis("throttled_power", "Power holds the clock below that of the GPU's peers: a limit set low, or a "
                  "signal of the power supply. A power cap that all have at full load is normal.", ("power_limit",)),
        Diagnosis("straggler", "One rank of a synchronous job is slower than the others, which wait for it in each "
                  "step.", ("straggler",)),
        Diagnosis(WAITING_FOR_STRAGGLER, "Another GPU of the same job is slow, and this one waits for it."),
        Diagnosis("busy_but_empty", "A kernel runs all the time and next to nothing is computed: kernels that spin or "
                  "are serial, or a collective that waits for a rank that is gone.", ("profiling",)),
        Diagnosis("communication_bound", "Steps wait for the exchange between GPUs or nodes, and nothing hides it.",
                  ("communication",)),
        Diagnosis("data_bound", "The GPU waits for its next batch: reading, preprocessing or copying it is slower "
                  "than computing on it.", ("data_loading",)),
        Diagnosis("memory_bound", "Memory is the limit: its bandwidth, or there is no room for the larger batch that "
                  "would fill the GPU.", ("memory_saving",)),
        Diagnosis("small_batch", "Kernels are too small to fill the GPU, and there is memory for a larger batch.",
                  ("batch_size",)),
        Diagnosis("wrong_instance_size", "Even at its busiest hour the work needs a small part of this GPU and of its "
                  "memory.", ("smaller_gpu",)),
        Diagnosis("full_precision", "The work is done in single precision, and the tensor cores stand idle.",
                  ("mixed_precision",)),
        Diagnosis(HEALTHY, "The GPU is put to use."),
    )
}  # fmt: skip

_BUSY = above("utilization", 0.80, 0.75)
_STEADY = below("unsteadiness", 0.15, 0.25)
_CALM = below("swing", 0.30, 0.45)
_TRAINS = above("trains", 1.0, 0.0)
_FED = below("data_wait", 0.15, 0.18)
_IN_STEPS = above("stepping", 0.95, 0.92)
_FULL = above("fill", 0.58, 0.54)
_WAITS = below("utilization", 0.74, 0.78)
_SOME = above("utilization", 0.10, 0.06)
_RUNS = above("utilization", 0.30, 0.26)
_GAPS = below("utilization", 0.78, 0.82)
_COMPUTES = above("dram", 0.02, 0.01)
_MAY_TRAIN = above("may_train", 1.0, 0.0)
_UNFILLED = below("fill", 0.54, 0.58)
#: Whoever does not say what a pool is for may serve from it: there, kernels of half the GPU are nothing unusual.
_SMALL = below("fill", 0.37, 0.42)

DECISION_TABLE: tuple[DecisionRow, ...] = (
    DecisionRow("idle_holding_memory", "", (below("idleness", 1.0, 2.0), above("memory_held", 0.05, 0.04)),
        "nothing runs, memory is held"),
    DecisionRow(UNUSED, "", (below("idleness", 1.0, 2.0), below("memory_held", 0.04, 0.05)), "nothing runs, nothing is held"),
    DecisionRow("throttled_thermal", "", (above("thermal", 0.30, 0.20), any_of(below("clock_of_peers", 0.88, 0.93),
        below("clock", 0.85, 0.92))), "the driver names heat, and clocks are lost"),
    DecisionRow("throttled_power", "brake", (above("power_brake", 0.30, 0.20), any_of(below("clock_of_peers", 0.88, 0.93),
        below("clock", 0.85, 0.92))),
        "the driver names the power supply's signal, and clocks are lost"),
    DecisionRow("throttled_power", "limit", (below("limit_of_peers", 0.80, 0.90), below("clock_of_peers", 0.88, 0.93),
        above("power", 0.70, 0.60)), "the power limit is lower than that of peers, is used up, and clocks are lost"),
    DecisionRow("throttled_power", "limit", (above("power_cap", 0.50, 0.40), below("clock_of_job", 0.85, 0.90)),
        "the driver names the power limit, and others at the same work have more clock"),
    DecisionRow("straggler", "clock", (below("clock_of_job", 0.87, 0.92), _BUSY), "its clock is below that of its job"),
    DecisionRow("straggler", "waits", (above("communication_below_job", 0.13, 0.10),), "all ranks wait but this one"),
    DecisionRow("straggler", "idle", (above("utilization_below_job", 0.12, 0.09),),
        "the others wait in collectives, which counts as busy, while this one is idle"),
    DecisionRow("straggler", "work", (above("sm_activity_of_job", 1.18, 1.12), above("sm_activity", 0.55, 0.45), _BUSY),
        "its SMs compute while those of the others wait"),
    DecisionRow("busy_but_empty", "", (_BUSY, below("sm_activity", 0.045, 0.06)), "a kernel runs, hardly an SM works"),
    DecisionRow("busy_but_empty", "collective", (_BUSY, below("sm_activity", 0.25, 0.30), below("tensor_fill", 0.004, 0.008),
        below("fp32_fill", 0.004, 0.008), below("fp64_fill", 0.004, 0.008)),
        "a kernel runs on few SMs, and none of their pipes works"),
    DecisionRow("data_bound", "reported", (above("data_wait", 0.18, 0.15),), "the job says so"),
    DecisionRow("communication_bound", "reported", (above("communication", 0.18, 0.15),), "the job says so"),
    DecisionRow("communication_bound", "links", (_BUSY, below("fill", 0.70, 0.73), above("dram", 0.02, 0.01),
        above("exchange", 0.09, 0.07), above("exchange_of_unfilled", 0.27, 0.23),
        unless(below("communication", 0.10, 0.15))),
        "SMs are idle in kernels, as much is exchanged, and the job does not say that it waits for little"),
    DecisionRow("memory_bound", "bandwidth", (_BUSY, above("dram_fill", 0.70, 0.66), below("tensor_fill", 0.26, 0.30)),
        "memory bandwidth is used up, tensor cores are not"),
    DecisionRow("memory_bound", "capacity", (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, above("memory_needed", 0.90, 0.86)),
        "kernels are small, and memory is full"),
    DecisionRow("small_batch", "", (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, below("memory_needed", 0.70, 0.80),
        any_of(below("exchange_at_most_of_unfilled", 0.23, 0.27), below("communication", 0.15, 0.18))),
        "kernels are small, little is exchanged, and there is memory for more"),
    DecisionRow("small_batch", "gaps", (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, below("memory_needed", 0.70, 0.80), _GAPS),
        "kernels are small with gaps between them (exchange has none), and there is memory for more"),
    DecisionRow("memory_bound", "capacity", (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, above("memory_needed", 0.90, 0.86)),
        "kernels are very small, and memory is full"),
    DecisionRow("small_batch", "", (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, below("memory_needed", 0.70, 0.80),
        any_of(below("exchange_at_most_of_unfilled", 0.23, 0.27), below("communication", 0.15, 0.18))),
        "kernels are very small, little is exchanged, and there is memory for more"),
    DecisionRow("small_batch", "gaps", (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, below("memory_needed", 0.70, 0.80), _GAPS),
        "kernels are very small with gaps between them (exchange has none), and there is memory for more"),
    DecisionRow(HEALTHY, "pauses", (_WAITS, _FULL, below("data_wait", 0.15, 0.18), below("stepping", 0.92, 0.95)),
        "the job is not in its steps for part of the time: it evaluates, saves or loads"),
    DecisionRow("data_bound", "full kernels", (below("utilization", 0.66, 0.70), _SOME, _FULL, _TRAINS, _STEADY, _CALM),
        "kernels fill the GPU when they run, and yet it is idle in between"),
    DecisionRow("data_bound", "host", (_WAITS, _SOME, _FULL, _MAY_TRAIN, _STEADY, _CALM,
        above("io_pressure", 0.12, 0.08)),
        "kernels fill the GPU when they run, and the host's storage is used up"),
    DecisionRow("data_bound", "host", (_WAITS, _SOME, _TRAINS, _STEADY, _CALM,
        any_of(above("cpu", 0.83, 0.80), above("io_pressure", 0.12, 0.08))),
        "the GPU is idle in between, and the host's processors or storage are used up"),
    DecisionRow("memory_bound", "launches", (_FED, _IN_STEPS, _GAPS, _RUNS, _STEADY, _CALM,
        above("memory_needed", 0.90, 0.86)),
        "the job waits for no data, exchange would count as busy: what is left is launching, and memory is full"),
    DecisionRow("small_batch", "launches", (_FED, _IN_STEPS, _GAPS, _RUNS, _STEADY, _CALM,
        below("memory_needed", 0.70, 0.80)),
        "the job waits for no data, exchange would count as busy: what is left is launching"),
    DecisionRow("wrong_instance_size", "", (above("serves", 1.0, 0.0), below("utilization", 0.22, 0.26),
        below("day_peak", 0.30, 0.36), below("memory_held", 0.30, 0.35)),
        "a service with little load and little memory, all day"),
    DecisionRow("wrong_instance_size", "", (below("fill", 0.50, 0.54), below("utilization", 0.22, 0.26),
        below("day_peak", 0.30, 0.36), below("memory_held", 0.30, 0.35)),
        "small kernels, little load and little memory, all day"),
    DecisionRow(HEALTHY, "", (_BUSY, above("fill", 0.62, 0.58)), "kernels fill the GPU"),
    DecisionRow(HEALTHY, "power", (_BUSY, above("power", 0.60, 0.56)), "nothing draws that much but work"),
    DecisionRow(HEALTHY, "reported", (_BUSY, above("power", 0.35, 0.30), below("data_wait", 0.15, 0.18),
        below("communication", 0.15, 0.18)),
        "the job waits for nothing"),
    DecisionRow(HEALTHY, "serving", (above("serves", 1.0, 0.0),), "a service has the load that it has"),
)  # fmt: skip

#: Findings beside a diagnosis: what could be had from a GPU that is put to use.
SECONDARY_ROWS: tuple[DecisionRow, ...] = (
    DecisionRow("full_precision", "", (_BUSY, above("fill", 0.58, 0.52), _TRAINS, below("tensor_fill", 0.01, 0.02),
        above("fp32_fill", 0.20, 0.15), below("fp64_fill", 0.01, 0.02)),
        "the FP32 pipe works, tensor cores do not"),
)  # fmt: skip
