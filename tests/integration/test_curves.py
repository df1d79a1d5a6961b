"""The charts of the page: the last point of each curve is the number that the evidence shows, from either source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.web.page.evidence_history import POINTS, EvidenceHistory
from gpu_exporter.devices.simulated import generate_history
from gpu_exporter.exposition import render_history
from gpu_exporter.metrics import FamilySamples

from tests.integration.test_scenarios import START, TARGET, UNAME, UP
from tests.integration.test_source_equivalence import add_target_labels
from tests.servers import prometheus

FLEET = "2xH100-80GB:throttled,3xT4-16GB:idle-hoarder,1xH200-141GB:memory-bound"
LENGTH_SECONDS = 80 * 60


def lines() -> Iterator[str]:
    def fed() -> Iterator[tuple[float, list[FamilySamples]]]:
        for at, samples in generate_history(FLEET, 0, "node-1", START, START + LENGTH_SECONDS, 30):
            yield at, [*samples, FamilySamples(UNAME, ((("node-1",), 1.0),)), FamilySamples(UP, ((TARGET, 1.0),))]

    return render_history(fed())


@pytest.fixture(params=["embedded", pytest.param("prometheus", marks=pytest.mark.servers)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    if request.param == "embedded":
        history = History(tmp_path / "history.db")
        import_openmetrics(history, lines(), *TARGET)
        yield EmbeddedSource(history)
        history.close()
        return
    file = tmp_path / "past.txt"
    file.write_text("\n".join(add_target_labels(lines())) + "\n")
    with prometheus(tmp_path, backfill=file) as server:
        asked = PrometheusSource(PrometheusClientConfig(server.url))
        yield asked
        asked.close()


def test_the_last_point_is_the_number_that_is_shown(source: Source) -> None:
    evaluation = evaluate(source, Settings(), START + LENGTH_SECONDS + 1.25)
    assert {each.kind for each in evaluation.recommendations} >= {"idle_reclaim", "cooling", "memory_saving"}
    shown = [each for advice in evaluation.recommendations for each in advice.evidence]
    curves = EvidenceHistory(source.range)
    for evidence in shown:
        [curve] = curves.of([evidence], up=True)
        assert curve is not None
        assert curve.why == ""
        assert len(curve.points) == POINTS + 1
        assert curve.points[-1] == pytest.approx(evidence.value, rel=1e-9, abs=1e-12), evidence.promql
        if curve.start + (evidence.window_seconds or 0) < START:
            assert curve.points[0] is None  # before there was data there is a gap, not a zero
