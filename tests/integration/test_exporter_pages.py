"""Pages of all exporters in a real Prometheus, through a whole evaluation: identity, node, utilization and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.signals import (
    IDLE_COVERAGE,
    IDLE_UTILIZATION,
    MEMORY_TOTAL,
    MEMORY_USED,
    POWER,
    UTILIZATION,
)
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.openmetrics_import import with_target_labels
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Prometheus, prometheus
from tests.unit.sources.exporter_pages import PAGES, PageGpu

pytestmark = pytest.mark.servers

START = 1_795_000_000.0
MINUTES, INTERVAL = 32, 60


@dataclass(frozen=True)
class PagesInPrometheus:
    source: PrometheusSource
    server: Prometheus

    def evaluated(self, name: str) -> Evaluation:
        return evaluate(self.source, Settings(), begin(name) + MINUTES * 60 + 1.5)


def begin(name: str) -> float:
    """Each page has two hours of its own, so that one server holds them all."""
    return START + list(PAGES).index(name) * 2 * 3600


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesInPrometheus]:
    folder = tmp_path_factory.mktemp("pages")
    past = folder / "past.txt"
    past.write_text("".join(scraped()) + "# EOF\n")
    with prometheus(folder, backfill=past) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        yield PagesInPrometheus(source, server)
        source.close()


def scraped() -> Iterator[str]:
    for name, page in PAGES.items():
        samples = [sample for family in text_string_to_metric_families(page.text) for sample in family.samples]
        series = [(f"{each.name}{{{_labels(each.labels, page.target)}}}", each.value) for each in samples]
        series.append((f"up{{{_labels({}, page.target)}}}", 1.0))
        for second in range(0, MINUTES * 60 + 1, INTERVAL):
            for text, value in series:
                yield f"{text} {value!r} {begin(name) + second:.3f}\n"


def _labels(labels: dict[str, str], target: dict[str, str]) -> str:
    return ",".join(f'{key}="{value}"' for key, value in with_target_labels(labels, target))


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", PAGES)
def test_an_evaluation_has_the_values_of_the_page(pages: PagesInPrometheus, name: str) -> None:
    page = PAGES[name]
    evaluation = pages.evaluated(name)
    facts = evaluation.facts
    wanted = {gpu.uuid: gpu for gpu in page.gpus}
    assert {gpu.uuid for gpu in facts.gpus} == wanted.keys()
    for gpu in facts.gpus:
        right = wanted[gpu.uuid]
        assert gpu.exporter == page.mapping
        assert gpu.node == (right.node or page.target["instance"])
        assert gpu.index == right.index
        for signal in (UTILIZATION, IDLE_UTILIZATION):
            assert facts.value(signal, gpu.uuid) == near(right.utilization), signal.name
        assert facts.value(MEMORY_USED, gpu.uuid) == near(right.memory_used)
        assert facts.value(MEMORY_TOTAL, gpu.uuid) == near(right.memory_total)
        if right.utilization is not None:
            assert facts.value(IDLE_COVERAGE, gpu.uuid) == pytest.approx(1, abs=0.04)
    assert evaluation.queries <= 25


@pytest.mark.parametrize("name", PAGES)
def test_evidence_pasted_gives_the_number_shown(pages: PagesInPrometheus, name: str) -> None:
    for check in pages.evaluated(name).checks:
        for evidence in check.evidence:
            assert evidence.promql is not None
            [result] = pages.server.query(evidence.promql, time=START)
            assert float(result["value"][1]) == pytest.approx(evidence.value, rel=1e-9, abs=1e-12), evidence.promql


def test_a_gpu_without_utilization_is_not_idle(pages: PagesInPrometheus) -> None:
    for name, page in PAGES.items():
        unknown: set[PageGpu] = {gpu for gpu in page.gpus if gpu.utilization is None}
        advice = pages.evaluated(name).recommendations
        reclaimed = {uuid for each in advice if each.kind == "idle_reclaim" for uuid in each.gpus}
        assert not reclaimed & {gpu.uuid for gpu in unknown}, name


def test_what_mig_takes_away_is_explained_by_mig(pages: PagesInPrometheus) -> None:
    dcgm = pages.evaluated("dcgm, MIG slices").facts
    piece = next(gpu for gpu in dcgm.gpus if gpu.uuid == "GPU-a~7")
    missing = explain_missing(dcgm, POWER, piece.scope, piece)
    assert (missing.reason, "MIG slice (1g.10gb)" in missing.message) == (Reason.UNSUPPORTED, True)
    smi = pages.evaluated("nvidia_gpu_exporter, MIG").facts
    board = next(gpu for gpu in smi.gpus if gpu.uuid == "GPU-1c67")
    assert "MIG mode" in explain_missing(smi, UTILIZATION, board.scope, board).message
