"""The cost of an evaluation over a real Prometheus with a large fleet.

    python -m benchmarks.advisor --gpus 100 1000 10000

For each size a Prometheus gets an hour of 15 s samples and a week of recorded series, and a service in a separate
process evaluates at a fixed time. The same queries, sent bare with two in flight and their responses discarded,
alternate with the evaluations, so that both have the same machine. A second baseline is the approach of per-workload
recommenders: one query per GPU, for a sample of the GPUs, extrapolated to all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import requests

from benchmarks import common
from benchmarks.fleet_generator import HOUR, generate_churn, generate_hour, generate_week, import_openmetrics
from benchmarks.server_processes import ServerProcess, free_port, run_server

END = 1_795_003_200.0
SAMPLED_GPUS = 40
MAX_QUERIES, MAX_WINDOWED_QUERIES, MAX_RATIO, MAX_MIB = 25, 12, 1.3, 250.0
GOAL_SECONDS = 3.0

#: A window in PromQL; a bracket alone may be in a regular expression.
WINDOW = re.compile(r"\[\d+[a-z]")

#: Path and form of each query of one evaluation.
SentQueries = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class FleetResult:
    """The figures of one fleet size. CPU is that of one evaluation, which other load does not change."""

    gpus: int
    history_minutes: int
    evaluation_seconds: float
    bare_seconds: float
    ratio: float
    queries: int
    windowed_queries: int
    window_selectors: int
    advisor_mib: float
    advisor_cpu_seconds: float
    prometheus_cpu_seconds: float
    prometheus_peak_mib: float
    one_query_a_gpu_seconds: float
    checks: int
    advice: int


def measure_size(
    gpus: int, folder: Path, rounds: int = 5, seconds: int = HOUR, days: int = 7, *, churn: bool = False
) -> FleetResult:
    """Measure one size, with `seconds` of samples and `days` of recorded series.

    With `churn`, the fleet is dcgm-exporter's, with pod labels that change every three minutes, and nothing recorded.
    Uses the history in the folder if there is one.
    """
    data = folder / "data"
    if churn and not data.exists():
        import_openmetrics(generate_churn(gpus, END, seconds), folder / "churn.txt", data)
    elif not data.exists():
        import_openmetrics(generate_week(gpus, END, days), folder / "week.txt", data)
        import_openmetrics(generate_hour(gpus, END, seconds), folder / "hour.txt", data)
    port = free_port()
    (folder / "prometheus.yml").write_text("{}\n")
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with run_server("prometheus", command, port, folder / "prometheus.log") as server:
        return _alternate_rounds(server, f"http://127.0.0.1:{port}", gpus, rounds, seconds // 60)


def _alternate_rounds(server: ServerProcess, url: str, gpus: int, rounds: int, minutes: int) -> FleetResult:
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.advisor", "--child", url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    reported: list[dict[str, Any]] = []
    bare: list[float] = []
    cpu: list[float] = []
    try:
        for number in range(rounds + 1):  # the first warms both up
            before = server.cpu_seconds()
            reported.append(_evaluate(child))
            cpu.append(server.cpu_seconds() - before)
            bare.append(time_bare_queries(url, reported[-1]["asked"]))
            if not number:
                reported, bare, cpu = reported[-1:], [], []
        reported = reported[1:]
    finally:
        if child.stdin:
            child.stdin.close()
        child.wait(30)
    last = reported[-1]
    evaluation = median(each["seconds"] for each in reported)
    return FleetResult(
        gpus=gpus,
        history_minutes=minutes,
        evaluation_seconds=round(evaluation, 4),
        bare_seconds=round(median(bare), 4),
        # Neighbours of one round, so that what else the machine does is in both.
        ratio=round(median(each["seconds"] / raw for each, raw in zip(reported, bare, strict=True)), 3),
        queries=len(last["asked"]),
        windowed_queries=last["windowed"],
        window_selectors=last["selectors"],
        advisor_mib=round(last["peak_mib"], 1),
        advisor_cpu_seconds=round(median(each["cpu"] for each in reported), 3),
        prometheus_cpu_seconds=round(median(cpu), 3),
        prometheus_peak_mib=round(_peak_mib(server.process.pid), 1),
        one_query_a_gpu_seconds=round(_time_query_per_gpu(url, last["single"], gpus), 2),
        checks=last["checks"],
        advice=last["advice"],
    )


def _evaluate(child: subprocess.Popen[str]) -> dict[str, Any]:
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the advisor's process has no pipes")
    child.stdin.write("evaluate\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"the advisor's process ended with {child.wait(10)}")
    found: dict[str, Any] = json.loads(line)
    return found


def time_bare_queries(url: str, asked: Sequence[tuple[str, Mapping[str, str]]]) -> float:
    """Return the seconds for these queries, two in flight, with all responses read and discarded."""
    sessions = [requests.Session(), requests.Session()]
    free = list(sessions)

    def send(one: tuple[str, Mapping[str, str]]) -> None:
        session = free.pop()
        answer = session.post(url + one[0], data=one[1], headers={"Accept-Encoding": "identity"}, stream=True)
        for _ in answer.raw.stream(1 << 16, decode_content=False):
            pass
        if answer.status_code != 200:
            raise RuntimeError(f"{one[0]} answered {answer.status_code}")
        free.append(session)

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(send, asked))
    return time.perf_counter() - begun


def _time_query_per_gpu(url: str, single: SentQueries, gpus: int) -> float:
    """Return the seconds for one query per GPU, two in flight, extrapolated from a sample."""
    return time_bare_queries(url, single) / len(single) * gpus


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def child(url: str) -> None:
    """Run a service that evaluates once per line of stdin, and prints the cost."""
    from gpu_advisor.notify.alertmanager import AlertDispatcher
    from gpu_advisor.runtime.service import AdvisorService
    from gpu_advisor.settings import PoolSettings, Settings
    from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
    from gpu_advisor.sources.prometheus.http_client import HttpResponse
    from gpu_advisor.sources.prometheus.source import PrometheusSource
    from gpu_advisor.state.ledger import Ledger
    from gpu_advisor.web import server as web

    class Recording(PrometheusSource):
        """Records the queries that it sends."""

        def __init__(self, config: PrometheusClientConfig) -> None:
            super().__init__(config)
            self.asked: SentQueries = []

        def _request_with_retries(self, method: str, path: str, form: Mapping[str, str] | None) -> HttpResponse:
            if form:  # not the detection of the engine, once per connection
                self.asked.append((path, dict(form)))
            return super()._request_with_retries(method, path, form)

    _ = web  # what a running advisor has in memory, too
    settings = Settings(pools=[PoolSettings(name="training", kind="training", match={"name": ".*H100.*"})])
    source = Recording(PrometheusClientConfig(url, timeout_seconds=120))
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        clock = [END]
        service = AdvisorService(settings, source, ledger, AlertDispatcher((), 15), clock=lambda: clock[0])
        for _line in sys.stdin:
            source.asked = []
            begun, cpu = time.perf_counter(), time.process_time()
            service.evaluate_safely()
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
            evaluation = service.view.evaluation
            if evaluation is None or service.view.stale:
                raise SystemExit(f"no evaluation: {service.view.source.message}")
            single = [
                ("/api/v1/query", {"query": evidence.promql or "", "time": str(END)})
                for check in evaluation.checks
                if check.scope.kind == "gpu" and check.item == "gpu_utilization"
                for evidence in check.evidence[:1]
            ][:SAMPLED_GPUS]
            windows = [len(WINDOW.findall(query["query"])) for _, query in source.asked]
            reported = {
                "seconds": took,
                "cpu": cpu,
                "asked": source.asked,
                "windowed": sum(1 for count in windows if count),
                "selectors": sum(windows),
                "single": single,
                "peak_mib": _peak_mib(os.getpid()),  # ru_maxrss is that of the parent, where the parent was larger
                "checks": len(evaluation.checks),
                "advice": len(evaluation.recommendations),
            }
            print(json.dumps(reported), flush=True)
        ledger.close()
    source.close()


def goals(sizes: Sequence[FleetResult]) -> list[common.Goal]:
    """Return the goals at the largest size and between sizes."""
    largest = sizes[-1]
    at = f"at {largest.gpus:,} GPUs"
    found = [
        common.Goal(f"at most {MAX_QUERIES} queries {at}", largest.queries <= MAX_QUERIES, str(largest.queries)),
        common.Goal(
            f"at most {MAX_WINDOWED_QUERIES} of them over windows", largest.windowed_queries <= MAX_WINDOWED_QUERIES,
            f"{largest.windowed_queries}, which read {largest.window_selectors} windows",
        ),
        common.Goal(
            "as many whatever the fleet", len({(s.queries, s.window_selectors) for s in sizes}) == 1,
            ", ".join(str(size.queries) for size in sizes),
        ),
        common.Goal(
            f"at most {MAX_RATIO} times the bare queries {at}", largest.ratio <= MAX_RATIO, str(largest.ratio)
        ),
        common.Goal(f"at most {MAX_MIB:.0f} MiB {at}", largest.advisor_mib <= MAX_MIB, f"{largest.advisor_mib} MiB"),
        common.Goal(
            f"within {GOAL_SECONDS:.0f} s {at}", largest.evaluation_seconds <= GOAL_SECONDS,
            f"{largest.evaluation_seconds:.2f} s", stretch=True,
        ),
    ]  # fmt: skip
    for small, large in pairwise(sizes):
        growth, fleet = large.evaluation_seconds / small.evaluation_seconds, large.gpus / small.gpus
        text = f"from {small.gpus:,} to {large.gpus:,} GPUs, time grows no faster than the fleet"
        found.append(common.Goal(text, growth <= fleet * 1.1, f"{growth:.1f} of {fleet:.0f} times"))
    return found


def table(sizes: Sequence[FleetResult]) -> str:
    """Format the figures, one column per size."""
    names = {name: name.replace("_", " ") for name in asdict(sizes[0])}
    columns = [asdict(size) for size in sizes]
    return common.table([[label, *(f"{column[name]:,}" for column in columns)] for name, label in names.items()])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=int, default=60, help="how much there is of 15 s samples")
    parser.add_argument("--folder", type=Path, help="where histories are made, kept, and used again")
    parser.add_argument("--churn", action="store_true", help="pod labels that change every three minutes")
    parser.add_argument("--child", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child)
        return 0
    sizes = []
    for gpus in sorted(options.gpus):
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder / str(gpus) if options.folder else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            found = measure_size(gpus, folder, options.rounds, options.minutes * 60, churn=options.churn)
            sizes.append(found)
        print(table(sizes), flush=True)
    verdicts = goals(sizes)
    print("\n".join(map(str, verdicts)))
    version = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=True)
    results = {
        "prometheus": (version.stdout or version.stderr).splitlines()[0],
        "sizes": [asdict(size) for size in sizes],
        "goals": [str(verdict) for verdict in verdicts],
    }
    print(common.write("advisor_churn" if options.churn else "advisor", results))
    return 1 if common.missed_goals(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
