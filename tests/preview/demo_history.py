"""The history of a demo fleet, as Prometheus would have scraped and recorded it.

Three nodes with gpu-exporter's simulated GPUs in every scenario; hosts, training jobs, the advisor's evaluations, and
the metrics of the stack itself. The history ends at a fixed time, so that all runs are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import pi, sin
from typing import Any

import requests
import yaml
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.notify.metrics import MetricsExposition
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.outcomes import Outcomes
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_exporter.devices.simulated import generate_history
from gpu_exporter.exposition import render_history

END = 1_795_003_200.0
#: A series that rules of another file record.
NOTHING = "vector(0) < 0"
#: Labels added by the scrape.
Target = Mapping[str, str]


@dataclass(frozen=True)
class DemoNode:
    """`before`: the fleet until 1.5 hours before the end. `cpu`, `disk`: utilization, 0 to 1."""

    name: str
    fleet: str
    before: str = ""
    cpu: float = 0.35
    disk: float = 0.2
    seed: int = 0

    @property
    def target(self) -> Target:
        return {"job": "gpu-exporter", "instance": f"{self.name}:9816"}


NODES = (
    DemoNode(
        "train-1",
        "4xH100-80GB:training,2xH100-80GB:held-up,1xH100-80GB:straggler,1xH100-80GB:hot",
        cpu=0.62, seed=1,
    ),
    DemoNode(
        "train-2",
        "2xA100-80GB:data-bound,2xA100-40GB:small-batch,2xH200-141GB:memory-bound,1xH200-141GB:memory-full,"
        "2xH200-141GB:communication-bound,2xH100-80GB:single-precision,1xH100-80GB:power-capped",
        cpu=0.93, disk=0.85, seed=2,
    ),
    DemoNode(
        "mixed-1",
        "2xT4-16GB:idle-hoarder,2xT4-16GB:idle,2xL4-24GB:saturated-serving,1xL40S-48GB:small-service,"
        "1xH100-80GB:throttled,1xH100-80GB:lost,1xH100-80GB:power-limited,1xH100-80GB:failing,"
        "1xH200-141GB:busy-but-empty,2xH200-141GB:hung-collective",
        before="2xT4-16GB:training,2xT4-16GB:training,2xL4-24GB:saturated-serving,1xL40S-48GB:small-service,"
        "1xH100-80GB:throttled,1xH100-80GB:lost,1xH100-80GB:power-limited,1xH100-80GB:failing,"
        "1xH200-141GB:busy-but-empty,2xH200-141GB:hung-collective",
        seed=3,
    ),
)  # fmt: skip

SETTINGS = Settings.model_validate(
    {
        "cluster": "demo",
        "resources": {"gpu": {"min": 0, "max": 64}},
        "pools": [
            {"name": "serving", "kind": "serving", "match": {"name": ".* L4|.* L40S"}},
            {"name": "notebooks", "match": {"name": ".* T4"}},
            {"name": "training", "kind": "training"},
        ],
        "teams": [
            {"name": "Foundation models", "namespaces": ["language"]},
            {"name": "Perception", "namespaces": ["vision"]},
        ],
        "cost": {
            "gpu_price_per_hour": {
                "NVIDIA H200": 3.8, "NVIDIA H100 80GB HBM3": 2.5, "NVIDIA A100-SXM4-80GB": 1.5,
                "NVIDIA A100-SXM4-40GB": 1.2, "NVIDIA L40S": 0.9, "NVIDIA L4": 0.5, "Tesla T4": 0.3,
            }
        },
    }
)  # fmt: skip


def scraped_samples(length_seconds: float, step_seconds: float) -> Iterator[str]:
    """Samples of exporters and jobs, as OpenMetrics lines for promtool."""
    begin = END - length_seconds
    change = END - 1.5 * 3600
    times = [begin + step_seconds * (i + 1) for i in range(int(length_seconds // step_seconds))]
    for node in NODES:
        yield from _device_samples(node.before or node.fleet, node, begin, change, step_seconds)
        yield from _device_samples(node.fleet, node, max(begin, change), END, step_seconds)
        for at in times:
            yield from add_timestamps(_host_samples(node, at - begin), node.target, at)
    for at in times:
        yield from add_timestamps(_job_samples(at - begin), {"job": "training", "instance": "train-1:8080"}, at)


def _device_samples(fleet: str, node: DemoNode, begin: float, end: float, step: float) -> Iterator[str]:
    if fleet and end > begin:
        for line in render_history(generate_history(fleet, node.seed, node.name, begin, end, step)):
            if not line.startswith("#"):
                yield add_target_labels(line, node.target) + "\n"


def _host_samples(node: DemoNode, seconds: float) -> Iterator[str]:
    """Names and labels are node_exporter's. Counters rise with a periodic component."""
    slow, fast = (period / (2 * pi) * (1 - _cos(seconds, period)) for period in (4800.0, 900.0))
    cpu = node.cpu * seconds + 0.04 * slow + 0.02 * fast
    yield f'node_uname_info{{nodename="{node.name}"}} 1'
    yield f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {seconds - cpu + 1000}'
    yield f'node_cpu_seconds_total{{cpu="0",mode="user"}} {cpu + 500}'
    yield "node_memory_MemTotal_bytes 1.0e12"
    yield f"node_memory_MemAvailable_bytes {(0.55 + 0.05 * sin(seconds / 700)) * 1e12}"
    yield f"node_pressure_io_waiting_seconds_total {0.4 * node.disk * seconds + 0.01 * fast}"
    yield f'node_disk_io_time_seconds_total{{device="nvme0n1"}} {node.disk * seconds + 0.05 * slow}'
    yield 'node_network_speed_bytes{device="eth0"} 1.25e9'
    for direction, share in (("receive", 0.3), ("transmit", 0.12)):
        yield f'node_network_{direction}_bytes_total{{device="eth0"}} {share * 1.25e9 * (seconds + 0.3 * fast)}'


def _cos(seconds: float, period: float) -> float:
    return sin(2 * pi * seconds / period + pi / 2)


def _job_samples(seconds: float) -> Iterator[str]:
    for job, wait, exchange, samples in (("train", 0.03, 0.08, 4200), ("data-bound", 0.55, 0.05, 900)):
        for rank in range(2):
            labels = f'{{training_job="{job}",rank="{rank}"}}'
            yield f"training_step_seconds_total{labels} {seconds}"
            yield f"training_data_wait_seconds_total{labels} {wait * seconds + 3 * sin(seconds / 500)}"
            yield f"training_communication_seconds_total{labels} {exchange * seconds}"
            yield f"training_samples_total{labels} {samples * seconds}"
            yield f"training_loss{labels} {1.4 + 2.2 / (1 + seconds / 2500) + 0.02 * sin(seconds / 41 + rank)}"


def add_target_labels(line: str, target: Target) -> str:
    """A line with the labels added by the scrape."""
    extra = ",".join(f'{name}="{value}"' for name, value in target.items())
    head, brace, rest = line.partition("{")
    if brace and " " not in head:
        return f"{head}{{{extra},{rest}"
    name, _, rest = line.partition(" ")
    return f"{name}{{{extra}}} {rest}"


def add_timestamps(page: Iterable[str], target: Target, at: float) -> Iterator[str]:
    """One scrape of a page: its samples, and those added by Prometheus."""
    lines = [line.rstrip("\n") for line in page if line.strip() and not line.startswith("#")]
    for line in (*lines, "up 1", "scrape_duration_seconds 0.012", f"scrape_samples_scraped {len(lines)}"):
        yield f"{add_target_labels(line, target)} {at:.3f}\n"


def extrapolate_back(first: str, second: str, apart_seconds: float, seconds: float) -> Iterator[str]:
    """Extrapolate a page to `seconds` before the second of two readings, with constant counter rates."""
    before = dict(line.rsplit(" ", 1) for line in first.splitlines() if line and not line.startswith("#"))
    for line in second.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            if name.split("{")[0].endswith("_total"):
                rate = (float(value) - float(before.get(name, value))) / apart_seconds
                value = repr(max(0.0, float(value) + 1e6 - rate * seconds))
            yield f"{name} {value}"


def inline_rules(rules: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    """(expression, labels) of each rule by name, with recorded series replaced by their expressions."""
    found: dict[str, str] = {}

    def inline(expr: str) -> str:
        text = re.sub(r"\b(\w+:\w+:\w+)\[(\w+)\]", lambda m: f"({found.get(m[1], NOTHING)})[{m[2]}:1h]", expr)
        text = re.sub(r"\b(\w+:\w+:\w+){([^}]+)}", lambda m: _select(found[m[1]], m[2]), text)
        # A rule that reads itself has no earlier result.
        return re.sub(r"\b\w+:\w+:\w+\b", lambda m: f"({found.get(m[0], NOTHING)})", text)

    every: dict[str, tuple[str, dict[str, str]]] = {}
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if "record" in rule and rule["record"] not in every:
            found[rule["record"]] = "vector(1) unless vector(1)"  # its own former value: none
        expr = inline(rule["expr"])
        if "record" in rule:
            for label, value in rule.get("labels", {}).items():
                expr = f'label_replace({expr}, "{label}", "{value}", "", "")'
            if rule["record"] in every:  # several rules record it, each with labels of its own
                expr = f"{every[rule['record']][0]} or {expr}"
            found[rule["record"]] = expr
            every[rule["record"]] = expr, {}
        else:
            labels = {"alertname": rule["alert"], "alertstate": "firing", **rule.get("labels", {})}
            every[f"alert {rule['alert']}"] = expr, labels
    return every


def _select(expr: str, matchers: str) -> str:
    """The results of an expression that an instant selector with these matchers (= and != only) would select."""
    for matcher in matchers.split(","):
        label, op, value = re.fullmatch(r'(\w+)(!?=)"(.*)"', matcher.strip()).groups()  # type: ignore[union-attr]
        same = f'label_replace(vector(1), "{label}", "{value}", "", "")' if value else "vector(1)"
        expr = f"({expr}) {'and' if op == '=' else 'unless'} on ({label}) {same}"
    return f"({expr})"


def evaluate_rules(url: str, rules: str, begin: float, end: float, step_seconds: float = 60.0) -> Iterator[str]:
    """Samples that a Prometheus with the raw series would have recorded by these rules. Fails if it rejects a rule."""
    for name, (expr, labels) in inline_rules(yaml.safe_load(rules)).items():
        hourly = name.endswith("1h") and ":mean" in name
        step = 3600.0 if hourly else step_seconds
        first = end - 60 - int((end - 60 - begin) // step) * step if hourly else begin
        form = {"query": expr, "start": str(first), "end": str(end), "step": str(step), "nocache": "1"}
        answer = requests.post(f"{url}/api/v1/query_range", data=form, timeout=60)
        assert answer.status_code == 200, f"{name}: {answer.text}"
        for series in answer.json()["data"]["result"]:
            own = {k: v for k, v in series["metric"].items() if k != "__name__"} | labels
            text = ",".join(f"{k}={_quote(v)}" for k, v in own.items())
            metric = name if "record" in name or ":" in name else "ALERTS"
            for at, value in series["values"]:
                yield f"{metric}{{{text}}} {value if metric != 'ALERTS' else 1} {at:.3f}\n"


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def advisor_samples(source: Source, settings: Settings, times: Iterable[float], pages: int = 1) -> Iterator[str]:
    """Metrics of an advisor that evaluated at these times, each scraped `pages` times, a minute apart."""
    since: dict[str, float] = {}
    senders = (AlertmanagerStatus("http://alertmanager:9093", True, 12),)
    outcomes = {("idle_reclaim", "applied"): 3, ("idle_reclaim", "cause_gone"): 1, ("batch_size", "applied"): 2}
    target = {"job": "gpu-advisor", "instance": "advisor:9817"}
    evaluated = [(at, evaluate(source, settings, at)) for at in times]
    scrapes = [(at + 60 * page, evaluation) for at, evaluation in evaluated for page in range(pages)]
    for number, (at, evaluation) in enumerate(scrapes):
        ids = [advice.id(settings.cluster) for advice in evaluation.recommendations]
        since = {id_: since.get(id_, at) for id_ in ids}
        snooze = Snooze("kept for a class", at, at + 3600)
        issued = tuple(
            PublishedRecommendation(id_, since[id_], advice, snoozed=snooze if i == 0 else None)
            for i, (id_, advice) in enumerate(zip(ids, evaluation.recommendations, strict=True))
        )
        view = View(
            settings.cluster, SourceStatus("prometheus", "http://prometheus:9090", True, last_success=at),
            replace(evaluation, at=at),
            issued, 0.11 + 0.02 * sin(number), 100 + 4 * number, (("timeout", 1 + number // 40),),
            Outcomes(counts={key: count + number // 75 for key, count in outcomes.items()}),
            interval_seconds=settings.evaluation.interval_seconds,
        )  # fmt: skip
        yield from add_timestamps(MetricsExposition().render(view, senders).decode().splitlines(), target, at)
