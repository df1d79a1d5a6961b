"""Figures in the pages: measured ones are those of benchmarks/results, defaults those of the settings."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.settings import Settings
from gpu_advisor.settings.source import EmbeddedSourceSettings, PrometheusSourceSettings

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20

Result = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A number in a page: the only group of `pattern`, in which a space also matches a line break."""

    page: str
    pattern: str
    result: str
    value: Callable[[Result], float]

    def __str__(self) -> str:
        return f"{self.page}: {self.pattern}"


def field(*path: str) -> Callable[[Result], float]:
    def read(result: Any) -> float:
        for key in path:
            result = result[key]
        return float(result)

    return read


def size(name: str) -> Callable[[Result], float]:
    return lambda result: float(result["sizes"][-1][name])


def idle_percent(exporter: str) -> Callable[[Result], float]:
    return lambda result: 100 * float(result["figures"][exporter]["idle_cpu_ratio"])


def memory_mib(exporter: str) -> Callable[[Result], float]:
    return lambda result: float(result["figures"][exporter]["rss_bytes"]) / MIB


def verdicts(name: str) -> Callable[[Result], float]:
    """How many values of the SLO back-test are judged so."""
    return lambda result: float(sum(list(found.values()).count(name) for found in result["verdicts"].values()))


FIGURES = (
    Figure("docs/scaling.md", r"(\d+) of the 60 are within", "slo_backtest", verdicts("within")),
    Figure("docs/scaling.md", r"(\d+) are as near as whole GPUs allow", "slo_backtest", verdicts("whole GPUs")),
    Figure("docs/scaling.md", r"(\d+) are below and \d+ above", "slo_backtest", verdicts("below")),
    Figure("docs/scaling.md", r"\d+ are below and (\d+) above", "slo_backtest", verdicts("above")),
    Figure("docs/scale.md", r"an evaluation takes ([\d.]+) s", "advisor", size("evaluation_seconds")),
    Figure("docs/scale.md", r"an evaluation takes [\d.]+ s and (\d+) MiB", "advisor", size("advisor_mib")),
    Figure("docs/scale.md", r"the same queries alone ([\d.]+) s", "advisor", size("bare_seconds")),
    Figure("docs/scale.md", r"The ratio is ([\d.]+) \(", "advisor", size("ratio")),
    Figure("docs/scale.md", r"Prometheus uses ([\d.]+) s of CPU", "advisor", size("prometheus_cpu_seconds")),
    Figure("docs/scale.md", r"of CPU, the advisor ([\d.]+) s", "advisor", size("advisor_cpu_seconds")),
    Figure("docs/scale.md", r"1,000 GPUs take ([\d.]+) times", "advisor_churn", size("ratio")),
    Figure("docs/scale.md", r"times the queries alone and (\d+) MiB", "advisor_churn", size("advisor_mib")),
    Figure("docs/report.md", r"recording rules, takes ([\d.]+) s", "report_week", field("command_seconds")),
    Figure("docs/report.md", r"of which the queries alone take ([\d.]+) s", "report_week", field("bare_seconds")),
    Figure("docs/report.md", r"every minute it takes ([\d.]+) s", "report_week_recorded", field("command_seconds")),
    Figure("docs/report.md", r"of which ([\d.]+) s are the queries", "report_week_recorded", field("bare_seconds")),
    Figure("README.md", r"Idle: ([\d.]+) % of a core", "exporter", idle_percent("gpu-exporter")),
    Figure("README.md", r"of a core and (\d+) MiB", "exporter", memory_mib("gpu-exporter")),
    Figure("README.md", r"nvitop-exporter's ([\d.]+) %", "exporter", idle_percent("nvitop-exporter")),
    Figure("README.md", r"nvitop-exporter's [\d.]+ % and (\d+) MiB", "exporter", memory_mib("nvitop-exporter")),
    Figure("docs/allocation.md", r"(\d+) clients send", "allocation", field("load", "work", "clients")),
    Figure("docs/allocation.md", r"the service is killed (\d+) times", "allocation", field("under_kills", "kills")),
)  # fmt: skip


PROMETHEUS, DEFAULT = PrometheusSourceSettings(url="http://prometheus:9090"), Settings()

#: Defaults of settings, as the pages state them: the only group of the pattern, and the value in its unit.
DEFAULTS = (
    ("docs/scale.md", r"`source.prometheus.timeout_seconds` \((\d+) s by default", PROMETHEUS.timeout_seconds),
    ("docs/scale.md", r"`evaluation.interval_seconds` is (\d+);", DEFAULT.evaluation.interval_seconds),
    ("docs/serving.md", r"`evaluation.window_seconds`, (\d+) minutes by", DEFAULT.evaluation.window_seconds / 60),
    ("docs/report.md", r"The embedded history has (\d+) days", EmbeddedSourceSettings().retention_days),
    ("docs/report.md", r"less than (\d+) % busy over 30 minutes", DEFAULT.evaluation.idle_utilization),
    ("README.md", r"it has data for at least (\d+) % of its length", 100 * DEFAULT.evaluation.min_coverage_ratio),
    ("README.md", r"A GPU that ran nothing for (\d+) minutes", DEFAULT.evaluation.idle_window_seconds / 60),
    ("README.md", r"GPU utilization meets its target at (\d+) % and above", DEFAULT.resources.gpu.target_utilization),
    ("README.md", r"GPU memory should be at (\d+) ±", DEFAULT.resources.memory.target_usage),
    ("README.md", r"CPU at (\d+) ±", DEFAULT.resources.cpu.target_usage),
    ("README.md", r"between (\d+) and \d+ %\.", DEFAULT.resources.gpu.scale_down_threshold),
    ("README.md", r"between \d+ and (\d+) %\.", DEFAULT.resources.gpu.scale_up_threshold),
    ("docs/faq.md", r"counts as idle only after (\d+) minutes", DEFAULT.evaluation.idle_window_seconds / 60),
    ("docs/faq.md", r"A serving pool grows above (\d+) %", DEFAULT.resources.gpu.scale_up_threshold),
)  # fmt: skip


@pytest.mark.parametrize(("page", "pattern", "value"), DEFAULTS, ids=[f"{page}: {text}" for page, text, _ in DEFAULTS])
def test_a_default_is_that_of_the_settings(page: str, pattern: str, value: float) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    [found] = set(re.findall(pattern.replace(" ", r"\s+"), text))
    assert float(found) == pytest.approx(value)


def read_result(name: str) -> Result:
    found: Result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
    return found


def shown(value: float, text: str) -> str:
    """The value with as many digits after the point as the text."""
    return f"{value:.{len(text.partition('.')[2])}f}"


@pytest.mark.parametrize("figure", FIGURES, ids=str)
def test_a_figure_is_the_measured_one(figure: Figure) -> None:
    page = (ROOT / figure.page).read_text(encoding="utf-8")
    [text] = re.findall(figure.pattern.replace(" ", r"\s+"), page)
    assert text == shown(figure.value(read_result(figure.result)), text), f"benchmarks/results/{figure.result}.json"


def test_the_exporters_ranges_are_the_measured_ones() -> None:
    """Each over the ways of scraping."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    figures = read_result("exporter")["figures"]
    for other, pattern in {
        "nvitop-exporter": r"(\d+) to (\d+)\s+times\s+less\s+than\s+nvitop-exporter",
        "node_exporter": r"(\d+) to (\d+)\s+times\s+less\s+than\s+node_exporter",
    }.items():
        [found] = re.findall(pattern, page)
        ratios = [
            figures[other][f"{way}_cpu_seconds"] / figures["gpu-exporter"][f"{way}_cpu_seconds"]
            for way in ("spaced", "kept", "fresh", "plain")
        ]
        assert [int(each) for each in found] == [round(min(ratios)), round(max(ratios))], other


def test_the_table_of_servers_is_the_measured_one() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (own|\w+)[^|]* \| (no|yes|no, yes) \| ([^|]+) \| ([^|]+) \| ([\d,]+) MiB \|$", page, re.MULTILINE
    )
    assert len(rows) == 10
    servers = read_result("connections")["servers"]
    for name, tls, slowest, failed, memory in rows:
        own = [
            each for each in servers
            if each["server"] == ("advisor" if name == "own" else name)
            and ("yes" if each["tls"] else "no") in tls.split(", ")
        ]  # fmt: skip
        assert round(max(each["rss_most_bytes"] for each in own) / MIB) == int(memory.replace(",", "")), name
        for each in own:
            failures = sum(each["failures"].values())
            if math.isinf(each["max_seconds"]):
                assert (slowest, failed) == ("none within 5 s", "all"), name
            else:
                assert (slowest, failed) == (f"{each['max_seconds']:.2f} s", f"{failures} of {each['probes']}"), name


def test_the_table_of_shapes_of_demand_is_the_measured_one() -> None:
    """Of each shape: what the advisor met and used, over all days and over the later ones."""
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    for shape, found in read_result("serving_backtest")["shapes"].items():
        for days in ("policies", "later_days"):
            each = found[days]["advisor"]
            cell = f"| {100 * each['met']:.2f} %, {each['gpu_hours']:,.0f} |"
            assert cell in page, (shape, days, cell)
