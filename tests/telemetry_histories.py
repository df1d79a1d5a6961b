"""Drawn histories of a few GPUs whose true utilization is known, as different stacks of telemetry would store them.

The truth is a function of time; what is stored of it depends on who scrapes: one job or two, replicas of Prometheus,
pods whose names are labels, restarts under another address, gaps. An oracle that knows the truth judges what an
evaluation makes of it. Frozen before the rules that it tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

GIB = 1 << 30

#: Name, labels, value, Unix time.
Sample = tuple[str, dict[str, str], float, float]

WINDOW, IDLE_WINDOW = 300, 1800


@dataclass(frozen=True)
class TrueGpu:
    """`phases`: from which time on the GPU is how busy."""

    uuid: str
    index: int
    node: str
    phases: tuple[tuple[float, float], ...]
    memory: float

    def utilization(self, at: float) -> float:
        return next((level for begin, level in reversed(self.phases) if begin <= at), 0.0)

    def busy_seconds(self, start: float, end: float) -> float:
        """Integral of the utilization."""
        bounds = [*(begin for begin, _ in self.phases), math.inf]
        return sum(
            level * max(0.0, min(end, stop) - max(start, begin))
            for (begin, level), stop in zip(self.phases, bounds[1:], strict=True)
        )


@dataclass(frozen=True)
class ScrapeStream:
    """One server that scrapes a node by one job."""

    job: str
    address: str
    replica: str
    phase: float
    interval: float
    gaps: tuple[tuple[float, float], ...]
    restarts: tuple[float, ...]  # of the exporter: counters begin at zero
    readdressed: bool  # the exporter has another address after each restart
    has_up: bool

    def times(self, start: float, end: float) -> Iterator[float]:
        count = math.ceil((end - start) / self.interval)
        for number in range(count):
            at = start + self.phase + number * self.interval
            if at <= end and not any(begin <= at < stop for begin, stop in self.gaps):
                yield round(at, 3)

    def instance(self, at: float) -> str:
        moved = sum(1 for each in self.restarts if each <= at) if self.readdressed else 0
        return f"{self.address}{moved}:9400"

    def started(self, at: float) -> float | None:
        return max((each for each in self.restarts if each <= at), default=None)


@dataclass(frozen=True)
class DrawnHistory:
    kind: str
    style: str  # of exporter: "gpu-exporter" or "dcgm-exporter"
    gpus: tuple[TrueGpu, ...]
    streams: tuple[ScrapeStream, ...]
    pod_seconds: float  # a GPU's pod changes this often; 0: no pods
    pods_per_gpu: int
    start: float
    end: float
    labels: dict[str, str] = field(default_factory=dict)

    def samples(self) -> Iterator[Sample]:
        for stream in self.streams:
            for at in stream.times(self.start, self.end):
                target = {"job": stream.job, "instance": stream.instance(at), **self.labels}
                if stream.replica:
                    target["replica"] = stream.replica
                if stream.has_up:
                    yield "up", target, 1.0, at
                for gpu in self.gpus:
                    yield from (self._own if self.style == "gpu-exporter" else self._dcgm)(gpu, stream, target, at)

    def _own(self, gpu: TrueGpu, stream: ScrapeStream, target: dict[str, str], at: float) -> Iterator[Sample]:
        device = {**target, "uuid": gpu.uuid}
        since = stream.started(at) or self.start
        info = {"index": str(gpu.index), "name": "NVIDIA H100 80GB HBM3", "vendor": "nvidia", "nodename": gpu.node}
        yield "gpu_info", {**device, **info}, 1.0, at
        yield "gpu_up", device, 1.0, at
        yield "gpu_busy_seconds_total", device, gpu.busy_seconds(since, at), at
        yield "gpu_observed_seconds_total", device, at - since, at
        yield "gpu_memory_total_bytes", device, float(80 * GIB), at
        yield "gpu_memory_used_bytes", device, gpu.memory * 80 * GIB, at

    def _dcgm(self, gpu: TrueGpu, stream: ScrapeStream, target: dict[str, str], at: float) -> Iterator[Sample]:
        device = {
            **target, "UUID": gpu.uuid, "gpu": str(gpu.index), "modelName": "NVIDIA H100 80GB HBM3",
            "Hostname": gpu.node,
        }  # fmt: skip
        for owner in self._owners(gpu, at):
            labelled = {**device, **owner}
            yield "DCGM_FI_DEV_GPU_UTIL", labelled, 100 * gpu.utilization(at), at
            yield "DCGM_FI_DEV_FB_USED", labelled, round(gpu.memory * 81559), at
            yield "DCGM_FI_DEV_FB_FREE", labelled, round((1 - gpu.memory) * 81559), at

    def _owners(self, gpu: TrueGpu, at: float) -> Iterator[dict[str, str]]:
        if not self.pod_seconds:
            yield {}
            return
        life = int((at + 37 * gpu.index) // self.pod_seconds)
        if life % 4 == 3:
            yield {}  # nobody holds it for a while
            return
        for number in range(1 + (self.pods_per_gpu - 1) * (life % 2)):
            yield {"exported_namespace": "batch", "exported_pod": f"job-{gpu.index}-{life}-{number}"}


KINDS = (
    "plain", "two-jobs", "replicas", "jobs-and-replicas", "pods", "shared-pods", "restarts", "moves", "gaps",
    "replicas-with-gaps", "pushed", "young",
)  # fmt: skip


def draw_history(seed: int, at: float, kind: str | None = None) -> DrawnHistory:
    """A history that ends a little after `at`, the time of the evaluation."""
    random = Random(f"telemetry {seed}")
    kind = kind or KINDS[seed % len(KINDS)]
    style = "dcgm-exporter" if kind in ("pods", "shared-pods") else random.choice(("gpu-exporter", "dcgm-exporter"))
    interval = random.choice((5.0, 10.0, 15.0, 15.0, 30.0, 60.0))
    start = at - (random.uniform(60, 2000) if kind == "young" else 3600)
    gpus = tuple(_draw_gpu(random, index, at, start) for index in range(random.randint(2, 4)))
    jobs = ("gpu", "pods") if kind in ("two-jobs", "jobs-and-replicas") else ("gpu",)
    replicas = ("a", "b") if "replicas" in kind else ("",)
    restarts = tuple(
        sorted(
            at - random.uniform(0, 2400) for _ in range(random.randint(1, 3) if kind in ("restarts", "moves") else 0)
        )
    )
    gappy = kind in ("gaps", "replicas-with-gaps") or random.random() < 0.15
    streams = tuple(
        ScrapeStream(
            job,
            "10.0.0." if job == "gpu" else "n1-",
            replica,
            round(random.uniform(0, interval), 3),
            interval if job == "gpu" else random.choice((interval, 60.0)),
            tuple(_draw_gap(random, at) for _ in range(random.randint(1, 3))) if gappy else (),
            restarts,
            kind == "moves",
            kind != "pushed",
        )
        for job in jobs
        for replica in replicas
    )
    pods = random.uniform(60, 1500) if kind in ("pods", "shared-pods") else 0.0
    return DrawnHistory(
        kind, style, gpus, streams, pods, random.randint(2, 3) if kind == "shared-pods" else 1, start, at + 5
    )


def _draw_gpu(random: Random, index: int, at: float, start: float) -> TrueGpu:
    busy = random.uniform(0.3, 1.0)
    shape = random.choice(("idle", "idle", "busy", "stopped", "alternating"))
    phases: tuple[tuple[float, float], ...] = ((start - 1, 0.0 if shape == "idle" else busy),)
    if shape == "stopped":
        phases += ((at - random.uniform(30, 2600), 0.0),)
    if shape == "alternating":
        period = random.uniform(120, 1200)
        turns = int((at - start) // period)
        phases += tuple((start + turn * period, busy * (turn % 2)) for turn in range(1, turns + 1))
    return TrueGpu(f"GPU-{random.getrandbits(64):016x}", index, "node-1", phases, random.choice((0.02, 0.4, 0.8)))


def _draw_gap(random: Random, at: float) -> tuple[float, float]:
    begin = at - random.uniform(0, 2400)
    return begin, begin + random.choice((20.0, 60.0, 200.0, 600.0))


@dataclass(frozen=True)
class Observed:
    """What anybody can know of a GPU from all samples together: each scrape once."""

    coverage: float
    utilization: float


def observe(history: DrawnHistory, gpu: TrueGpu, at: float, window: float) -> Observed:
    """Over the union of all streams: the share of the window near a sample, and the true mean over it."""
    interval = min(stream.interval for stream in history.streams)
    seen: list[tuple[float, float]] = []
    for stream in history.streams:
        for time in stream.times(history.start, at):
            if time > at - window:
                seen.append((max(at - window, time - stream.interval), time))
    merged: list[tuple[float, float]] = []
    for begin, stop in sorted(seen):
        if merged and begin <= merged[-1][1] + 0.3 * interval:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((begin, stop))
    length = sum(stop - begin for begin, stop in merged)
    busy = sum(gpu.busy_seconds(begin, stop) for begin, stop in merged)
    return Observed(min(1.0, length / window), busy / length if length else math.nan)


def wrong_releases(history: DrawnHistory, at: float, released: Sequence[str]) -> list[str]:
    """GPUs called idle that were not, or of which too little is known."""
    wrong = []
    for gpu in history.gpus:
        if gpu.uuid in released:
            found = observe(history, gpu, at, IDLE_WINDOW)
            if found.coverage < 0.85 or found.utilization > 0.02:
                wrong.append(f"{gpu.uuid}: {found}")
    return wrong


def missed_releases(history: DrawnHistory, at: float, released: Sequence[str]) -> list[str]:
    """GPUs that were idle for all of a window that has enough data, and were not called so.

    With pods, each is new in the window: its GPU is left to it.
    """
    if history.pod_seconds:
        return []
    found = {gpu.uuid: observe(history, gpu, at, IDLE_WINDOW) for gpu in history.gpus}
    return [
        uuid for uuid, each in found.items()
        if each.coverage >= 0.95 and each.utilization == 0 and uuid not in released
    ]  # fmt: skip


def openmetrics_lines(samples: Iterator[Sample]) -> Iterator[str]:
    """Samples as a file with timestamps: families together, as OpenMetrics wants them."""
    by_name: dict[str, list[str]] = {}
    for name, labels, value, at in samples:
        text = ",".join(f'{label}="{_escape(text)}"' for label, text in sorted(labels.items()))
        by_name.setdefault(name, []).append(f"{name}{{{text}}} {value!r} {at:.3f}\n")
    for lines in by_name.values():
        yield from lines
    yield "# EOF\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
