"""Situations of how often, how long and which fields are scraped. Each with what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.telemetry_changes import UNTOUCHED
from tests.telemetry_histories import Sample
from tests.telemetry_oracle import AT
from tests.telemetry_situations import (
    Situation,
    Target,
    chain,
    constant,
    dcgm_gpu,
    node_metrics,
    own_gpu,
    summarize,
    target,
)


def _own_pair(where: Target) -> Iterator[Sample]:
    """Two GPUs: one busy 95 % of the time, one idle with some memory allocated."""
    yield from where.up()
    yield from own_gpu(where, "GPU-0", "n1", 0, constant(0.95))
    yield from own_gpu(where, "GPU-1", "n1", 1, constant(0.0), memory=0.01)


def _dcgm_pair(where: Target) -> Iterator[Sample]:
    yield from where.up()
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, constant(0.95))
    yield from dcgm_gpu(where, "GPU-1", "n1", 1, constant(0.0), memory=0.01)


def _every(seconds: float, pair: Callable[[Target], Iterator[Sample]] = _own_pair) -> Callable[[], Iterator[Sample]]:
    return lambda: pair(target("gpu", "n1:9816", interval=seconds, phase=7.0))


def _short_retention() -> Iterator[Sample]:
    """The store has twenty minutes, the idle window is longer."""
    return _own_pair(target("gpu", "n1:9816", begin=AT - 1200))


def _comes_and_goes() -> Iterator[Sample]:
    """The target is away for three of every ten minutes; `up` is stored all the time."""
    return _own_pair(target("gpu", "n1:9816", present=lambda at: (AT - at) % 600 > 180 or AT - at < 60))


def _profiling_fields_only() -> Iterator[Sample]:
    """A field list without any device field."""
    where = target("dcgm", "n1:9400")
    yield from where.up()
    for index, level in enumerate((0.95, 0.0)):
        for name, labels, _, at in dcgm_gpu(where, f"GPU-{index}", "n1", index, constant(level)):
            if name == "DCGM_FI_DEV_GPU_UTIL":
                yield "DCGM_FI_PROF_GR_ENGINE_ACTIVE", labels, level, at
                yield "DCGM_FI_PROF_DRAM_ACTIVE", labels, level / 2, at


def _nomad() -> Iterator[Sample]:
    """Service discovery of Nomad: the job, task and allocation that run the exporters, not those of workloads."""
    alloc = {"nomad_namespace": "default", "nomad_job": "monitoring", "nomad_task": "dcgm", "nomad_alloc_id": "0a1b"}
    gpus = target("nomad-services", "10.0.0.7:24817", namespace="default", node="n1", dc="dc1", **alloc)
    hosts = target("nomad-nodes", "10.0.0.7:9100", namespace="default", node="n1", dc="dc1")
    yield from chain(_dcgm_pair(gpus), hosts.up(), node_metrics(hosts, "n1", network=0.9))


SCRAPES: tuple[Situation, ...] = (
    Situation("scraped every 5 seconds", _every(5), summarize, UNTOUCHED),
    Situation("scraped every two minutes", _every(120), summarize, UNTOUCHED),
    Situation("gauges scraped every two minutes", _every(120, _dcgm_pair), summarize, UNTOUCHED),
    # Six scrapes in the idle window, and one or two in that of the checks.
    Situation("scraped every five minutes", _every(300), summarize, {
        "gpus": 2, "released": ["GPU-1"], "gpu_idle_utilization GPU-0": 0.95, "gpu_idle_coverage GPU-1": 1.0,
        "fleet gpu_utilization status": "unknown", "fleet gpu_utilization message": "fewer than two scrapes",
    }),
    Situation("gauges scraped every five minutes", _every(300, _dcgm_pair), summarize, UNTOUCHED),
    Situation("scraped every seven minutes", _every(420), summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"],
        "fleet gpu_utilization status": "unknown",
    }),
    Situation("gauges scraped every seven minutes", _every(420, _dcgm_pair), summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"],
        "fleet gpu_utilization status": "unknown", "fleet gpu_utilization message": "longer than 300 s",
    }),
    Situation("a store that keeps twenty minutes", _short_retention, summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"], "fleet gpu_utilization": 0.475,
    }),
    Situation("a target that comes and goes", _comes_and_goes, summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"],
    }),
    Situation("DCGM with profiling fields only", _profiling_fields_only, summarize, UNTOUCHED),
    Situation("service discovery of Nomad", _nomad, summarize, {
        **UNTOUCHED, "n1 network": 0.9, "n1 gpu_utilization": 0.475,
    }),
)  # fmt: skip
