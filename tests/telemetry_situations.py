"""Situations of telemetry from public reports, each with what is true: a table for tests and benchmarks.

Every situation is a few GPUs for two hours. Expectations are facts that anybody can check by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_advisor.evaluation.engine import Evaluation

from tests.telemetry_histories import GIB, Sample
from tests.telemetry_oracle import AT

Level = Callable[[float], float]
Present = Callable[[float], bool]

BEGIN = AT - 7200
H100 = "NVIDIA H100 80GB HBM3"


def constant(value: float) -> Level:
    return lambda _: value


def always(_: float) -> bool:
    return True


def times(interval: float = 15.0, phase: float = 0.0, begin: float = BEGIN, end: float = AT) -> Iterator[float]:
    count = int((end - begin - phase) / interval) + 1
    return (begin + phase + number * interval for number in range(count))


@dataclass(frozen=True)
class Target:
    """A scraped exporter: the labels that a scrape adds, when it is scraped, and whether `up` is stored."""

    labels: dict[str, str]
    interval: float = 15.0
    phase: float = 0.0
    present: Present = always
    has_up: bool = True
    begin: float = BEGIN

    def times(self) -> Iterator[float]:
        return (at for at in times(self.interval, self.phase, self.begin) if self.present(at))

    def up(self) -> Iterator[Sample]:
        if self.has_up:
            for at in times(self.interval, self.phase, self.begin):
                yield "up", self.labels, float(self.present(at)), at


def target(job: str, instance: str, **more: Any) -> Target:
    own = {name: more.pop(name) for name in ("interval", "phase", "present", "has_up", "begin") if name in more}
    return Target({"job": job, "instance": instance, **more}, **own)


def own_gpu(where: Target, uuid: str, node: str, index: int, level: Level, memory: float = 0.5) -> Iterator[Sample]:
    """gpu-exporter's series. `level` is the utilization, constant between scrapes."""
    device = {**where.labels, "uuid": uuid}
    busy, before = 0.0, where.begin
    for at in where.times():
        busy += level(at) * (at - before)
        before = at
        yield "gpu_info", {**device, "index": str(index), "name": H100, "vendor": "nvidia", "nodename": node}, 1.0, at
        yield "gpu_up", device, 1.0, at
        yield "gpu_busy_seconds_total", device, busy, at
        yield "gpu_observed_seconds_total", device, at - where.begin, at
        yield "gpu_memory_total_bytes", device, 80.0 * GIB, at
        yield "gpu_memory_used_bytes", device, memory * 80 * GIB, at


def node_metrics(
    where: Target, name: str, pressure: float = 0.0, network: float = 0.1, cpu: float = 0.3
) -> Iterator[Sample]:
    """node_exporter's series."""
    for at in where.times():
        age = at - BEGIN
        yield "node_uname_info", {**where.labels, "nodename": name, "machine": "x86_64"}, 1.0, at
        yield "node_memory_MemTotal_bytes", where.labels, 512.0 * GIB, at
        yield "node_memory_MemAvailable_bytes", where.labels, 300.0 * GIB, at
        yield "node_pressure_io_waiting_seconds_total", where.labels, pressure * age, at
        yield "node_cpu_seconds_total", {**where.labels, "cpu": "0", "mode": "idle"}, (1 - cpu) * age, at
        yield "node_cpu_seconds_total", {**where.labels, "cpu": "0", "mode": "user"}, cpu * age, at
        link = {**where.labels, "device": "eth0"}
        yield "node_network_receive_bytes_total", link, network * 1.25e9 * age, at
        yield "node_network_speed_bytes", link, 1.25e9, at


def dcgm_gpu(
    where: Target,
    uuid: str,
    node: str,
    index: int,
    level: Level,
    memory: float = 0.5,
    owners: Callable[[float], Sequence[dict[str, str]]] = lambda _: ({},),
    host_label: str = "Hostname",
    used: float | None = None,
) -> Iterator[Sample]:
    """dcgm-exporter's series. `used` replaces the framebuffer used, in MiB."""
    device = {**where.labels, "UUID": uuid, "gpu": str(index), "modelName": H100, host_label: node}
    for at in where.times():
        for owner in owners(at):
            labels = {**device, **owner}
            yield "DCGM_FI_DEV_GPU_UTIL", labels, 100 * level(at), at
            yield "DCGM_FI_DEV_FB_USED", labels, memory * 80_000 if used is None else used, at
            yield "DCGM_FI_DEV_FB_FREE", labels, (1 - memory) * 80_000, at


def dcgm_slice(where: Target, uuid: str, node: str, index: int, instance: int, level: Level) -> Iterator[Sample]:
    """A MIG instance as dcgm-exporter has it: the board's framebuffer values repeat, GPU_UTIL is missing."""
    labels = {
        **where.labels, "UUID": uuid, "gpu": str(index), "modelName": H100, "Hostname": node,
        "GPU_I_ID": str(instance), "GPU_I_PROFILE": "3g.40gb",
    }  # fmt: skip
    for at in where.times():
        yield "DCGM_FI_PROF_GR_ENGINE_ACTIVE", labels, level(at), at
        yield "DCGM_FI_DEV_FB_USED", labels, 10_000.0, at
        yield "DCGM_FI_DEV_FB_FREE", labels, 30_000.0, at


@dataclass(frozen=True)
class Situation:
    """`expected` is what `got` gives of the evaluation: numbers within a hundredth, text if it is contained."""

    name: str
    samples: Callable[[], Iterable[Sample]]
    got: Callable[[Evaluation], dict[str, Any]]
    expected: dict[str, Any]


def differences(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """What does not hold."""
    return [
        f"{name}: {got.get(name)!r} for {value!r}"
        for name, value in expected.items()
        if not _alike(value, got.get(name))
    ]


def _alike(expected: Any, got: Any) -> bool:
    if isinstance(expected, float) and isinstance(got, (int, float)):
        return abs(expected - got) <= 0.01
    if isinstance(expected, str) and isinstance(got, str):
        return expected in got
    return bool(expected == got)


def summarize(evaluation: Evaluation) -> dict[str, Any]:
    """Releases, the fleet's utilization and memory, and each node's checks."""
    found: dict[str, Any] = {
        "released": sorted(
            uuid for each in evaluation.recommendations if each.kind == "idle_reclaim" for uuid in each.gpus
        ),
        "gpus": len(evaluation.facts.gpus),
        "abstained": sorted({each.reason.value for each in evaluation.abstentions if each.subject == "idle_reclaim"}),
    }
    for check in evaluation.checks:
        if check.scope.kind in ("fleet", "node"):
            key = f"{check.scope.name} {check.item}"
            found[key] = check.value
            found[f"{key} status"] = check.status.value
            found[f"{key} message"] = check.message
    for name, values in evaluation.facts.values.items():
        for thing, value in values.items():
            found[f"{name} {thing}"] = value
    return found


def chain(*parts: Iterable[Sample]) -> Iterator[Sample]:
    for part in parts:
        yield from part


def _short() -> Iterator[Sample]:
    where = target("gpu-exporter", "n1:9816", begin=AT - 150)
    return chain(where.up(), *(own_gpu(where, f"GPU-{n}", "n1", n, constant(0)) for n in range(2)))


def _two_jobs() -> Iterator[Sample]:
    """Seen by both jobs alike: not between 40 and 16 minutes ago. GPU-1 was busy until 20 minutes ago."""
    for job, instance in (("gpu-exporter", "n1:9816"), ("pods", "10.0.0.1:9816")):
        where = target(job, instance, present=lambda at: not AT - 2400 < at < AT - 960)
        yield from where.up()
        yield from node_metrics(where, "n1", pressure=0.08, network=0.45)
        yield from own_gpu(where, "GPU-0", "n1", 0, constant(0.95))
        yield from own_gpu(where, "GPU-1", "n1", 1, lambda at: 0.95 if at < AT - 1200 else 0.0)


def _replicas() -> Iterator[Sample]:
    for replica, phase in (("a", 0.0), ("b", 7.0)):
        where = target("gpu-exporter", "n1:9816", replica=replica, phase=phase)
        yield from where.up()
        yield from node_metrics(where, "n1", pressure=0.08, network=0.45)
        yield from own_gpu(where, "GPU-0", "n1", 0, constant(0.6))
        yield from own_gpu(where, "GPU-1", "n1", 1, constant(0.0))


def _pods() -> Iterator[Sample]:
    """A new pod every four minutes; on GPU-0 each second one is busy."""
    where = target("dcgm-exporter", "10.0.0.1:9400")

    def owners(at: float) -> list[dict[str, str]]:
        return [{"exported_pod": f"job-{int((at - 1) // 240)}", "exported_namespace": "batch"}]

    yield from where.up()
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, lambda at: 0.95 * (int((at - 1) // 240) % 2), owners=owners)
    yield from dcgm_gpu(where, "GPU-1", "n1", 1, constant(0), owners=owners)


def _pod_mean() -> float:
    """Of the samples of half an hour."""
    busy = [0.95 * (int((AT - 15 * number - 1) // 240) % 2) for number in range(120)]
    return sum(busy) / len(busy)


def _silent_nodes() -> Iterator[Sample]:
    for n in range(10):
        where = target("gpu-exporter", f"n{n}:9816", present=(lambda at: at < AT - 45) if n < 8 else always)
        yield from where.up()
        yield from own_gpu(where, f"GPU-{n}", f"n{n}", 0, constant(0.95 if n < 8 else 0.02))


def _half_in_mig_mode() -> Iterator[Sample]:
    """Slices without profiling metrics: nothing can be known of them."""
    where = target("dcgm-exporter", "10.0.0.1:9400")
    yield from where.up()
    for n in range(4):
        yield from dcgm_gpu(where, f"GPU-{n}", "n1", n, constant(0.912))
    for n in range(4, 8):
        for name, labels, value, at in dcgm_slice(where, f"GPU-{n}", "n1", n, 1, constant(0.5)):
            if "PROF" not in name:
                yield name, labels, value, at


def _slices() -> Iterator[Sample]:
    where = target("dcgm-exporter", "10.0.0.1:9400")
    yield from where.up()
    for instance, level in ((1, 0.95), (2, 0.0)):
        yield from dcgm_slice(where, "GPU-0", "n1", 0, instance, constant(level))


def _two_clusters() -> Iterator[Sample]:
    for cluster, cpu, level, pressure in (("east", 0.2, 0.95, 0.0), ("west", 0.97, 0.45, 0.5)):
        where = target("gpu-exporter", "gpu-node-1:9816", cluster=cluster)
        yield from where.up()
        yield from node_metrics(where, "gpu-node-1", pressure, 0.3 if cluster == "east" else 0.6, cpu)
        for n in range(2):
            yield from own_gpu(where, f"GPU-{cluster}-{n}", "gpu-node-1", n, constant(level))


def _clusters_of_other_intervals() -> Iterator[Sample]:
    for cluster, interval, level in (("east", 15.0, 0.95), ("west", 60.0, 0.0)):
        where = target("gpu-exporter", "gpu-node-1:9816", cluster=cluster, interval=interval)
        yield from where.up()
        yield from own_gpu(where, f"GPU-{cluster}", "gpu-node-1", 0, constant(level))


def _without_up() -> Iterator[Sample]:
    where = target("dcgm-exporter", "n1:9400", has_up=False)
    other = target("federate", "prometheus-a:9090")
    yield from other.up()
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, constant(0.95))
    yield from dcgm_gpu(where, "GPU-1", "n1", 1, constant(0))


def _amd_without_serial() -> Iterator[Sample]:
    where = target("amd", "10.0.0.1:5000")
    yield from where.up()
    for n in range(4):
        labels = {
            **where.labels, "gpu_id": str(n), "serial_number": "N/A", "hostname": "n1", "card_model": "MI300X",
            "pcie_bus_id": f"0000:{n:02x}:00.0",
        }  # fmt: skip
        for at in where.times():
            yield "gpu_gfx_activity", labels, 20.0 * n, at
            yield "gpu_used_vram", labels, 1000.0, at
            yield "gpu_total_vram", labels, 196_000.0, at


def _blank_values() -> Iterator[Sample]:
    where = target("dcgm-exporter", "10.0.0.1:9400")
    yield from where.up()
    for n, used in enumerate((float(2**63 - 1), float(2**47), 40_000.0)):
        yield from dcgm_gpu(where, f"GPU-{n}", "n1", n, constant(0.95), used=used)


def _host_names(host: str, node: str, host_label: str = "Hostname") -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        gpus, host_metrics = target("dcgm-exporter", "10.244.0.7:9400"), target("node-exporter", "172.31.0.9:9100")
        yield from chain(gpus.up(), host_metrics.up(), node_metrics(host_metrics, node, network=0.9))
        yield from dcgm_gpu(gpus, "GPU-0", host, 0, constant(0.5), host_label=host_label)

    return samples


def _unmapped() -> Iterator[Sample]:
    where, other = target("dcgm-exporter", "n1:9400"), target("acme", "n2:9999")
    yield from chain(where.up(), other.up())
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, constant(0.95))
    for at in other.times():
        yield "acme_gpu_utilization_percent", {**other.labels, "card": "0"}, 7.0, at
        yield "acme_gpu_memory_used_bytes", {**other.labels, "card": "0"}, 7.0, at


def _restarts() -> Iterator[Sample]:
    for instance, begin, present in (
        ("10.0.0.1:9816", BEGIN, lambda at: at < AT - 720),
        ("10.0.0.2:9816", AT - 715, always),
    ):
        where = target("gpu-exporter", instance, begin=begin, present=present)
        yield from where.up()
        yield from own_gpu(where, "GPU-0", "n1", 0, constant(0.95))
        yield from own_gpu(where, "GPU-1", "n1", 1, constant(0))


SITUATIONS: tuple[Situation, ...] = (
    Situation("two and a half minutes of data", _short, summarize, {
        "released": [], "abstained": ["insufficient_history"],
    }),
    Situation("two jobs, and a gap", _two_jobs, summarize, {
        "released": [], "gpus": 2, "n1 storage": 0.08, "n1 network": 0.45, "fleet gpu_utilization": 0.475,
        "gpu_idle_coverage GPU-0": 960 / 1800,
    }),
    Situation("two replicas in one store", _replicas, summarize, {
        "released": ["GPU-1"], "n1 storage": 0.08, "n1 network": 0.45, "fleet gpu_utilization": 0.3,
        "gpu_idle_coverage GPU-1": 1.0,
    }),
    # The mean is the GPU's, for all of its owners; what to do about it depends on the pods, which are all new.
    Situation("a new pod every few minutes", _pods, summarize, {
        "gpu_idle_utilization GPU-0": _pod_mean(), "gpu_idle_coverage GPU-0": 1.0, "gpu_idle_coverage GPU-1": 1.0,
        "gpu_idle_utilization GPU-1": 0.0, "released": [],
    }),
    Situation("eight of ten nodes silent for 45 s", _silent_nodes, summarize, {
        "fleet gpu_utilization status": "unknown", "released": [],
        "fleet gpu_utilization message": "2 of 10 GPUs have enough data",
    }),
    Situation("half of the fleet in MIG mode", _half_in_mig_mode, summarize, {
        "fleet gpu_utilization status": "unknown", "fleet gpu_utilization message": "4 of 8 GPUs have enough data",
    }),
    Situation("MIG slices with engine activity", _slices, summarize, {
        "gpus": 2, "fleet gpu_utilization": 0.475, "fleet gpu_memory": 0.25, "released": ["GPU-0~2"],
    }),
    Situation("two clusters with the same names", _two_clusters, summarize, {
        "gpus": 4, "east/gpu-node-1 storage": 0.0, "west/gpu-node-1 storage": 0.5, "east/gpu-node-1 cpu": 0.2,
        "west/gpu-node-1 cpu": 0.97, "west/gpu-node-1 network": 0.6, "east/gpu-node-1 gpu_utilization": 0.95,
        "west/gpu-node-1 gpu_utilization": 0.45,
    }),
    Situation("two clusters, one job, other intervals", _clusters_of_other_intervals, summarize, {
        "gpus": 2, "east/gpu-node-1 gpu_utilization": 0.95, "gpu_idle_coverage GPU-east": 1.0,
        "gpu_idle_coverage GPU-west": 1.0, "released": ["GPU-west"], "fleet gpu_utilization": 0.475,
    }),
    Situation("no series up", _without_up, summarize, {"released": ["GPU-1"], "fleet gpu_utilization": 0.475}),
    Situation("AMD without serial numbers", _amd_without_serial, summarize, {"gpus": 4, "fleet gpu_utilization": 0.3}),
    Situation("DCGM's blank values", _blank_values, summarize, {
        "gpu_memory_used GPU-0": None, "gpu_memory_used GPU-1": None, "gpu_memory_used GPU-2": 0.5,
        "fleet gpu_memory status": "unknown",
    }),
    *(
        Situation(f"host name: {name}", _host_names(host, node, label), summarize, {
            "n1 network": 0.9, "n1 gpu_utilization": 0.5,
        })
        for name, host, node, label in (
            ("the same", "n1", "n1", "Hostname"), ("label hostname", "n1", "n1", "hostname"),
        )
    ),
    Situation("host name: FQDN against short", _host_names("n1.example.com", "n1"), summarize, {
        "n1 network": 0.9, "n1 gpu_utilization": 0.5,
    }),
    Situation("an exporter without a mapping", _unmapped, summarize, {
        "gpus": 1, "fleet unmapped_exporters message": "acme",
    }),
    Situation("an exporter restarted under another address", _restarts, summarize, {
        "released": ["GPU-1"], "gpu_idle_utilization GPU-0": 0.95, "fleet gpu_utilization": 0.475,
    }),
)  # fmt: skip
