"""Serving signals from a real Prometheus: the same numbers as from the embedded history, and as pasted by a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from benchmarks.serving.draw import CLASSES
from benchmarks.serving.situation import WARM_UP_SECONDS, WINDOW_SECONDS
from benchmarks.serving.windows import watch
from tests.embedded import embedded_source
from tests.servers import Prometheus, prometheus
from tests.serving_pages import START, history_of, simulated_lines, write_openmetrics

pytestmark = pytest.mark.servers

END = START + WARM_UP_SECONDS + 2 * WINDOW_SECONDS
SITUATIONS = {name: CLASSES[name](11) for name in ("batch_limit_bound", "kv_cache_bound", "under_batched")}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Three models, of which each has a cause of its own."""
    found = []
    for number, (name, situation) in enumerate(SITUATIONS.items()):
        named = replace(situation, model=replace(situation.model, name=name))
        found += [line.replace("10.0.0.", f"10.0.{number}.") for line in simulated_lines(named, watch(named, 2))]
    return found


@pytest.fixture(scope="module")
def server(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("serving")
    with prometheus(folder, backfill=write_openmetrics(lines, folder / "history.txt")) as found:
        yield found


@pytest.fixture(scope="module")
def evaluation(server: Prometheus) -> Evaluation:
    pools = [
        {"name": name, "kind": "serving", "slo": {"ttft_p95": f"{each.ttft}s", "itl_p95": f"{each.itl}s"}}
        for name, each in SITUATIONS.items()
    ]
    with closing(PrometheusSource(PrometheusClientConfig(server.url))) as source:
        return evaluate(source, Settings.model_validate({"pools": pools}), END)


def test_each_model_has_its_cause(evaluation: Evaluation) -> None:
    found = {(each.scope.name, each.diagnosis) for each in evaluation.recommendations}
    assert {(name, name) for name in ("batch_limit_bound", "kv_cache_bound")} <= found
    assert ("under_batched", "oversized") in found  # sized by its curve
    assert evaluation.queries <= 25


def test_the_history_has_the_latencies_of_all_requests(evaluation: Evaluation) -> None:
    """Of a window that ends with a step: between those of the replicas that serve the model."""
    found = evaluation.facts.serving
    for group, demand in found.demand.items():
        last = demand[-1]
        members = [each for each in found.replicas if each.group == group]
        for name, latency in (("ttft_p95", last.ttft_p95), ("itl_p95", last.itl_p95)):
            known = [value for each in members if (value := each.value(name)) is not None]
            assert latency is not None
            assert 0.8 * min(known) <= latency <= 1.2 * max(known)


def test_pasted_evidence_gives_the_same_number(evaluation: Evaluation, server: Prometheus) -> None:
    shown = [each for advice in evaluation.recommendations for each in advice.evidence]
    assert len(shown) >= 10
    for each in shown:
        assert each.promql is not None
        (row,) = server.query(each.promql)
        assert float(row["value"][1]) == pytest.approx(each.value, rel=1e-9), each.promql


def test_the_embedded_history_has_the_same_facts(
    evaluation: Evaluation, lines: list[str], server: Prometheus, tmp_path: Path
) -> None:
    with closing(history_of(lines, tmp_path)) as history:
        found = evaluate(embedded_source(history, server), Settings(), END)
    here, there = found.facts.serving.replicas, evaluation.facts.serving.replicas
    assert here == there
    for one, other in zip(here, there, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-9), one.label
        assert one.before == pytest.approx(other.before, rel=1e-9), one.label
        assert len(one.before) >= 25, one.label
