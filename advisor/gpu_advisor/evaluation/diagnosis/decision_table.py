"""The decision table from features to diagnoses. Pure data; docs/diagnosis.md is generated from it.

Rows are tried from the top; the first whose conditions all hold gives the diagnosis. A cause that would also match
another cause's row stands above it. A row with missing data, or within a dead band, gives no diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.diagnosis.conditions import Condition, above, any_of, below, unless


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`kinds` are the kinds of recommendation that follow; empty if the GPU itself needs no change."""

    name: str
    explanation: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """`variant` distinguishes several rows of one diagnosis: the recommendation depends on it."""

    diagnosis: str
    variant: str
    conditions: tuple[Condition, ...]
    reason: str


HEALTHY, UNUSED, WAITING_FOR_STRAGGLER, UNKNOWN = "healthy", "idle", "held_up", "unknown"

DIAGNOSES: dict[str, Diagnosis] = {
    each.name: each
    for each in (
        Diagnosis("idle_holding_memory", "No kernel runs, but memory is allocated: usually an open notebook, a server "
                  "without requests, or a hung job.", ("idle_reclaim",)),
        Diagnosis(UNUSED, "No kernel runs and no memory is allocated: the GPU is unused.", ("idle_reclaim",)),
        Diagnosis("throttled_thermal", "High temperature lowers the clock.", ("cooling",)),
        Diagnosis("throttled_power", "Power keeps the clock below that of the GPU's peers: a low power limit, or "
                  "the power supply's brake signal. A power cap that all reach at full load is normal.",
                  ("power_limit",)),
        Diagnosis("straggler", "One rank of a synchronous job is slower than the others, which wait for it in each "
                  "step.", ("straggler",)),
        Diagnosis(WAITING_FOR_STRAGGLER, "Another GPU of the same job is slow, and this one waits for it."),
        Diagnosis("busy_but_empty", "A kernel runs all the time but computes almost nothing: kernels that spin or run "
                  "serially, or a collective that waits for a lost rank.", ("profiling",)),
        Diagnosis("communication_bound", "Steps wait for communication between GPUs or nodes that does not overlap "
                  "with compute.",
                  ("communication",)),
        Diagnosis("data_bound", "The GPU waits for its next batch: reading, preprocessing or copying it is slower "
                  "than computing on it.", ("data_loading",)),
        Diagnosis("memory_bound", "Memory is the limit: its bandwidth, or no room for the larger batch that would fill "
                  "the GPU.", ("memory_saving",)),
        Diagnosis("small_batch", "Kernels are too small to fill the GPU, and memory is free for a larger batch.",
                  ("batch_size",)),
        Diagnosis("wrong_instance_size", "Even in its busiest hour, the workload needs a small part of this GPU and "
                  "its memory.", ("smaller_gpu",)),
        Diagnosis("full_precision", "The workload computes in single precision and leaves the tensor cores idle.",
                  ("mixed_precision",)),
        Diagnosis(HEALTHY, "The GPU is well used."),
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
#: Where SM activity is missing, power bounds the share of the GPU that works; low power only at full clocks.
_DRAWS_LITTLE = below("busy_power_at_most", 0.48, 0.55)
_DRAWS_MUCH = above("busy_power_at_least", 0.62, 0.56)
_CLOCKED_UP = above("clock", 0.88, 0.84)
#: At this rate of copies to the GPU (bytes per second), with CPUs and storage free, they are the bottleneck.
COPY_BOUND_BYTES_PER_SECOND = 1.5e9
#: What the job reports of itself wins over guesses from the host and the links. Its wait for a batch ends before the
#: batch is copied to the GPU.
_MAY_WAIT_FOR_DATA = above("possible_data_wait", 0.18, 0.15)
_MAY_COMMUNICATE = unless(below("communication", 0.10, 0.15))
_COPIES = above("net_input_rate", COPY_BOUND_BYTES_PER_SECOND, 1.2e9)
_MAY_COPY = any_of(_MAY_WAIT_FOR_DATA, _COPIES)
#: A low clock without a reason needs an answer before a GPU counts as well used.
_AT_SPEED = above("unexplained_clock", 0.85, 0.80)
_TOUCHES_MEMORY = above("memory_fill", 0.06, 0.04)
#: A pool of unspecified kind may be for serving, where kernels that fill half the GPU are normal.
_SMALL = below("fill", 0.37, 0.42)

DECISION_TABLE: tuple[DecisionRow, ...] = (
    DecisionRow("idle_holding_memory", "", (below("idleness", 1.0, 2.0), above("memory_held", 0.05, 0.04)),
        "nothing runs, memory is allocated"),
    DecisionRow(UNUSED, "", (below("idleness", 1.0, 2.0), below("memory_held", 0.04, 0.05)),
        "nothing runs, no memory is allocated"),
    DecisionRow("throttled_thermal", "", (above("thermal", 0.30, 0.20), any_of(below("clock_of_peers", 0.88, 0.93),
        below("clock", 0.85, 0.92))), "the driver reports thermal throttling, and clocks are low"),
    DecisionRow("throttled_power", "brake", (above("power_brake", 0.30, 0.20),
        any_of(below("clock_of_peers", 0.88, 0.93), below("clock", 0.85, 0.92))),
        "the driver reports the power brake, and clocks are low"),
    DecisionRow("throttled_power", "limit", (below("limit_of_peers", 0.80, 0.90), below("clock_of_peers", 0.88, 0.93),
        above("power", 0.70, 0.60)), "the power limit is below that of peers and reached, and clocks are low"),
    DecisionRow("throttled_power", "limit", (above("power_cap", 0.50, 0.40), below("clock_of_job", 0.85, 0.90)),
        "the driver reports the power limit, and peers in the job have higher clocks"),
    DecisionRow("throttled_power", "default", (below("limit_of_default", 0.80, 0.90), above("power", 0.70, 0.60),
        any_of(below("clock", 0.85, 0.92), above("power_cap", 0.50, 0.40))),
        "the power limit is below the model's default and reached, and clocks are low"),
    DecisionRow("straggler", "clock", (below("clock_of_job", 0.87, 0.92), _BUSY), "its clock is below that of its job"),
    DecisionRow("straggler", "waits", (above("communication_below_job", 0.13, 0.10),),
        "all ranks wait except this one"),
    DecisionRow("straggler", "idle", (above("utilization_below_job", 0.12, 0.09),),
        "the others wait in collectives, which counts as busy, while this one is idle"),
    DecisionRow("straggler", "work", (above("sm_activity_of_job", 1.18, 1.12), above("sm_activity", 0.55, 0.45), _BUSY),
        "its SMs are active while those of the others wait"),
    DecisionRow("busy_but_empty", "", (_BUSY, below("sm_activity", 0.045, 0.06)),
        "a kernel runs, but almost no SM is active"),
    DecisionRow("busy_but_empty", "collective", (_BUSY, below("sm_activity", 0.25, 0.30),
        below("tensor_fill", 0.004, 0.008), below("fp32_fill", 0.004, 0.008), below("fp64_fill", 0.004, 0.008)),
        "a kernel runs on few SMs, and none of their pipes is active"),
    DecisionRow("busy_but_empty", "silent", (_BUSY, below("memory_fill", 0.025, 0.04),
        below("busy_power_at_most", 0.46, 0.54)),
        "a kernel runs, but reads and writes almost no memory and draws little power"),
    DecisionRow("data_bound", "reported", (above("data_wait", 0.18, 0.15),), "the job reports waiting for data"),
    DecisionRow("communication_bound", "reported", (above("communication", 0.18, 0.15),),
        "the job reports waiting for other ranks"),
    DecisionRow("communication_bound", "links", (_BUSY, below("fill", 0.70, 0.73), above("dram", 0.02, 0.01),
        above("exchange", 0.09, 0.07), above("exchange_of_unfilled", 0.27, 0.23), _MAY_COMMUNICATE),
        "SMs are idle within kernels, link traffic explains it, and no step time reported by the job contradicts it"),
    DecisionRow("communication_bound", "links", (_BUSY, above("gpu_exchange", 0.22, 0.18),
        below("busy_power_at_most", 0.72, 0.78), _TOUCHES_MEMORY, _MAY_COMMUNICATE),
        "link traffic is more than overlaps with compute, and power is low"),
    DecisionRow("memory_bound", "bandwidth", (_BUSY, above("dram_fill", 0.70, 0.66), below("tensor_fill", 0.26, 0.30)),
        "memory bandwidth is saturated, tensor cores are not"),
    DecisionRow("memory_bound", "memory activity", (_BUSY, above("memory_fill", 0.85, 0.80),
        below("busy_power_at_most", 0.90, 0.95)),
        "memory is read or written nearly all the time in which kernels run, and power is below the limit"),
    DecisionRow("memory_bound", "capacity", (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, above("memory_needed", 0.90, 0.86)),
        "kernels are small, and memory is full"),
    DecisionRow("small_batch", "", (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, below("memory_needed", 0.70, 0.80),
        any_of(below("exchange_at_most_of_unfilled", 0.23, 0.27), below("communication", 0.15, 0.18))),
        "kernels are small, communication is low, and memory is free"),
    DecisionRow("small_batch", "gaps",
        (_UNFILLED, _RUNS, _COMPUTES, _TRAINS, below("memory_needed", 0.70, 0.80), _GAPS),
        "kernels are small with gaps between them (communication leaves none), and memory is free"),
    DecisionRow("memory_bound", "capacity", (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, above("memory_needed", 0.90, 0.86)),
        "kernels are very small, and memory is full"),
    DecisionRow("small_batch", "", (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, below("memory_needed", 0.70, 0.80),
        any_of(below("exchange_at_most_of_unfilled", 0.23, 0.27), below("communication", 0.15, 0.18))),
        "kernels are very small, communication is low, and memory is free"),
    DecisionRow("small_batch", "gaps",
        (_SMALL, _RUNS, _COMPUTES, _MAY_TRAIN, below("memory_needed", 0.70, 0.80), _GAPS),
        "kernels are very small with gaps between them (communication leaves none), and memory is free"),
    DecisionRow("memory_bound", "capacity", (_DRAWS_LITTLE, _CLOCKED_UP, _RUNS, _TOUCHES_MEMORY, _TRAINS, _GAPS,
        above("memory_needed", 0.90, 0.86)),
        "kernels draw little power at full clocks, with gaps between them, and memory is full"),
    DecisionRow("small_batch", "power", (_DRAWS_LITTLE, _CLOCKED_UP, _RUNS, _TOUCHES_MEMORY, _TRAINS, _GAPS,
        below("memory_needed", 0.70, 0.80)),
        "kernels draw little power at full clocks, with gaps between them, and memory is free"),
    DecisionRow(HEALTHY, "pauses", (_WAITS, _FULL, below("data_wait", 0.15, 0.18), below("stepping", 0.92, 0.95)),
        "the job spends time outside training steps: evaluation, checkpoints or loading"),
    DecisionRow("data_bound", "full kernels", (below("utilization", 0.66, 0.70), _SOME, _FULL, _TRAINS, _STEADY, _CALM,
        _MAY_COPY),
        "kernels fill the GPU while they run, but it is idle in between"),
    DecisionRow("data_bound", "power", (below("utilization", 0.66, 0.70), _RUNS, _DRAWS_MUCH, _TRAINS, _STEADY, _CALM,
        _MAY_COPY),
        "kernels draw much power while they run, but the GPU is idle in between"),
    DecisionRow("data_bound", "host", (_WAITS, _SOME, _FULL, _MAY_TRAIN, _STEADY, _CALM,
        _MAY_WAIT_FOR_DATA, above("io_pressure", 0.12, 0.08)),
        "kernels fill the GPU while they run, and the host's storage is saturated"),
    DecisionRow("data_bound", "host", (_WAITS, _SOME, _TRAINS, _STEADY, _CALM, _MAY_WAIT_FOR_DATA,
        any_of(above("cpu", 0.83, 0.80), above("io_pressure", 0.12, 0.08))),
        "the GPU is idle in between, and the host's CPUs or storage are saturated"),
    DecisionRow("memory_bound", "launches", (_FED, unless(_COPIES), _IN_STEPS, _GAPS, _RUNS, _STEADY, _CALM,
        above("memory_needed", 0.90, 0.86)),
        "the job does not wait for data or copies, communication would count as busy: launches remain, memory is full"),
    DecisionRow("small_batch", "launches", (_FED, unless(_COPIES), _IN_STEPS, _GAPS, _RUNS, _STEADY, _CALM,
        below("memory_needed", 0.70, 0.80)),
        "the job does not wait for data or copies, communication would count as busy: kernel launches remain"),
    DecisionRow("wrong_instance_size", "", (above("serves", 1.0, 0.0), below("utilization", 0.22, 0.26),
        below("day_peak", 0.30, 0.36), below("memory_held", 0.30, 0.35)),
        "a service with low load and low memory use for a day"),
    DecisionRow("wrong_instance_size", "", (below("fill", 0.50, 0.54), below("utilization", 0.22, 0.26),
        below("day_peak", 0.30, 0.36), below("memory_held", 0.30, 0.35)),
        "small kernels, low load and low memory use for a day"),
    DecisionRow(HEALTHY, "", (_BUSY, above("fill", 0.62, 0.58), _AT_SPEED), "kernels fill the GPU"),
    DecisionRow(HEALTHY, "power", (_BUSY, above("busy_power_at_least", 0.68, 0.64), _AT_SPEED),
        "only real work draws that much power"),
    DecisionRow(HEALTHY, "reported", (_BUSY, _AT_SPEED, above("power", 0.35, 0.30), below("data_wait", 0.15, 0.18),
        below("communication", 0.15, 0.18)),
        "the job reports almost no waiting"),
    DecisionRow(HEALTHY, "serving", (above("serves", 1.0, 0.0),), "a service has no influence on its load"),
)  # fmt: skip

#: Secondary findings: possible gains on a GPU that is well used.
SECONDARY_ROWS: tuple[DecisionRow, ...] = (
    DecisionRow("full_precision", "", (_BUSY, above("fill", 0.58, 0.52), _TRAINS, below("tensor_fill", 0.01, 0.02),
        above("fp32_fill", 0.20, 0.15), below("fp64_fill", 0.01, 0.02)),
        "the FP32 pipe is active, tensor cores are not"),
)  # fmt: skip
