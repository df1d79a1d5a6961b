"""All queries of dashboards and rules on a real Prometheus: for the demo fleet, through each mapping, at scale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.mapping_files import mappings, own_mappings
from gpu_advisor.sources.exporters.recording_rules import render_rules
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from benchmarks import dashboards
from tests.integration.test_exporters import CARDS, HOST
from tests.preview.dashboard_queries import (
    DashboardQuery,
    all_selected,
    has_result,
    load_dashboards,
    metrics_in,
    queries,
    substitute_variables,
    variable_query,
    variables,
)
from tests.preview.demo_history import END, advisor_samples, evaluate_rules
from tests.preview.demo_prometheus import demo_prometheus
from tests.servers import Prometheus, VictoriaMetrics, create_blocks, prometheus
from tests.unit.sources.expositions import EXPOSITIONS, SampleLine, node_exporter, openmetrics_lines

pytestmark = pytest.mark.servers

TIMES = {"__range": "45m", "__rate_interval": "2m"}
#: Known results for the demo fleet: 34 GPUs, one lost, four idle, two of these with memory allocated.
KNOWN = {
    ("fleet", "GPUs (A)"): 34,
    ("fleet", "GPUs down (A)"): 1,
    ("fleet", "Idle GPUs (A)"): 4,
    ("fleet", "Idle GPUs, memory allocated (A)"): 2,
    ("stack", "Exporters down (A)"): 0,
    ("stack", "Advisor status (A)"): 1,
    ("recommendations", "Snoozed (A)"): 1,
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with demo_prometheus(tmp_path_factory.mktemp("fleet"), 45 * 60, 30, [END - 60, END - 30, END]) as server:
        yield server


def single_value_choices(server: Prometheus, at: float) -> list[dict[str, str]]:
    """Values for single-value variables: each GPU with its node."""
    rows = [each["metric"] for each in server.query("gpu:identity:info", at)]
    return [{"nodename": row["nodename"], "uuid": row["uuid"]} for row in rows]


def first_result(server: Prometheus, query: DashboardQuery, at: float, ways: list[dict[str, str]]) -> list[object]:
    """The first non-empty result; for a dashboard on one GPU, of any GPU."""
    about_one = '="$' in query.expr
    for way in ways if about_one else ways[:1]:
        if found := server.query(
            substitute_variables(query.expr, {**all_selected(load_dashboards()[query.dashboard], way), **TIMES}), at
        ):
            return list(found)
    return []


@pytest.mark.parametrize("name", load_dashboards())
def test_every_query_has_a_result_for_the_demo_fleet(fleet: Prometheus, name: str) -> None:
    ways = single_value_choices(fleet, END + 1)
    own = [query for query in queries() if query.dashboard == name]
    if isinstance(fleet, VictoriaMetrics):  # which has other metrics of itself
        own = [query for query in own if "prometheus_" not in query.expr]
    assert [str(query) for query in own if not first_result(fleet, query, END + 1, ways)] == []
    for query in own:
        if (wanted := KNOWN.get((name, query.where))) is not None:
            [result] = fleet.query(
                substitute_variables(query.expr, {**all_selected(load_dashboards()[name], ways[0]), **TIMES}), END + 1
            )
            assert float(result["value"][1]) == wanted, str(query)


def test_every_variable_has_values(fleet: Prometheus) -> None:
    ways = single_value_choices(fleet, END + 1)
    for board in load_dashboards().values():
        for variable in variables(board):
            selector, label = variable_query(variable)
            rows = fleet.query(substitute_variables(selector, all_selected(board, ways[0])), END + 1)
            # The demo is of one cluster: its series have no such label, and `All` selects them.
            assert label == "cluster" or {row["metric"].get(label, "") for row in rows} - {""}, variable["query"]


def test_missing_data_is_never_shown_as_zero(fleet: Prometheus) -> None:
    """With all components down, no query returns 0."""
    ways = [{"nodename": "train-1", "uuid": "GPU-1"}]
    # Sums over the time range still include earlier samples.
    over_range = {str(query) for query in queries() if "$__range" in query.expr}
    shown = [
        str(query)
        for query in queries()
        if first_result(fleet, query, END + 900, ways) and str(query) not in over_range
    ]
    assert shown == []


# --- Other exporters


@dataclass(frozen=True)
class MappedExporters:
    """One Prometheus with the metrics of each mapping's exporter, at separate times; `ends` by mapping."""

    server: Prometheus
    ends: dict[str, float]


BEGIN = 1_790_000_000.0
LENGTH_SECONDS, INTERVAL_SECONDS = 40 * 60, 15
NO_ADVISOR = "without an advisor"


@pytest.fixture(scope="module")
def mapped_exporters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MappedExporters]:
    """Each mapping has a two-hour slot."""
    folder = tmp_path_factory.mktemp("mapped")
    begins = {name: BEGIN + 7200 * i for i, name in enumerate([*EXPOSITIONS, NO_ADVISOR])}
    ends = {name: begin + LENGTH_SECONDS for name, begin in begins.items()}
    _import(folder, "scraped", (line for name, begin in begins.items() for line in _scraped_lines(name, begin)))
    made: list[str] = []
    with prometheus(folder, blocks=folder / "blocks") as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        for name, end in ends.items():
            made += evaluate_rules(server.url, _rules(name), begins[name], end)
            if name != NO_ADVISOR:
                made += advisor_samples(source, Settings(), [end - 60, end])
        source.close()
    _import(folder, "made", iter(made))
    with prometheus(folder, blocks=folder / "blocks") as server:
        yield MappedExporters(server, ends)


def _rules(name: str) -> str:
    return render_rules([_family(name), "node_exporter"])


def _family(name: str) -> str:
    return "gpu-exporter" if name == NO_ADVISOR else name


def _job(name: str) -> str:
    """Ours has the job name that the stack's dashboard and rules select."""
    return "gpu-exporter" if _family(name) == "gpu-exporter" else "gpus"


def _page(name: str, second: float) -> list[SampleLine]:
    scrape = [SampleLine("scrape_duration_seconds", {}, 0.01), SampleLine("scrape_samples_scraped", {}, 100)]
    return [*EXPOSITIONS[_family(name)](HOST, second), *node_exporter(HOST, second), *scrape]


def _scraped_lines(name: str, begin: float) -> Iterator[str]:
    for second in range(INTERVAL_SECONDS, LENGTH_SECONDS + 1, INTERVAL_SECONDS):
        yield openmetrics_lines(_page(name, second), _job(name), "node-1:9400", begin + second)


def _import(folder: Path, name: str, lines: Iterator[str]) -> None:
    path = folder / f"{name}.txt"
    with path.open("w") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    create_blocks(path, folder / "blocks")


def is_result_expected(query: DashboardQuery, name: str, existing: set[str]) -> bool:
    """Whether a query must have a result, given the existing series of this exporter."""
    jobs = {_job(name)} if name == NO_ADVISOR else {_job(name), "gpu-advisor"}
    selected_jobs = [set(each.split("|")) for each in re.findall(r'job=~?"([^"]+)"', query.expr)]
    # Node series are selected by node name, which not every exporter knows.
    nameless = re.search(r'node:identity:info\{[^}]*nodename="', query.expr) and not _has_node_name(name)
    return has_result(query.expr, existing) and all(each & jobs for each in selected_jobs) and not nameless


def _has_node_name(name: str) -> bool:
    mapping = next(mapping for mapping in mappings() if mapping.name == _family(name))
    return mapping in own_mappings() or "nodename" in mapping.labels


def expected(name: str, advisors: set[str]) -> set[str]:
    """The existing series with this exporter: its own, and those recorded by its mapping's rules."""
    existing = {line.metric for line in _page(name, 0)} | {"up"} | advisors
    for group in yaml.safe_load(_rules(name))["groups"]:
        for rule in group["rules"]:
            if has_result(rule["expr"], existing):
                existing.add(rule["record"])
    return existing


@pytest.mark.parametrize("name", [*EXPOSITIONS, NO_ADVISOR])
def test_dashboards_show_exactly_what_a_mapping_provides(mapped_exporters: MappedExporters, name: str) -> None:
    at = mapped_exporters.ends[name] + 1
    published = mapped_exporters.server.query('count by (__name__) ({__name__=~"gpu_advisor_.+"})', at)
    existing = expected(name, {each["metric"]["__name__"] for each in published})
    assert (name == NO_ADVISOR) != any(each.startswith("gpu_advisor_") for each in existing)
    ways = single_value_choices(mapped_exporters.server, at)
    assert len(ways) == len(CARDS)
    wrong = {
        str(query): found
        for query in queries()
        if (found := bool(first_result(mapped_exporters.server, query, at, ways)))
        != is_result_expected(query, name, existing)
    }
    assert wrong == {}, "queries with an unexpected or missing result"
    # Every mapping must provide these.
    assert existing >= {
        "gpu:utilization_ratio:mean5m", "gpu:memory_used_ratio:last", "gpu:temperature_celsius:last",
        "gpu:power_watts:last", "host:gpus_busy:mean5m", "host:gpus_idle_holding:sum30m", "node:cpu_ratio:mean5m",
    }  # fmt: skip


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_the_same_gpus_give_the_same_numbers_through_each_mapping(mapped_exporters: MappedExporters, name: str) -> None:
    expected_values = {
        "sum(host:gpus_busy:mean5m) / sum(host:gpus_measured:count)": sum(c.utilization for c in CARDS) / len(CARDS),
        "sum(host:gpus_idle_holding:sum30m)": 1,
        "sum(model:gpus_idle:sum30m)": 2,
        "sum(host:gpu_memory_used_bytes:sum)": sum(c.used_mib for c in CARDS) * 2**20,
    }
    for query, value in expected_values.items():
        [result] = mapped_exporters.server.query(query, mapped_exporters.ends[name] + 1)
        assert float(result["value"][1]) == pytest.approx(value, rel=1e-6), query


# --- make bench-dashboards


def test_the_large_fleet_has_the_series_that_dashboards_read() -> None:
    """A query without data would be timed as fast. The fleet of the benchmark serves no models."""
    existing = {line.split("{")[0] for line in dashboards.fleet(8, 0.1, False)}
    own = {name for query in queries() for name in metrics_in(query.expr) if ":" in name}
    assert {name for name in own if not name.startswith(("server:", "served_model:"))} <= existing
