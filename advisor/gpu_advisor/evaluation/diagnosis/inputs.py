"""Inputs that settle what the advisor cannot know from what is there, and how to get each.

Costs are what a person has to do, not money: a line of settings, a scrape job, a line in a program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.evaluation.facts import Gpu

Cost = Literal["a line of settings", "one command", "an exporter option", "another exporter", "two lines in the job"]


@dataclass(frozen=True, slots=True)
class Source:
    """One way to get an input, for GPUs of a vendor, an exporter and models (regular expressions); empty: any."""

    cost: Cost
    how: str
    exporter: str = ""
    vendor: str = ""
    models: str = ""

    def fits(self, gpu: Gpu) -> bool:
        return (
            (not self.exporter or re.fullmatch(self.exporter, gpu.exporter) is not None)
            and self.vendor in ("", gpu.vendor)
            and (not self.models or re.search(self.models, gpu.name) is not None)
        )


@dataclass(frozen=True, slots=True)
class Input:
    """`features`: those that it gives. `sources`: the first that matches a GPU is the cheapest one for it."""

    name: str
    about: str
    features: tuple[str, ...]
    sources: tuple[Source, ...]

    def source(self, gpu: Gpu) -> Source | None:
        """The cheapest way for a GPU; None if it has none."""
        return next((source for source in self.sources if source.fits(gpu)), None)


#: GPUs for which DCGM has profiling metrics: https://docs.nvidia.com/datacenter/dcgm/latest/user-guide/feature-overview.html
_DCGM_PROFILING = r"^(?!.*GeForce).*\b(G?H\d00|H20|G?B[23]00|A\d+G?|A800|L4|L40S?|V100|T4G?)\b"

#: Fields of DCGM by number: 1002 SM, 1004 tensor, 1005 DRAM, 1007 FP32 activity.
_DCGMI = "to look once: dcgmi dmon -e 1002,1004,1005,1007 -c 30"
_PROFILING_FIELDS = "DCGM_FI_PROF_SM_ACTIVE, DCGM_FI_PROF_PIPE_TENSOR_ACTIVE, DCGM_FI_PROF_PIPE_FP32_ACTIVE"

#: AMD: https://rocm.docs.amd.com/projects/amdsmi/en/develop/conceptual/gpu-violations.html
INPUTS: Mapping[str, Input] = {
    each.name: each
    for each in (
        Input("pool_kind", "whether these GPUs train or serve", ("trains", "serves", "fill"), (
            Source("a line of settings", "set `kind: training` or `kind: serving` for the pool under `pools`"),
        )),
        Input("throttle_reasons", "why the clock is low", ("thermal", "power_brake", "power_cap"), (
            Source("one command", "to look once: nvidia-smi -q -d PERFORMANCE,POWER; for good: run gpu-exporter, which "
                   "publishes gpu_throttle_seconds_total", vendor="nvidia"),
            Source("one command", "to look once: amd-smi metric --violation", vendor="amd", models=r"MI[3-9]\d\d"),
            Source("one command", "to look once: amd-smi metric --power", vendor="amd"),
            Source("another exporter", "run gpu-exporter, which publishes gpu_throttle_seconds_total"),
        )),
        Input("owner", "which GPUs work in one job", ("clock_of_job",), (
            Source("another exporter", "run gpu-exporter, which publishes gpu_owner_info; on Kubernetes, let "
                   "dcgm-exporter add pod labels (--kubernetes)", exporter="dcgm-exporter.*"),
            Source("another exporter", "run gpu-exporter, which publishes gpu_owner_info"),
        )),
        Input("sm_activity", "how much of the GPU works while a kernel runs",
              ("fill", "sm_activity", "tensor_fill", "fp32_fill"), (
            Source("an exporter option", f"add {_PROFILING_FIELDS} to the counters file of dcgm-exporter (option -f); "
                   f"{_DCGMI}", exporter="dcgm-exporter.*", vendor="nvidia",
                   models=_DCGM_PROFILING),
            Source("another exporter", f"run dcgm-exporter with {_PROFILING_FIELDS}; {_DCGMI}", vendor="nvidia",
                   models=_DCGM_PROFILING),
            Source("an exporter option", "enable ProfilerMetrics in the configuration of device-metrics-exporter",
                   exporter="amd-device-metrics-exporter.*"),
            Source("another exporter", "run AMD's device-metrics-exporter with ProfilerMetrics", vendor="amd",
                   models="MI"),
        )),
        Input("power", "how much power the GPU draws", ("power", "busy_power_at_least"), (
            Source("one command", "to look once: nvidia-smi --query-gpu=power.draw,power.limit --format=csv; for good: "
                   "run gpu-exporter, which publishes gpu_power_watts", vendor="nvidia"),
            Source("one command", "to look once: amd-smi metric --power", vendor="amd"),
        )),
        Input("kernel_profile", "which kernels run", (), (
            Source("one command", "nsys profile --gpu-metrics-devices=all --duration=30 -o trace COMMAND",
                   vendor="nvidia"),
            Source("one command", "rocprofv3 --kernel-trace --stats -- COMMAND", vendor="amd"),
            Source("one command", "profile the job for 30 s, for example with torch.profiler"),
        )),
        Input("job_report", "how long the job waits for data and for other ranks",
              ("data_wait", "stepping", "communication"), (
            Source("two lines in the job", "report from the training loop: gpu_advisor.training.TrainingMonitor"),
        )),
        Input("day_history", "the busiest hour of the day", ("day_peak",), (
            Source("one command", "load the recording rules (gpu-advisor rules > gpu-advisor.rules.yml) and "
                   "wait for a day of data"),
        )),
        Input("utilization", "how busy the GPU is", ("utilization",), (
            Source("another exporter", "run gpu-exporter, which publishes gpu_busy_seconds_total"),
        )),
    )
}  # fmt: skip
