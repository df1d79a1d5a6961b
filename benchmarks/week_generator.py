"""A week of a simulated fleet as text for promtool: the series of gpu-exporter and node_exporter that a report reads.

Four kinds of work with daily and weekly patterns of GPU utilization; one node does not report for nine hours, and
one is removed. Counters grow with the work, as the exporter's do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, sin

from benchmarks.fleet_generator import GPUS_PER_NODE, JOB

HOUR, DAY = 3600, 86400


@dataclass(frozen=True)
class WorkloadProfile:
    """One kind of work on GPUs of one model. `level`: mean utilization; `daily_amplitude`: of its daily pattern."""

    model: str
    memory_bytes: float
    held: float
    level: float
    daily_amplitude: float
    weekend: float  # how much of it there is on the last two days of the week
    night: float  # and from 20 to 8 o'clock


TRAINING = WorkloadProfile("NVIDIA H100 80GB HBM3", 80 * 2**30, 0.86, 0.93, 0.03, 1.0, 1.0)
STARVED = WorkloadProfile("NVIDIA A100-SXM4-80GB", 80 * 2**30, 0.44, 0.52, 0.06, 1.0, 1.0)
SERVING = WorkloadProfile("NVIDIA L4", 24 * 2**30, 0.78, 0.45, 0.3, 0.6, 1.0)
NOTEBOOKS = WorkloadProfile("Tesla T4", 16 * 2**30, 0.31, 0.3, 0.05, 0.0, 0.0)
#: One node of each in turn, training twice.
NODE_PROFILES = (TRAINING, SERVING, STARVED, TRAINING, NOTEBOOKS)

PRICES = {TRAINING.model: 2.5, STARVED.model: 1.5, SERVING.model: 0.7}  # the notebooks' model has none, on purpose


def utilization(work: WorkloadProfile, seconds: float, number: int) -> float:
    """Return the utilization of a GPU `seconds` after the start of the week (midnight)."""
    hour, day = seconds % DAY / HOUR, int(seconds // DAY) % 7
    level = work.level + work.daily_amplitude * sin(2 * pi * (hour - 9) / 24) + 0.02 * sin(seconds / 700 + number)
    part = (work.weekend if day >= 5 else 1.0) * (1.0 if 8 <= hour < 20 else work.night)
    return min(1.0, max(0.0, level * part))


def is_exporter_down(node: int, seconds: float) -> bool:
    """The third node's exporter is down on the third day."""
    return node == 2 and 2.3 * DAY <= seconds < 2.3 * DAY + 9 * HOUR


def is_node_removed(node: int, nodes: int, seconds: float) -> bool:
    """The last of several nodes is removed on the fifth day."""
    return node == nodes - 1 > 2 and seconds >= 4.5 * DAY


def generate_samples(gpus: int, end: float, length_seconds: int = 7 * DAY, interval: int = 30) -> Iterator[str]:
    """Yield lines ordered by time, from `length_seconds` before `end` (Unix time) to `end`."""
    nodes = -(-gpus // GPUS_PER_NODE)
    busy = [0.0] * gpus
    seen = [0.0] * gpus
    cpu = [0.0] * nodes
    heads = [_series_prefixes(number) for number in range(gpus)]
    for elapsed in range(0, length_seconds + 1, interval):
        at = f" {int(end) - length_seconds + elapsed}\n"
        for node in range(nodes):
            if is_node_removed(node, nodes, elapsed):
                continue
            target = f'job="{JOB}",instance="node-{node:03d}:9816"'
            yield f"up{{{target}}} {0 if is_exporter_down(node, elapsed) else 1}{at}"
            work = NODE_PROFILES[node % len(NODE_PROFILES)]
            mean = 0.0
            for number in range(node * GPUS_PER_NODE, min(gpus, (node + 1) * GPUS_PER_NODE)):
                now = utilization(work, elapsed, number)
                busy[number] += now * interval
                seen[number] += interval
                mean += now / GPUS_PER_NODE
                if not is_exporter_down(node, elapsed):
                    yield from _gpu_samples(heads[number], busy[number], seen[number], work, at)
            cpu[node] += (0.25 + 0.5 * mean) * interval
            if not is_exporter_down(node, elapsed):
                yield f'node_uname_info{{nodename="node-{node:03d}",{target}}} 1{at}'
                yield f'node_cpu_seconds_total{{cpu="0",mode="user",{target}}} {cpu[node]:.3f}{at}'
                yield f'node_cpu_seconds_total{{cpu="0",mode="idle",{target}}} {elapsed - cpu[node] + 1e6:.3f}{at}'


def recorded(gpus: int, end: float, length_seconds: int = 7 * DAY, interval: int = 60) -> Iterator[str]:
    """Yield the same fleet as recording rules of this interval would: identities, no raw samples."""
    nodes = -(-gpus // GPUS_PER_NODE)
    for elapsed in range(0, length_seconds + 1, interval):
        at = f" {int(end) - length_seconds + elapsed}\n"
        for node in range(nodes):
            if is_exporter_down(node, elapsed) or is_node_removed(node, nodes, elapsed):
                continue
            target = f'job="{JOB}",instance="node-{node:03d}:9816"'
            work = NODE_PROFILES[node % len(NODE_PROFILES)]
            yield f"up{{{target}}} 1{at}"
            yield f'node_uname_info{{nodename="node-{node:03d}",{target}}} 1{at}'
            yield f'node:cpu_ratio:mean5m{{instance="node-{node:03d}:9816"}} 0.5{at}'
            for number in range(node * GPUS_PER_NODE, min(gpus, (node + 1) * GPUS_PER_NODE)):
                mean = utilization(work, elapsed - 900, number)  # of the half hour before, about its middle
                own = f'uuid="GPU-{number:08x}"'
                yield _series_prefixes(number)[0] + at
                yield f"gpu:utilization_ratio:mean30m{{{own}}} {mean:.6f}{at}"
                yield f"gpu:utilization_coverage_ratio:mean30m{{{own}}} 1{at}"
                yield f"gpu:memory_used_ratio:last{{{own}}} {work.held}{at}"


def _series_prefixes(number: int) -> tuple[str, ...]:
    """Return the series of a GPU without their values."""
    node, index = divmod(number, GPUS_PER_NODE)
    own = f'uuid="GPU-{number:08x}",job="{JOB}",instance="node-{node:03d}:9816"'
    names = (
        "gpu_busy_seconds_total", "gpu_observed_seconds_total", "gpu_memory_used_bytes", "gpu_memory_total_bytes",
        "gpu_up", "gpu_processes",
    )  # fmt: skip
    model = NODE_PROFILES[node % len(NODE_PROFILES)].model
    identity = f'index="{index}",name="{model}",vendor="nvidia",nodename="node-{node:03d}"'
    return (f"gpu_info{{{own},{identity}}} 1", *(f"{name}{{{own}}} " for name in names))


def _gpu_samples(heads: tuple[str, ...], busy: float, seen: float, work: WorkloadProfile, at: str) -> Iterator[str]:
    info, *others = heads
    yield info + at
    values = (busy, seen, work.held * work.memory_bytes, work.memory_bytes, 1, 1)
    for head, value in zip(others, values, strict=True):
        yield f"{head}{value:.10g}{at}"
