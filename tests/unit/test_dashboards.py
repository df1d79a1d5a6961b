"""The dashboards: what is checked in is what the code says, and what it asks for is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu_advisor.publish.metrics import CATALOGUE as ADVISOR_CATALOGUE
from gpu_exporter import metrics
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "grafana" / "generated"
#: Those of the host's metrics that not every kernel has.
PRESSURE = {"node_pressure_memory_waiting_seconds_total", "node_pressure_io_waiting_seconds_total"}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf"}
#: Panel types that Grafana has replaced.
DEPRECATED = {"graph", "table-old", "singlestat", "grafana-singlestat-panel", "grafana-worldmap-panel"}


def known_metrics() -> set[str]:
    """All names that the exporter, the advisor and Prometheus itself publish."""
    own = {family.name for family in (*metrics.DEVICE_FAMILIES, *metrics.SELF_FAMILIES)}
    return own | host_metrics() | PRESSURE | ADVISOR_CATALOGUE.keys() | {"up", "ALERTS"}


def host_metrics() -> set[str]:
    names = set()
    for make in COLLECTORS.values():
        try:
            names |= {samples.family.name for samples in make(HostSettings()).collect()}
        except (OSError, ValueError):
            continue  # not on this kernel
    # A container may have mounts of the excluded kinds only, and then no sample of these families.
    return names | {f"node_filesystem_{name}" for name in ("avail_bytes", "size_bytes", "readonly")}


def metrics_in(query: str) -> set[str]:
    """The metric names in a PromQL query."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", query)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    return set(re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", text)) - WORDS


def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries() -> list[tuple[str, str]]:
    """(where, query) of all panels, as Grafana would send them for everything chosen."""
    found = []
    for name, board in boards().items():
        variables = {v["name"]: v.get("allValue", "") for v in board["templating"]["list"]}
        for panel in panels(board):
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "1m")
                for variable, value in variables.items():
                    query = re.sub(rf"\${variable}\b", value, query)
                found.append((f"{name}: {panel['title']}: {target['refId']}", query))
    return found


def test_metric_names_are_found_in_queries():
    query = (
        'sum by (a) (rate(b_total{c="d"}[5m])) * on (e) group_left (f) topk by (g) (1, h) or 0 * i unless j > bool 1e3'
    )
    assert metrics_in(query) == {"b_total", "h", "i", "j"}


def test_what_is_checked_in_is_what_the_code_says():
    pytest.importorskip("grafana_foundation_sdk")
    command = [sys.executable, str(ROOT / "grafana" / "build.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_a_stale_file_is_noticed(tmp_path, monkeypatch):
    pytest.importorskip("grafana_foundation_sdk")
    from grafana import build

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = build.render()
    assert build.stale(files) == []
    path = next(iter(files))
    assert build.stale({**files, path: files[path] + " "}) == [path]
    assert build.stale({}) == sorted(files)


@pytest.mark.parametrize("name", boards())
def test_a_dashboard_can_be_referred_to(name):
    board = boards()[name]
    assert board["uid"]
    ids = [panel["id"] for panel in panels(board)]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    for panel in panels(board):
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
        assert all(letters)


def test_no_two_dashboards_have_the_same_uid():
    uids = [board["uid"] for board in boards().values()]
    assert len(set(uids)) == len(uids) > 0


@pytest.mark.parametrize("name", boards())
def test_panels_explain_themselves_and_do_not_overlap(name):
    taken: set[tuple[int, int]] = set()
    for panel in panels(boards()[name]):
        assert panel["title"]
        assert panel["type"] not in DEPRECATED
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_asks_for_metrics_that_there_are(where, query):
    assert metrics_in(query)
    assert metrics_in(query) <= known_metrics()
    assert "$" not in re.sub(r'"\$1"', "", query), "a variable that the dashboard does not have"


@pytest.mark.parametrize(("where", "query"), queries())
def test_utilization_is_busy_time_over_observed_time(where, query):
    assert "gpu_utilization_ratio" not in query
    if "gpu_busy_seconds_total" in query:
        assert "gpu_observed_seconds_total" in query
        assert "sum by (uuid)" in query


@pytest.mark.parametrize("name", boards())
def test_variables_ask_for_metrics_that_there_are(name):
    for variable in boards()[name]["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"])
            assert asked, variable["query"]
            assert asked[1] in known_metrics()
            assert asked[2] == variable["name"]


def test_grafana_is_told_where_the_dashboards_and_the_data_are():
    folder = ROOT / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((folder / "dashboards" / "gpu-advisor.yml").read_text())["providers"][0]
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert source["uid"]
    assert f"./grafana/generated:{provider['options']['path']}:ro" in volumes


def require(tool: str) -> str:
    if found := shutil.which(tool):
        return found
    message = f"{tool} is missing: apt-get install prometheus"
    if os.environ.get("GPU_ADVISOR_REQUIRE_SERVERS") == "1":
        pytest.fail(message)
    pytest.skip(message)


ADVISOR_SAMPLES = """\
gpu_advisor_source_up{source="prometheus"} 1
gpu_advisor_stale 0
gpu_advisor_recommendation_info{id="r1",kind="idle_reclaim",scope_kind="gpu",scope="GPU-1",severity="warning"} 1
gpu_advisor_recommendation_since_timestamp_seconds{id="r1"} 1.7e9
gpu_advisor_check_status{item="gpu",scope_kind="node",scope="n1",status="met"} 1
gpu_advisor_check_value_ratio{item="gpu",scope_kind="node",scope="n1"} 0.9
gpu_advisor_abstention_info{reason="no_data",subject="scale",scope_kind="pool",scope="p"} 1
gpu_advisor_alertmanager_up{alertmanager="http://am:9093"} 1
node_uname_info{nodename="n1"} 1
"""


#: What the simulated fleet of the test below must give, where the number is known.
EXPECTED = {
    "GPUs that are up": 2,
    "GPUs that are down": 0,
    "GPUs idle while holding memory": 1,
    "Open recommendations": 1,
}


@pytest.mark.servers
def test_prometheus_answers_each_query(tmp_path):
    """promtool evaluates them on a simulated fleet, sampled by the exporter's own code."""
    promtool = require("promtool")
    series = simulated_series()
    tests = [
        {
            "interval": "15s",
            "input_series": series,
            "promql_expr_test": [_expectation(where, query) for where, query in queries()],
        }
    ]
    path = tmp_path / "dashboards.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _expectation(where: str, query: str) -> dict[str, Any]:
    """The known number, or else that there is a result. An error fails either way."""
    known = EXPECTED.get(where.split(": ")[1])
    return {
        "expr": query if known is not None else f"count(({query})) > bool 0",
        "eval_time": "40m",
        "exp_samples": [{"labels": "{}", "value": 1 if known is None else known}],
    }


def simulated_series() -> list[dict[str, str]]:
    """40 minutes of two simulated GPUs, one training and one hoarding, in promtool's notation; two instances of one."""
    from gpu_exporter.devices.simulated import past
    from gpu_exporter.exposition import render_history

    end = 1_800_000_000.0
    values: dict[str, list[str]] = {}
    for line in render_history(past("1xH100-80GB:training,1xT4-16GB:idle-hoarder", 0, "n1", end - 2400, end, 15)):
        if not line.startswith("#"):
            name, value, _ = line.rsplit(" ", 2)
            values.setdefault(name, []).append(value)
    series = [{"series": _instance(name, "a:1"), "values": " ".join(v)} for name, v in values.items()]
    twice = [
        {"series": _instance(name, "b:1"), "values": " ".join(v)} for name, v in values.items() if 'index="0"' in name
    ]
    constants = [line.rsplit(" ", 1) for line in ADVISOR_SAMPLES.splitlines()]
    constants += [[f'node_cpu_seconds_total{{mode="{mode}"}}', "0+5"] for mode in ("idle", "user")]
    constants += [['up{job="gpu-exporter"}', "1"]]
    return (
        series
        + twice
        + [
            {"series": _instance(name, "a:1"), "values": f"{value if '+' in value else value + '+0'}x170"}
            for name, value in constants
        ]
    )


def _instance(name: str, instance: str) -> str:
    head, brace, rest = name.partition("{")
    return f'{head}{{instance="{instance}"' + (f",{rest}" if brace else "}")
