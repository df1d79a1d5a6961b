"""The dashboards: generated files are current, pass Grafana's linter rules, and query existing metrics."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu_advisor.notify.metrics import METRIC_FAMILIES as ADVISOR_METRICS
from gpu_advisor.sources.exporters.serving.mapping import server_mappings
from gpu_exporter import metrics
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings

from tests.preview.dashboard_queries import (
    DashboardJson,
    DashboardQuery,
    dashboard_annotations,
    has_result,
    load_dashboards,
    metrics_in,
    panels,
    queries,
    variable_query,
    variables,
)

ROOT = Path(__file__).resolve().parents[2]
#: Host metrics that some kernels lack.
PRESSURE = {"node_pressure_memory_waiting_seconds_total", "node_pressure_io_waiting_seconds_total"}
#: Prometheus' own series on scrapes, alerts and itself.
PROMETHEUS = {
    "up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped", "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_last_duration_seconds", "prometheus_tsdb_head_series",
}  # fmt: skip
#: Panel types that Grafana has replaced: https://grafana.com/docs/grafana/latest/panels-visualizations/
DEPRECATED = {
    "graph",
    "table-old",
    "singlestat",
    "grafana-singlestat-panel",
    "grafana-worldmap-panel",
    "grafana-piechart-panel",
}
UIDS = {
    f"gpu-advisor-{name}" for name in ("fleet", "node", "gpu", "jobs", "recommendations", "cost", "serving", "stack")
}


def known_metrics() -> set[str]:
    """All metric names: recorded by rules, or published by the exporter, jobs, the advisor and Prometheus."""
    own = {family.name for family in vars(metrics).values() if isinstance(family, metrics.MetricFamily)}
    known = own | host_metrics() | PRESSURE | ADVISOR_METRICS.keys() | PROMETHEUS | recorded_names() | job_metrics()
    return known | {name for mapping in server_mappings() for name in mapping.metric_names}


def recorded_names() -> set[str]:
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "prometheus/rules").glob("*.yml")]
    return {rule["record"] for file in files for group in file["groups"] for rule in group["rules"] if "record" in rule}


def job_metrics() -> set[str]:
    """Metrics of training jobs, from their documentation."""
    return set(re.findall(r"^\| `(training_\w+)` \|", (ROOT / "docs/training.md").read_text(), re.MULTILINE))


def host_metrics() -> set[str]:
    names = set()
    for make in COLLECTORS.values():
        try:
            names |= {samples.family.name for samples in make(HostSettings()).collect()}
        except (OSError, ValueError):
            continue  # not supported by this kernel
    # In a container all mounts may be excluded, and these families have no samples.
    return names | {f"node_filesystem_{name}" for name in ("avail_bytes", "size_bytes", "readonly")}


def test_metric_names_are_found_in_queries():
    query = (
        'sum by (a) (rate(b_total{c="d"}[5m])) * on (e) group_left (f) topk by (g) (1, h) or 0 * i unless j > bool 1e3'
    )
    assert metrics_in(query) == {"b_total", "h", "i", "j"}


def test_one_side_of_an_or_is_enough_for_a_result():
    assert has_result('a{b=" or "} or c', {"a"})
    assert has_result("topk by (x) (1, max by (y) (a or b or c)) + d", {"b", "d"})
    assert not has_result("topk by (x) (1, max by (y) (a or b)) + d", {"b"})
    assert not has_result("a * b or c", {"a"})
    assert not has_result("sum(rate(a_total[5m])) / sum(b)", {"b"})


def test_generated_files_are_current():
    pytest.importorskip("grafana_foundation_sdk")
    command = [sys.executable, str(ROOT / "grafana" / "build.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_files_to_import_need_no_installed_package(tmp_path):
    command = [sys.executable, "-I", "-S", str(ROOT / "grafana" / "build.py"), "--import", str(tmp_path / "new")]
    subprocess.run(command, check=True, cwd="/")
    assert {path.stem for path in (tmp_path / "new").iterdir()} == load_dashboards().keys()


def test_a_stale_file_is_detected():
    pytest.importorskip("grafana_foundation_sdk")
    from grafana import build

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = build.render()
    assert build.stale(files) == []
    path = next(iter(files))
    assert build.stale({**files, path: files[path] + " "}) == [path]
    assert build.stale({}) == sorted(files)


def test_uids_of_dashboards_are_stable():
    assert {board["uid"] for board in load_dashboards().values()} == UIDS
    assert all(board["uid"] == f"gpu-advisor-{name}" for name, board in load_dashboards().items())


@pytest.mark.parametrize("name", load_dashboards())
def test_panels_and_queries_have_unique_ids(name):
    ids = [panel["id"] for panel in panels(load_dashboards()[name])]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    for panel in panels(load_dashboards()[name]):
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
        assert all(letters)


@pytest.mark.parametrize("name", load_dashboards())
def test_panels_do_not_overlap(name):
    taken: set[tuple[int, int]] = set()
    for panel in panels(load_dashboards()[name]):
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("name", load_dashboards())
def test_panels_have_titles_and_descriptions(name):
    titles = [panel["title"] for panel in panels(load_dashboards()[name])]
    assert len(set(titles)) >= len(titles) - 1, "duplicate panel title"  # a row may have the title of its only panel
    for panel in panels(load_dashboards()[name]):
        assert panel["type"] not in DEPRECATED
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


@pytest.mark.parametrize("name", load_dashboards())
def test_titles_are_nouns(name):
    """The field's terms; the question that a panel answers is in its description."""
    for panel in panels(load_dashboards()[name]):
        title = panel["title"]
        assert not re.search(r"\?|\b(what|how|who|which|does|do|is|are|feel)\b", title, re.IGNORECASE), title
        assert len(title) <= 50
        assert title[0].isupper()


@pytest.mark.parametrize("name", load_dashboards())
def test_missing_data_is_not_zero(name):
    for panel in panels(load_dashboards()[name]):
        if panel["type"] in ("stat", "bargauge"):
            assert panel["fieldConfig"]["defaults"]["noValue"] not in ("", "0"), panel["title"]
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False, panel["title"]
    for query in queries():
        assert not re.search(r"or (vector\(0\)|on ?\(\) vector)", query.expr), str(query)


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_query_uses_existing_metrics(query: DashboardQuery):
    assert metrics_in(query.expr)
    assert metrics_in(query.expr) <= known_metrics()


@pytest.mark.parametrize("query", queries(), ids=str)
def test_gpus_and_nodes_are_read_from_canonical_series(query: DashboardQuery):
    """So that a dashboard works with every exporter. Only ours publishes owners and jobs."""
    raw = {name for name in metrics_in(query.expr) if ":" not in name and re.match("gpu_|node_|DCGM", name)}
    assert {name for name in raw if not re.match("gpu_owner_|gpu_advisor_|gpu_exporter_", name)} == set()


@pytest.mark.parametrize("name", load_dashboards())
def test_variables_are_used_and_query_existing_metrics(name):
    board = load_dashboards()[name]
    defined = {variable["name"] for variable in board["templating"]["list"]}
    text = json.dumps([board["panels"], dashboard_annotations(board), [each["query"] for each in variables(board)]])
    used = set(re.findall(r"\$\{?([a-z]\w+)", text)) - {"1"}
    assert used - {"datasource"} == defined - {"datasource"}, "used and defined variables"
    for variable in variables(board):
        selector, label = variable_query(variable)
        assert metrics_in(selector) <= known_metrics()
        assert variable["name"] == label


@pytest.mark.parametrize("name", load_dashboards())
def test_links_lead_to_existing_dashboards_and_variables(name):
    text = json.dumps(load_dashboards()[name])
    for path, rest in re.findall(r'"/d/([\w-]+)\?([^"]*?)"', text.replace('\\"', "'")):
        target = {board["uid"]: board for board in load_dashboards().values()}[path]
        names = {variable["name"] for variable in target["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", rest)) <= names, path
    for page in re.findall(r"docs/runbooks/([^\"$]+)", text):
        assert (ROOT / "docs/runbooks" / page).exists()


def test_links_lead_from_the_fleet_to_the_runbook():
    links = {
        name: set(re.findall(r'"/d/gpu-advisor-([\w-]+)\?', json.dumps(board)))
        for name, board in load_dashboards().items()
    }
    assert "node" in links["fleet"]
    assert "gpu" in links["node"]
    assert "jobs" in links["gpu"]
    assert "recommendations" in links["jobs"]
    assert "docs/runbooks/" in json.dumps(load_dashboards()["recommendations"])


def test_grafana_is_provisioned_with_dashboards_and_data_source():
    folder = ROOT / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((folder / "dashboards" / "gpu-advisor.yml").read_text())["providers"][0]
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert source["uid"]
    assert f"./grafana/generated:{provider['options']['path']}:ro" in volumes


# Grafana's linter, as a table of its rules: https://github.com/grafana/dashboard-linter/blob/main/docs/index.md.
# Each rule yields the problems of a dashboard. A real Prometheus checks that queries and variables are valid PromQL
# (target-promql-rule, template-label-promql-rule): tests/integration/test_dashboard_queries.py. The four rules on the
# labels job and instance are for scraped series: recorded series are identified by uuid and nodename.

#: The subset that we use of https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts.
CURRENCIES = {"USD", "EUR", "GBP", "CHF", "JPY", "INR", "KRW", "BRL", "ZAR", "SEK", "NOK", "DKK", "PLN", "CZK", "ILS"}
UNITS = {f"currency{code}" for code in CURRENCIES} | {
    "short",
    "percentunit",
    "watt",
    "celsius",
    "hertz",
    "bytes",
    "Bps",
    "s",
    "ops",
    "cpm",
    "dateTimeFromNow",
}


def _templated_source(board: DashboardJson) -> Iterator[str]:
    sources = variables(board, "datasource")
    if [(each["name"], each["label"], each["query"]) for each in sources] != [
        ("datasource", "Data source", "prometheus")
    ]:
        yield "no templated data source"


def _has_auto_refresh(board: DashboardJson) -> Iterator[str]:
    yield from (f"{each['name']} is not refreshed" for each in variables(board) if each["refresh"] != 2)


def _uneditable(board: DashboardJson) -> Iterator[str]:
    if board["editable"] is not False:
        yield "is editable"


def _panels(has_problem: Callable[[DashboardJson], bool]) -> Callable[[DashboardJson], Iterator[str]]:
    """A rule on panels other than rows."""

    def rule(board: DashboardJson) -> Iterator[str]:
        yield from (panel["title"] for panel in panels(board) if panel["type"] != "row" and has_problem(panel))

    return rule


def _bad_unit(panel: DashboardJson) -> bool:
    config = panel["fieldConfig"]
    overridden = [p["value"] for each in config["overrides"] for p in each["properties"] if p["id"] == "unit"]
    return not {config["defaults"].get("unit"), *overridden} <= UNITS


def _bare_counter(panel: DashboardJson) -> bool:
    text = " ".join(target["expr"] for target in panel["targets"])
    inside = r"\b(?:rate|irate|increase)\([\w:]+_total(?:\{[^}]*\})?\["
    return len(re.findall(r"\w+_total\b", text)) != len(re.findall(inside, text))


def _own_interval(panel: DashboardJson) -> bool:
    text = " ".join(target["expr"] for target in panel["targets"])
    return any(each != "$__rate_interval" for each in re.findall(r"\bi?rate\([^\[]*\[([^\]]+)\]", text))


LINT: dict[str, Callable[[DashboardJson], Iterator[str]]] = {
    "template-datasource-rule": _templated_source,
    "template-on-time-change-reload-rule": _has_auto_refresh,
    "uneditable-dashboard-rule": _uneditable,
    "panel-datasource-rule": _panels(lambda panel: panel["datasource"]["uid"] != "${datasource}"),
    "panel-title-description-rule": _panels(lambda panel: not (panel["title"] and panel["description"])),
    "panel-units-rule": _panels(_bad_unit),
    "panel-no-targets-rule": _panels(lambda panel: not any(target["expr"] for target in panel["targets"])),
    "target-counter-agg-rule": _panels(_bare_counter),
    "target-rate-interval-rule": _panels(_own_interval),
}


@pytest.mark.parametrize("rule", LINT)
@pytest.mark.parametrize("name", load_dashboards())
def test_grafanas_linter_reports_nothing(name, rule):
    assert list(LINT[rule](load_dashboards()[name])) == []


def _with_change(path: str, value: Any) -> DashboardJson:
    """The jobs dashboard with one field changed."""
    board = copy.deepcopy(load_dashboards()["jobs"])
    *steps, last = path.split(".")
    found: Any = board
    for step in steps:
        found = found[int(step)] if step.isdigit() else found[step]
    found[last] = value
    return board


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("template-datasource-rule", "templating.list.0.name", "source"),
        ("template-on-time-change-reload-rule", "templating.list.1.refresh", 1),
        ("uneditable-dashboard-rule", "editable", True),
        ("panel-datasource-rule", "panels.0.datasource.uid", "abc"),
        ("panel-title-description-rule", "panels.0.description", ""),
        ("panel-units-rule", "panels.0.fieldConfig.defaults.unit", "percents"),
        ("panel-no-targets-rule", "panels.0.targets", []),
        ("target-counter-agg-rule", "panels.0.targets.0.expr", "sum(a_total)"),
        ("target-rate-interval-rule", "panels.0.targets.0.expr", "rate(a_total[5m])"),
    ],
)
def test_the_linters_rules_can_fail(rule, path, value):
    assert list(LINT[rule](_with_change(path, value))) != []


def memory_thresholds() -> list[tuple[str, list[tuple[float, str]]]]:
    """(panel or column, steps) of everything that colours GPU memory used by its value."""
    found = []
    for name, board in load_dashboards().items():
        for panel in panels(board):
            config = panel.get("fieldConfig", {})
            if panel["type"] == "stat" and re.search(r"gpu_memory_used|gpu:memory_used", panel["targets"][0]["expr"]):
                found.append((f"{name}: {panel['title']}", config["defaults"]["thresholds"]["steps"]))
            for override in config.get("overrides", []):
                steps = [each["value"]["steps"] for each in override["properties"] if each["id"] == "thresholds"]
                if override["matcher"]["options"] == "Memory" and steps:
                    found.append((f"{name}: {panel['title']}", steps[0]))
    return [(where, [(step["value"] or 0, step["color"]) for step in steps]) for where, steps in found]


@pytest.mark.parametrize(
    ("where", "steps"), memory_thresholds(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_memory_is_green_only_within_its_band(where: str, steps: list[tuple[float, str]]) -> None:
    def color(ratio: float) -> str:
        return [name for value, name in steps if value <= ratio][-1]

    assert {color(ratio) for ratio in (0.80, 0.85, 0.899)} == {"green"}
    assert "green" not in {color(ratio) for ratio in (0.0, 0.5, 0.79, 0.90, 0.97, 1.0)}
    assert color(0.97) == "red"


def test_tables_begin_with_the_most_severe() -> None:
    found = 0
    for board in load_dashboards().values():
        for panel in panels(board):
            headings = json.dumps(panel.get("transformations", []))
            if '"Severity"' in headings:
                found += 1
                assert panel["options"]["sortBy"] == [{"displayName": "Severity", "desc": False}]
                [rank] = [target["expr"] for target in panel["targets"] if "severity=" in target["expr"]]
                assert re.findall(r'(\d) \* .*?severity(\W+)([\w|]+)"', rank) == [
                    ("1", '="', "critical"), ("2", '="', "warning"), ("3", '="', "info"),
                    ("4", '!~"', "critical|warning|info"),  # rules of others have severities of their own
                ]  # fmt: skip
    assert found == 6  # five of recommendations, one of alerts


def test_amounts_have_a_currency() -> None:
    """A single number has the sign of its currency, a table a column with its name."""
    for name, board in load_dashboards().items():
        for panel in panels(board):
            text = " ".join(target["expr"] for target in panel.get("targets", []))
            if not re.search(r"_per_hour\b", text):
                continue
            if panel["type"] == "stat":
                units = {
                    each["matcher"]["options"]: each["properties"][0]["value"]
                    for each in panel["fieldConfig"]["overrides"]
                }
                assert units == {code: f"currency{code}" for code in CURRENCIES}, f"{name}: {panel['title']}"
                assert panel["targets"][0]["legendFormat"] == "{{currency}}"
                assert panel["fieldConfig"]["defaults"]["noValue"] == "unknown"  # prices, or the advisor is down
            else:
                assert '"Currency"' in json.dumps(panel["transformations"]), f"{name}: {panel['title']}"


@pytest.mark.parametrize("name", ["fleet", "cost", "jobs", "recommendations", "serving"])
def test_curves_do_not_grow_with_the_fleet(name: str) -> None:
    """A curve for each model, kind or state; of nodes, GPUs, jobs and teams only the most extreme ones."""
    few = {"name", "kind", "server", "status", "model", "namespace", *({"training_job"} if name == "jobs" else ())}
    for panel in panels(load_dashboards()[name]):
        for target in panel.get("targets", []) if panel["type"] == "timeseries" else ():
            legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            limited = re.search(r"\b(?:top|bottom)k\(10, .*@ end\(\)", target["expr"])
            assert limited or set(legend) <= few, f"{panel['title']}: {target['expr']}"


def test_links_keep_the_cluster() -> None:
    """Where both boards have the variable, so that a node's name means one node."""
    boards = {board["uid"]: board for board in load_dashboards().values()}
    having = {uid for uid, board in boards.items() if any(v["name"] == "cluster" for v in variables(board))}
    assert len(having) == 5
    for uid, board in boards.items():
        assert all(link["includeVars"] for link in board["links"])
        for target, rest in re.findall(r'"/d/([\w-]+)\?([^"]*?)"', json.dumps(board["panels"]).replace('\\"', "'")):
            assert ("${cluster:queryparam}" in rest) == ({uid, target} <= having), f"{uid} -> {target}"


@pytest.mark.parametrize("name", load_dashboards())
def test_a_file_to_import_names_what_it_needs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from grafana import build

    text = (build.GENERATED / f"{name}.json").read_text(encoding="utf-8")
    board = build.importable(text)
    assert board["id"] is None
    assert [each["pluginId"] for each in board["__inputs"]] == ["prometheus"]
    [source] = variables(board, "datasource")
    assert source["current"]["value"] == f"${{{board['__inputs'][0]['name']}}}"
    required = {(each["type"], each["id"]) for each in board["__requires"]}
    drawn = {("panel", panel["type"]) for panel in panels(board)} - {("panel", "row")}
    assert required == {("grafana", "grafana"), ("datasource", "prometheus"), *drawn}
    # No data source of one installation, as by name or UID: only the variable.
    used = {json.dumps(each) for each in re.findall(r'"datasource": (\{[^}]*\})', json.dumps(board))}
    assert all("${datasource}" in each or "-- Grafana --" in each for each in used)
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    assert image.endswith(f":{build.GRAFANA_VERSION}")
