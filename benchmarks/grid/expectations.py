"""What is right for each simulated scenario, whatever the GPU and the exporter. Written before the rules.

A cell of the grid is right if its GPUs get exactly these kinds of advice. Where the signals of an exporter do not
suffice, it may abstain instead, if it names one input that would settle it. Any other kind is false advice.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Kinds of recommendations by scenario. Empty: nothing is wrong, or only looks wrong.
RIGHT_ADVICE: Mapping[str, frozenset[str]] = {
    scenario: frozenset(kinds)
    for scenario, kinds in {
        "training": (),
        "idle": ("idle_reclaim",),
        "idle-hoarder": ("idle_reclaim",),
        "small-batch": ("batch_size",),
        "data-bound": ("data_loading",),
        "saturated-serving": (),
        "throttled": ("cooling",),
        "lost": ("lost_gpu",),
        "memory-bound": ("memory_saving",),
        "memory-full": ("memory_saving",),
        "communication-bound": ("communication",),
        "busy-but-empty": ("profiling",),
        "hung-collective": ("profiling",),
        "straggler": ("straggler",),
        "held-up": (),
        "power-limited": ("power_limit",),
        "power-capped": (),
        "hot": (),
        "single-precision": ("mixed_precision",),
        "small-service": ("smaller_gpu",),
        "failing": ("failing_gpu",),
    }.items()
}

#: Scenarios of one fleet: the slow GPU of a job and those that wait for it.
TOGETHER: tuple[tuple[str, ...], ...] = (("straggler", "held-up"),)

#: GPUs of each scenario: enough in a job to find the slow one. Two of all others.
COUNTS: Mapping[str, int] = {"straggler": 1, "held-up": 7}
DEFAULT_COUNT = 2

#: Exporters that publish no series at all for a lost GPU: nobody who reads them can see one.
BLIND_TO_LOST_GPUS = frozenset({"dcgm-exporter", "nvidia_gpu_exporter", "amd-device-metrics-exporter"})
