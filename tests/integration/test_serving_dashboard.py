"""The dashboard of inference servers on a real Prometheus: through each mapping, and each spelling of its names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.observation.serving import read_serving
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.exporters.serving.mapping import UNDERSCORED, server_mappings
from gpu_advisor.sources.exporters.serving.recording_rules import render_serving_rules
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.preview.dashboard_queries import queries, substitute_variables
from tests.preview.demo_history import evaluate_rules
from tests.servers import Prometheus, create_blocks, prometheus
from tests.serving_pages import START, scraped
from tests.unit.serving.test_mappings import PAGES, STEP_SECONDS, STEPS, Page, underscored

pytestmark = pytest.mark.servers

END = START + STEP_SECONDS * STEPS
#: The signal that each panel shows of a single server; of the first two, a number that is the signal's.
SIGNALS: Mapping[str, str] = {
    "Running requests": "running",
    "Waiting requests": "waiting_now",
    "KV cache used": "kv_usage",
    "Generation throughput": "generation_token_rate",
    "Preemptions per second": "preemption_rate",
    "Time to first token (p95)": "ttft_p95",
    "Time to first token (p50)": "ttft_p50",
    "Inter-token latency (p95)": "itl_p95",
    "Requests running": "running",
    "Requests waiting": "waiting_now",
    "KV cache used by server": "kv_usage",
    "Preemptions by server": "preemption_rate",
    "Tokens per step": "iteration_tokens",
    "Requests of an execution": "batch",
}

COLON_PAGES = [page for page in PAGES if any(":" in name.partition("{")[0] for name in page.gauges)]
EVERY = [*PAGES, *map(underscored, COLON_PAGES)]


@dataclass(frozen=True)
class Recorded:
    """One Prometheus with all pages, each of a model of its own, and what the advisor reads of each."""

    server: Prometheus
    replicas: Mapping[str, ServingReplica]


def _lines(number: int, page: Page) -> Iterator[str]:
    """The page's server; its model or, if the page names none, its job is the page's number."""
    name = f"page{number}"
    for step in range(STEPS + 1):
        found = {**page.gauges, **{series: rate * STEP_SECONDS * step for series, rate in page.rates.items()}}
        text = "\n".join(f"{series} {value}" for series, value in found.items())
        text = re.sub(r'\b(model_name|model|deployment)="[^"]*"', rf'\1="{name}"', text)
        target = {"job": name, "instance": f"h{number}:8000"}
        yield from (f"{line}\n" for line in scraped(text, START + STEP_SECONDS * step, target))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("serving")
    _import(folder, "scraped", [line for number, page in enumerate(EVERY) for line in _lines(number, page)])
    with prometheus(folder, blocks=folder / "blocks") as server:
        made = list(evaluate_rules(server.url, render_serving_rules(), END - 120, END))
        with closing(PrometheusSource(PrometheusClientConfig(server.url))) as source:
            found = read_serving(source, Facts(END, (), (), {}, {}, EvaluationSettings()), END, (), "cluster")
    _import(folder, "recorded", made)
    with prometheus(folder, blocks=folder / "blocks") as server:
        yield Recorded(server, {each.job: each for each in found.replicas})


def _import(folder: Path, name: str, lines: list[str]) -> None:
    path = folder / f"{name}.txt"
    path.write_text("".join([*lines, "# EOF\n"]))
    create_blocks(path, folder / "blocks")


@pytest.mark.parametrize("number", range(len(EVERY)), ids=lambda number: EVERY[number].server)
def test_panels_show_what_the_advisor_reads(recorded: Recorded, number: int) -> None:
    replica = recorded.replicas[f"page{number}"]
    shown = {}
    for query in queries():
        title = query.where.rpartition(" (")[0]
        if query.dashboard == "serving" and title in SIGNALS:
            expr = substitute_variables(query.expr, {"model": f"page{number}", "__rate_interval": "2m"})
            rows = [row for row in recorded.server.query(expr, END) if row["value"][1] != "NaN"]
            assert len(rows) <= 1, query
            shown[title] = float(rows[0]["value"][1]) if rows else None
    assert shown.keys() == SIGNALS.keys()
    assert shown == pytest.approx({title: replica.value(signal) for title, signal in SIGNALS.items()}, nan_ok=False)


def test_each_kind_and_spelling_has_a_page() -> None:
    assert {page.server for page in EVERY} == {mapping.name for mapping in server_mappings()}
    assert any(page.server.endswith(UNDERSCORED) for page in EVERY)


def test_no_query_of_the_dashboard_is_long() -> None:
    """It reads recorded series, so that a further mapping makes none longer."""
    assert max(len(query.expr) for query in queries() if query.dashboard == "serving") < 400
