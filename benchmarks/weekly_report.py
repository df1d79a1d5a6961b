"""The report of a fleet's week from a real Prometheus, with raw samples only (the worst case) or recorded series.

    python -m benchmarks.weekly_report --gpus 100 --interval 60
    python -m benchmarks.weekly_report --gpus 100 --interval 60 --recorded

Times the whole command, from its start to the written file, and the reading and each rendering separately. The baseline
are the same range queries sent bare, with their responses discarded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import requests
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries
from gpu_advisor.report.build import build_report
from gpu_advisor.report.history_reader import read_history
from gpu_advisor.report.html import render_html
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.period import report_period
from gpu_advisor.settings import Settings
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.state.view import SourceStatus, View

from benchmarks import common
from benchmarks.fleet_generator import import_openmetrics
from benchmarks.server_processes import free_port, run_server
from benchmarks.week_generator import DAY, PRICES, generate_samples, recorded

GOAL_SECONDS = 10.0


@dataclass
class QueryRecorder:
    """A source whose range queries are recorded."""

    source: PrometheusSource
    asked: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append({"query": to_promql(expression), "start": f"{start}", "end": f"{end}", "step": f"{step}"})
        return self.source.range(expression, start, end, step)


def measure(url: str, now: float, folder: Path, rounds: int) -> dict[str, Any]:
    """Return medians over the rounds, without the first, which warms up."""
    source = PrometheusSource(PrometheusClientConfig(url, timeout_seconds=120))
    settings = Settings.model_validate({"cost": {"gpu_price_per_hour": PRICES}})
    evaluation = evaluate(source, settings, now)
    view = View("benchmark", SourceStatus("prometheus", url, True, last_success=now), evaluation)
    found: dict[str, list[float]] = {name: [] for name in ("command", "reading", "bare", "document", "html", "md")}
    size = queries = gpus = 0
    for _ in range(rounds + 1):
        asked = QueryRecorder(source)
        begun = time.monotonic()
        past = read_history(asked, report_period(now, 7 * DAY), source.samples)
        at_reading = time.monotonic()
        document = build_report(past, view, settings)
        at_document = time.monotonic()
        text = render_html(document)
        at_page = time.monotonic()
        render_markdown(document)
        at_markdown = time.monotonic()
        marks = (begun, at_reading, at_document, at_page, at_markdown)
        for name, first, second in zip(("reading", "document", "html", "md"), marks[:-1], marks[1:], strict=True):
            found[name].append(second - first)
        found["bare"].append(_time_bare_queries(url, asked.asked))
        found["command"].append(_time_command(url, folder))
        size, queries, gpus = len(text.encode()), len(asked.asked), len(past.gpus)
    source.close()
    seconds = {f"{name}_seconds": round(median(values[1:]), 3) for name, values in found.items()}
    return {"gpus": gpus, "queries": queries, "html_bytes": size, **seconds}


def _time_bare_queries(url: str, asked: list[dict[str, str]]) -> float:
    with requests.Session() as session:
        begun = time.monotonic()
        for form in asked:
            answer = session.post(f"{url}/api/v1/query_range", data=form, timeout=300)
            answer.raise_for_status()
        return time.monotonic() - begun


def _time_command(url: str, folder: Path) -> float:
    begun = time.monotonic()
    command = [sys.executable, "-m", "gpu_advisor", "report", "--prometheus", url, "-o", str(folder / "report.html")]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", type=int, default=100)
    parser.add_argument("--interval", type=int, default=60, help="seconds between scrapes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recorded", action="store_true", help="recorded series; the interval is that of the rules")
    given = parser.parse_args()
    now = time.time() // 60 * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = recorded if given.recorded else generate_samples
        import_openmetrics(make(given.gpus, now, interval=given.interval), folder / "week.txt", folder / "data")
        port = free_port()
        (folder / "prometheus.yml").write_text("{}\n")
        command = [
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        ]  # fmt: skip
        with run_server("prometheus", command, port, folder / "prometheus.log"):
            reported = measure(f"http://127.0.0.1:{port}", now, folder, given.rounds)
    reported |= {"interval_seconds": given.interval, "recorded": given.recorded}
    print(common.table([["", "figure"], *([name, f"{value:,}"] for name, value in reported.items())]))
    goal = common.Goal(
        f"a week's report of {reported['gpus']} GPUs within {GOAL_SECONDS:g} s",
        reported["command_seconds"] <= GOAL_SECONDS,
        f"{reported['command_seconds']:.1f} s; the queries alone {reported['bare_seconds']:.1f} s",
    )
    print(goal)
    name = "report_week_recorded" if given.recorded else "report_week"
    print(f"written: {common.write(name, reported)}")
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
