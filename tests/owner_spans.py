"""Histories of idle GPUs whose owners come and go, as gpu-exporter and dcgm-exporter show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource

from tests.telemetry_histories import GIB

AT, STEP, MINUTE = 1_795_003_200.0, 60.0, 60.0
START = AT - 3 * 3600
SETTINGS = Settings.model_validate(
    {
        "resources": {"gpu": {"min": 0, "max": 64}},
        "cost": {"gpu_price_per_hour": {"H100": 3.0}},
        "source": {"prometheus": {"url": "http://127.0.0.1:9090"}},
    }
)
MODEL = "NVIDIA H100 80GB HBM3"

Row = tuple[str, dict[str, str], float]


@dataclass(frozen=True)
class Span:
    """An owner of a GPU, by the names of Kubernetes or Slurm, from `begin` to `end`; `started` if not at `begin`."""

    labels: Mapping[str, str]
    begin: float = START
    end: float = AT + 1
    started: float | None = None
    replica: str = ""  # of a time-sliced GPU


@dataclass(frozen=True)
class SpannedGpu:
    """Idle throughout. `slice_of`: a MIG slice of this board."""

    uuid: str
    spans: tuple[Span, ...] = ()
    index: str = "0"
    cluster: str = ""
    slice_of: str = ""
    node: str = "n1"


@dataclass(frozen=True)
class KubernetesPod:
    """What kube-state-metrics knows of a pod: its controller, and the controller of that."""

    pod: str
    begin: float
    controller: tuple[str, str] = ("<none>", "<none>")
    above: tuple[str, str] = ("", "")
    cluster: str = ""
    container_started: float | None = None


def pod(name: str, since: float = 180, until: float = -1, replica: str = "") -> Span:
    """A pod from so many minutes ago until so many minutes ago."""
    labels = {"namespace": "ml", "pod": name, "container": "main"}
    return Span(labels, AT - since * MINUTE, AT - until * MINUTE, replica=replica)


def slurm(job: str, since: float = 180, until: float = -1, array_task: str = "") -> Span:
    labels = {"kind": "slurm", "job": job, "user": "ada", "partition": "gpu", "array_task": array_task}
    return Span(labels, AT - since * MINUTE, AT - until * MINUTE)


def evaluate_spans(
    exporter: str, gpus: Sequence[SpannedGpu], pods: Sequence[KubernetesPod], folder: Path
) -> Evaluation:
    """As of AT, through this exporter."""
    history = History(folder / "history.db")
    history.import_samples(
        "spans",
        (
            (name, tuple(sorted((label, text) for label, text in labels.items() if text)), value, at)
            for at in (START + STEP * number for number in range(int((AT - START) / STEP) + 1))
            for name, labels, value in _rows(exporter, gpus, pods, at)
        ),
    )
    found = evaluate(EmbeddedSource(history), SETTINGS, AT)
    history.close()
    return found


def _rows(exporter: str, gpus: Sequence[SpannedGpu], pods: Sequence[KubernetesPod], at: float) -> Iterator[Row]:
    for node, cluster in sorted({(gpu.node, gpu.cluster) for gpu in gpus}):
        yield "up", _target(exporter, node, cluster), 1.0
        host = {"job": "node", "instance": f"{node}:9100", "cluster": cluster, "nodename": node}
        yield "node_uname_info", host, 1.0
    for gpu in gpus:
        yield from EXPORTERS[exporter](exporter, gpu, [each for each in gpu.spans if each.begin <= at < each.end], at)
    for each in pods:
        if each.begin <= at:
            yield from _kubernetes(each)


def _target(exporter: str, node: str, cluster: str) -> dict[str, str]:
    if exporter == "gpu-exporter":
        return {"job": "gpu-exporter", "instance": f"{node}:9816", "cluster": cluster}
    found = {"job": "dcgm-exporter", "instance": f"{node}:9400", "cluster": cluster}
    own = {"pod": "dcgm-x7k2p", "namespace": "monitoring", "container": "exporter"}
    return found | (own if exporter == "dcgm, exported" else {})


def _own_rows(exporter: str, gpu: SpannedGpu, present: Sequence[Span], at: float) -> Iterator[Row]:
    device = {**_target(exporter, gpu.node, gpu.cluster), "uuid": gpu.uuid}
    sliced = {"parent_uuid": gpu.slice_of, "mig_profile": "1g.10gb"} if gpu.slice_of else {}
    identity = {"index": gpu.index, "name": MODEL, "vendor": "nvidia", "nodename": gpu.node, **sliced}
    yield "gpu_info", {**device, **identity}, 1.0
    yield "gpu_up", device, 1.0
    yield "gpu_busy_seconds_total", device, 0.0
    yield "gpu_observed_seconds_total", device, at - START
    yield "gpu_memory_total_bytes", device, 80.0 * GIB
    yield "gpu_memory_used_bytes", device, 40.0 * GIB
    for span in present:
        names = {f"owner_{name}": text for name, text in span.labels.items() if name not in ("kind", "job")}
        kind = span.labels.get("kind", "kubernetes")
        owner = {**device, **names, "training_job": span.labels.get("job", ""), "owner_kind": kind}
        yield "gpu_owner_info", owner, 1.0
        yield "gpu_owner_start_time_seconds", owner, span.begin if span.started is None else span.started


def _dcgm_rows(exporter: str, gpu: SpannedGpu, present: Sequence[Span], _at: float) -> Iterator[Row]:
    """A time-sliced GPU has the series of each pod (dcgm-exporter's --kubernetes-virtual-gpus)."""
    prefix = "exported_" if exporter == "dcgm, exported" else ""
    device = {
        **_target(exporter, gpu.node, gpu.cluster), "UUID": gpu.uuid, "gpu": gpu.index, "modelName": MODEL,
        "Hostname": gpu.node,
    }  # fmt: skip
    of_pods = [
        {**device, **{f"{prefix}{name}": text for name, text in span.labels.items()}, "vgpu": span.replica}
        for span in present
        if "pod" in span.labels
    ]
    for labels in of_pods or [device]:
        yield "DCGM_FI_DEV_GPU_UTIL", labels, 0.0
        yield "DCGM_FI_DEV_FB_USED", labels, 40_000.0
        yield "DCGM_FI_DEV_FB_FREE", labels, 41_000.0


EXPORTERS: Mapping[str, Callable[[str, SpannedGpu, Sequence[Span], float], Iterator[Row]]] = {
    "gpu-exporter": _own_rows,
    "dcgm, labels": _dcgm_rows,
    "dcgm, exported": _dcgm_rows,
}


def _kubernetes(of: KubernetesPod) -> Iterator[Row]:
    target = {"job": "kube-state-metrics", "instance": "ksm:8080", "cluster": of.cluster, "namespace": "ml"}
    named = {**target, "pod": of.pod}
    yield "kube_pod_start_time", named, of.begin
    if of.container_started is not None:
        yield "kube_pod_container_state_started", {**named, "container": "main"}, of.container_started
    kind, name = of.controller
    yield "kube_pod_owner", {**named, "owner_kind": kind, "owner_name": name, "owner_is_controller": "true"}, 1.0
    if kind == "Job":
        above = {"owner_kind": of.above[0], "owner_name": of.above[1], "owner_is_controller": "true"}
        yield "kube_job_owner", {**target, "job_name": name, **above}, 1.0
