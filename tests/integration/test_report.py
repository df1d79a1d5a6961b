"""A report against a real Prometheus: each number is what its query gives there, what the dashboard adds up, and what
the embedded history gives for the same samples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.commands.one_shot import OneShotAdvisor
from gpu_advisor.report.generate import generate_report
from gpu_advisor.report.history_reader import read_history
from gpu_advisor.report.period import report_period
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import at
from gpu_advisor.settings import PrometheusSourceSettings, Settings, SourceSettings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.state.view import SourceStatus, View

from benchmarks.week_generator import DAY, HOUR, PRICES, generate_samples
from tests.embedded import embedded_source
from tests.integration.test_source_equivalence import tolerance
from tests.preview.demo_history import evaluate_rules
from tests.servers import Prometheus, VictoriaMetrics, create_blocks, free_port, prometheus
from tests.unit.report.test_report_queries import plain

pytestmark = pytest.mark.servers

END = 1_795_003_200.0
RULES = Path(__file__).resolve().parents[2] / "prometheus/rules/recording.yml"
SETTINGS = Settings.model_validate({"cost": {"gpu_price_per_hour": PRICES}})
GPUS, LENGTH, INTERVAL = 24, 26 * HOUR, 60


@dataclass(frozen=True)
class RuledAndRaw:
    """The same samples in two Prometheus: one with what rules made of them in the last 12 hours, one without."""

    with_rules: Prometheus
    without: Prometheus


def write_openmetrics(lines: Iterator[str], path: Path, data: Path) -> None:
    with path.open("w") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    create_blocks(path, data)


@pytest.fixture(scope="module")
def prometheus_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuledAndRaw]:
    folder = tmp_path_factory.mktemp("report")
    for name in ("raw", "ruled"):
        write_openmetrics(generate_samples(GPUS, END, LENGTH, INTERVAL), folder / "week.txt", folder / name)
    with prometheus(folder, blocks=folder / "raw") as raw:
        prices = (
            f'gpu_advisor_gpu_price_per_hour{{name="{name}"}} {price} {at}\n'
            for at in range(int(END) - LENGTH, int(END) + 1, 60)
            for name, price in PRICES.items()
        )
        made = evaluate_rules(raw.url, RULES.read_text(), END - 12 * HOUR, END)
        write_openmetrics((line for part in (made, prices) for line in part), folder / "made.txt", folder / "ruled")
        with prometheus(folder, blocks=folder / "ruled") as ruled:
            yield RuledAndRaw(ruled, raw)


def served_report(server: Prometheus, since: int, now: float = END) -> Report:
    source = PrometheusSource(PrometheusClientConfig(server.url))
    view = View("test", SourceStatus("prometheus", server.url, True, last_success=now))
    try:
        return generate_report(source.range, view, SETTINGS, since, now, samples=source.samples)
    finally:
        source.close()


@pytest.mark.parametrize(("since", "recorded"), [(12 * HOUR, True), (DAY, True), (DAY, False), (3 * DAY, True)])
def test_each_query_pasted_into_prometheus_gives_the_number_that_is_reported(
    prometheus_pair: RuledAndRaw, since: int, recorded: bool
) -> None:
    server = prometheus_pair.with_rules if recorded else prometheus_pair.without
    if isinstance(server, VictoriaMetrics):
        pytest.skip("the queries of a report are PromQL, and its rates are others")
    report = served_report(server, since)
    assert report["recorded"] is recorded
    assert len(report["queries"]) == 7
    for query in report["queries"]:
        [found] = server.query(query["promql"])
        assert float(found["value"][1]) == pytest.approx(at(report, query["path"]), rel=1e-9, abs=1e-9), query["about"]


def test_recorded_series_agree_with_raw_ones(prometheus_pair: RuledAndRaw) -> None:
    """Rules ran for half of the time only: the other half is read from the exporters' own series."""
    half, whole = served_report(prometheus_pair.with_rules, DAY), served_report(prometheus_pair.without, DAY)
    assert half["recorded"]
    assert not whole["recorded"]
    for mixed, raw in zip(half["groups"], whole["groups"], strict=True):
        for name in ("present", "observed", "busy", "unused", "memory_allocated", "idle_allocated"):
            assert mixed["gpu_hours"][name] == pytest.approx(raw["gpu_hours"][name], rel=0.01, abs=0.5), name
        assert mixed["cpu_ratio"] == pytest.approx(raw["cpu_ratio"], abs=0.01)


def test_the_day_before_is_what_was_reported_then(prometheus_pair: RuledAndRaw) -> None:
    """Half a day and the half before, which has no recorded series, are as the report of that time had them."""
    for server in (prometheus_pair.with_rules, prometheus_pair.without):
        found = served_report(server, 12 * HOUR)["comparison"]
        then = served_report(server, 12 * HOUR, END - 12 * HOUR)
        assert found is not None
        assert then["comparison"] is not None
        fleet_now, fleet_then = (dict[str, Any](each["fleet"]) for each in (found, then["comparison"]))
        for name, each in fleet_now.items():
            assert each["before"] == pytest.approx(fleet_then[name]["now"]), name
        assert found["period"]["queries"] <= 8
        assert then["comparison"]["data_ratio"] == pytest.approx(2 / 12, abs=0.02)


def test_waste_is_what_the_dashboard_shows(prometheus_pair: RuledAndRaw) -> None:
    """Its own expressions, over the same 12 hours: every fifth minute stands for a twelfth of an hour."""
    report = served_report(prometheus_pair.with_rules, 12 * HOUR)
    unused = "(model:gpus_measured:count - model:gpus_busy:mean5m)"
    price = "max by (name) (gpu_advisor_gpu_price_per_hour)"
    # A second less than 12 hours, so that both have the same 144 points: such a window is closed on the left in 2.x.
    over = f"[{12 * HOUR - 1}s:5m] @ {END}"
    expected = {
        "gpu_hours/unused": f"sum(sum_over_time({unused}{over})) / 12",
        "gpu_hours/idle_allocated": f"sum(sum_over_time(model:gpus_idle_holding:sum30m{over})) / 12",
        "cost/unused": f"sum(sum_over_time(({unused} * on (name) {price}){over})) / 12",
    }
    for path, promql in expected.items():
        [found] = prometheus_pair.with_rules.query(promql)
        assert float(found["value"][1]) == pytest.approx(at(report, f"/groups/0/{path}"), rel=0.01), path


def test_the_embedded_history_gives_the_same(tmp_path: Path) -> None:
    lines = list(generate_samples(8, END, 5 * HOUR, INTERVAL))
    write_openmetrics(iter(lines), tmp_path / "week.txt", tmp_path / "data")
    kept = History(tmp_path / "history.db")
    import_openmetrics(kept, plain(lines), "node-000:9816", "gpu-exporter")
    with prometheus(tmp_path, blocks=tmp_path / "data") as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        asked = report_period(END, 4 * HOUR)
        embedded = embedded_source(kept, server)
        one, other = (read_history(each.range, asked, each.samples) for each in (embedded, source))
        source.close()
    kept.close()
    assert one.values.keys() == other.values.keys()
    for part, things in one.values.items():
        for uuid, steps in things.items():
            assert steps == pytest.approx(other.values[part][uuid], rel=tolerance(server)), part
    assert one.cpu["node-000"] == pytest.approx(other.cpu["node-000"], rel=tolerance(server))
    assert one.observed_spans == other.observed_spans


def test_a_one_shot_report_compares_too(prometheus_pair: RuledAndRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `gpu-advisor report --prometheus` does, at the end of the samples."""
    monkeypatch.setattr("gpu_advisor.commands.one_shot.time.time", lambda: END)
    server = prometheus_pair.with_rules
    settings = SETTINGS.model_copy(
        update={"source": SourceSettings(prometheus=PrometheusSourceSettings(url=server.url))}
    )
    advisor = OneShotAdvisor(settings)
    try:
        advisor.refresh()
        found = advisor.report(12 * HOUR)
    finally:
        advisor.close()
    served = served_report(server, 12 * HOUR)
    assert found["comparison"] == served["comparison"]
    assert found["projection"] == served["projection"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpu_advisor", "report", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_writes_by_the_name_of_the_file_and_says_what_is_missing(
    prometheus_pair: RuledAndRaw, tmp_path: Path
) -> None:
    """The samples end in the past of this machine's clock, or in its future: nothing is seen within the last hour."""
    nothing = command("--prometheus", prometheus_pair.without.url, "--since", "1h", "-o", str(tmp_path / "r.json"))
    document: Any = json.loads((tmp_path / "r.json").read_text())
    if document["groups"] == []:
        assert nothing.returncode == 1
        assert "no GPU was observed between" in nothing.stderr
    html = command("--prometheus", prometheus_pair.without.url, "--since", "400d", "-o", str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>"), html.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--since", "7"), 2, "not a duration"),
        (("--since", "2m"), 2, "5 minutes"),
        (("--since", "500d"), 2, "400 days"),
        (("--prometheus", "http://127.0.0.1:1", "--since", "1h"), 1, "127.0.0.1:1"),
        (("--advisor", f"http://127.0.0.1:{free_port()}"), 1, "no advisor at"),
    ],
)
def test_what_cannot_be_is_reported(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = command(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
