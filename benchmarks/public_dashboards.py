"""Which queries of a public dashboard, or alerts of a mixin, have data from gpu-exporter.

    python -m benchmarks.public_dashboards node-exporter-full.json alerts.libsonnet      beside node_exporter
    python -m benchmarks.public_dashboards --compat nvidia-smi dashboard.json            alone, over a simulated NVML

The files are not part of this project; see docs/other-exporters.md for where to get them. A real Prometheus scrapes
gpu-exporter and, with the host's families, node_exporter with its default collectors. Variables of a dashboard are
resolved as Grafana does; a query has data if it has for one of their values. With `--compat`, a kubelet has given the
GPUs to pods, the exporter is scraped as a pod, and kube-state-metrics has the same pods. Of an alert, each metric that
it names must have a series: whether it fires is not the point. Prints each query that has data from node_exporter and
not from gpu-exporter; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.exporter import node_exporter
from benchmarks.server_processes import free_port, run_server
from tests.servers import Prometheus, prometheus
from tests.simulated_nvml.build import CONTROL_VARIABLE, build
from tests.simulated_nvml.control import Control, SimulatedGpu, SimulatedMigInstance
from tests.unit.owners.fake_kubelet import answer, kubelet, listing

OURS, NODE = "ours", "node"
#: Enough for rates over RATE_INTERVAL; $__rate_interval is four scrape intervals, at least.
SCRAPE_SECONDS = 40.0
RATE_INTERVAL = "20s"

UUIDS = ("GPU-d0000000-0000-4000-8000-000000000000", "GPU-d0000000-0000-4000-8000-000000000001")
PODS = {"team-a/trainer-0": {"main": (UUIDS[0],)}, "team-b/server-0": {"main": (UUIDS[1],)}}
NODE_NAME = "gpu-node-1"
EXPORTER_POD = {"node": NODE_NAME, "namespace": "monitoring", "pod": "gpu-exporter-x", "container": "gpu-exporter"}
"""Labels that Prometheus' discovery of pods gives its targets; the exporter's own become exported_pod and so on."""

KUBE_STATE_METRICS = "kube-state-metrics"
KUBE_STATE = "".join(
    [
        *(f'kube_node_status_{what}{{node="{NODE_NAME}",resource="nvidia_com_gpu",unit="integer"}} 2\n'
          for what in ("capacity", "allocatable")),
        *(line.format(pod=f'namespace="{pod.partition("/")[0]}",pod="{pod.partition("/")[2]}"')
          for pod in PODS
          for line in (
              'kube_pod_info{{{pod},node="' + NODE_NAME + '"}} 1\n',
              *('kube_pod_container_resource_' + kind + '{{{pod},container="main",node="' + NODE_NAME
                + '",resource="nvidia_com_gpu",unit="integer"}} 1\n' for kind in ("limits", "requests")),
          )),
        *(f'kube_resourcequota{{namespace="{namespace}",resourcequota="gpus",resource="requests.nvidia.com/gpu",'
          f'type="{kind}"}} 1\n' for namespace in ("team-a", "team-b") for kind in ("hard", "used")),
    ]
)  # fmt: skip
"""Names and labels: kube-state-metrics, docs/metrics/ (github.com/kubernetes/kube-state-metrics)."""

METRIC_NAME = re.compile(r"\b(node_[a-zA-Z0-9_]+)\b(?!\s*\()")
#: `alert: 'Name'` and the block after `expr: |||`.
ALERT = re.compile(r"alert: '(\w+)'.*?expr: \|\|\|(.*?)\|\|\|", re.DOTALL)
LABEL_VALUES = re.compile(r"label_values\((?:(.+),\s*)?(\w+)\)", re.DOTALL)
QUERY_RESULT = re.compile(r"query_result\((.+)\)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A query of a dashboard, with each choice of its variables, or the series that an alert needs, all of them."""

    title: str
    expressions: tuple[str, ...]
    any_of: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    missing = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = _start(Path(folder), options.compat, stack)
        jobs = (OURS,) if options.compat else (OURS, NODE)
        for path in options.files:
            missing += _report(server, path, jobs)
    return 1 if missing else 0


def _start(folder: Path, compat: str, stack: ExitStack) -> Prometheus:
    ours = free_port()
    command = [sys.executable, "-m", "gpu_exporter", f"--web.listen-address=127.0.0.1:{ours}"]
    environment: dict[str, str] = {}
    labels: dict[str, dict[str, str]] = {}
    textfiles = folder / "textfiles"
    textfiles.mkdir()
    if compat:
        command += [f"--compat.{compat}", "--no-collector.host"]
        environment = _simulated_nvml(folder)
        command.append(f"--collector.owners.pod-resources-socket={folder}/kubelet.sock")
        stack.enter_context(kubelet(folder / "kubelet.sock", answer(listing(PODS))))
    else:
        command.append(f"--collector.textfile.directory={textfiles}")
    stack.enter_context(run_server(OURS, command, ours, folder / "ours.log", environment))
    scrape = {OURS: [f"127.0.0.1:{ours}"]}
    if compat:
        labels = {OURS: EXPORTER_POD}
        scrape[KUBE_STATE_METRICS] = [stack.enter_context(_served(KUBE_STATE))]
    else:
        node = free_port()
        command = [node_exporter(), f"--web.listen-address=127.0.0.1:{node}"]
        command.append(f"--collector.textfile.directory={textfiles}")
        stack.enter_context(run_server(NODE, command, node, folder / "node.log"))
        scrape[NODE] = [f"127.0.0.1:{node}"]
    server = stack.enter_context(prometheus(folder, scrape=scrape, labels=labels))
    time.sleep(SCRAPE_SECONDS)
    return server


@contextmanager
def _served(page: str) -> Iterator[str]:
    """Serve a page of metrics; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _simulated_nvml(folder: Path) -> dict[str, str]:
    """The environment of an exporter that sees a busy GPU with a fan, processes and an Xid, and one in MIG mode."""
    library = build(folder)
    pids = (os.getpid(),)
    instances = tuple(SimulatedMigInstance(pids=pids) for _ in range(2))
    gpus = [
        SimulatedGpu(uuid=UUIDS[0], level=80, fan=40, pids=pids),
        SimulatedGpu(uuid=UUIDS[1], level=50, mig=True, instances=instances),
    ]
    control = Control(folder / "control", gpus=gpus, xids=[(0, 31)])
    control.write()
    return {"LD_LIBRARY_PATH": str(library.parent), CONTROL_VARIABLE: str(control.path)}


def _report(server: Prometheus, path: Path, jobs: Sequence[str]) -> int:
    """Print the counts for one file. Returns how many questions have data from the other job only."""
    text = path.read_text(encoding="utf-8")
    answered = {job: {i for i, q in enumerate(_questions(server, text, job)) if _has_data(server, q)} for job in jobs}
    questions = list(_questions(server, text, jobs[0]))
    print(f"{path.name}: {len(questions)} in all")
    for job in jobs:
        print(f"  {job}: {len(answered[job])}")
    if len(jobs) == 1:
        rest = [question for i, question in enumerate(questions) if i not in answered[OURS]]
    else:
        rest = [questions[i] for i in sorted(answered[NODE] - answered[OURS])]
        print(f"  {OURS}, of those of {NODE}: {len(answered[NODE] & answered[OURS])} of {len(answered[NODE])}")
    for question in rest:
        print(
            f"  no data: {question.title}: {' '.join(question.expressions[0].split()) if question.expressions else ''}"
        )
    return len(rest)


def _questions(server: Prometheus, text: str, job: str) -> Iterator[Question]:
    if not text.lstrip().startswith("{") or "schemaVersion" not in text:
        for name, body in ALERT.findall(text):
            names = sorted(set(METRIC_NAME.findall(re.sub(r"%\(\w+\)\w", "", body))))
            yield Question(name, tuple(f'{each}{{job="{job}"}}' for each in names))
        return
    dashboard = json.loads(text)
    choices = _variables(server, dashboard, job)
    for title, expression in _targets(dashboard, ""):
        yield Question(title, tuple(dict.fromkeys(_substitute(expression, values) for values in choices)), any_of=True)


def _targets(node: Any, title: str) -> Iterator[tuple[str, str]]:
    """(title of the panel, expression) of each query."""
    if isinstance(node, list):
        for part in node:
            yield from _targets(part, title)
    elif isinstance(node, dict):
        title = str(node.get("title", title))
        for target in node.get("targets") or ():
            if isinstance(target, dict) and target.get("expr"):
                yield title, str(target["expr"])
        for key, part in node.items():
            if key != "targets":
                yield from _targets(part, title)


def _variables(server: Prometheus, dashboard: Mapping[str, Any], job: str) -> list[dict[str, str]]:
    """The choices of the variables, from the series of this job: the last variable takes each of its values."""
    fixed = {"__rate_interval": RATE_INTERVAL, "__interval": RATE_INTERVAL, "__range": RATE_INTERVAL, "job": job}
    choices = [fixed]
    for variable in dashboard.get("templating", {}).get("list", ()):
        query = variable.get("query")
        query = query.get("query") if isinstance(query, dict) else query
        if variable.get("type") != "query" or variable["name"] in fixed or not query:
            continue
        first = choices[0]
        found = _values(server, _substitute(query, first), str(variable.get("regex") or ""), job)
        choices = [{**first, variable["name"]: value} for value in found or [""]]
    return choices


def _values(server: Prometheus, query: str, regex: str, job: str) -> list[str]:
    if match := LABEL_VALUES.fullmatch(query.strip()):
        selector, label = match[1] or '{__name__=~".+"}', match[2]
        series = server.query(selector)
        return sorted(
            {each["metric"].get(label, "") for each in series if each["metric"].get("job") in (job, KUBE_STATE_METRICS)}
            - {""}
        )
    if match := QUERY_RESULT.fullmatch(query.strip()):
        lines = (
            ",".join(f'{name}="{value}"' for name, value in each["metric"].items()) for each in server.query(match[1])
        )
        pattern = re.compile(regex.strip("/g").strip("/").replace("(?<", "(?P<"))
        return [found["value"] for line in lines for found in pattern.finditer(line) if found["value"]]
    return []


def _substitute(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda match: values.get(match[1], match[0]), text)


def _has_data(server: Prometheus, question: Question) -> bool:
    found = (bool(server.query(expression)) for expression in question.expressions)
    return bool(question.expressions) and (any(found) if question.any_of else all(found))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.public_dashboards", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("files", nargs="+", type=Path, help="a dashboard (JSON) or the alerts of a mixin (libsonnet)")
    parser.add_argument(
        "--compat", default="", choices=("dcgm", "nvidia-smi"), help="names to serve, for a dashboard of GPUs"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
