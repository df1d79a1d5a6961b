"""Each simulated workload, as the exporter reports it, is recognized by a whole evaluation; near-misses are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_exporter.devices.simulated import SCENARIOS, generate_history, parse_fleet
from gpu_exporter.exposition import render_history
from gpu_exporter.metrics import FamilySamples, MetricFamily

from tests.contradictions import contradictions
from tests.embedded import embedded_source
from tests.integration.test_source_equivalence import add_target_labels, query_evidence
from tests.servers import prometheus

START = 1_795_000_000.0
LENGTH_SECONDS = 40 * 60
AT = START + LENGTH_SECONDS + 1.0
TARGET = ("127.0.0.1:9816", "gpu-exporter")  # as test_same_answer has it

UP = MetricFamily("up", "gauge", "scraped", ("instance", "job"))
UNAME = MetricFamily("node_uname_info", "gauge", "uname", ("nodename",))
DAY_PEAK = MetricFamily("gpu:utilization_ratio:max1d", "gauge", "as the recording rules make it", ("uuid",))

#: What each workload leads to on H100s. Nothing where it is in order, or only looks like trouble.
EXPECTED: Mapping[str, set[str]] = {
    "training": set(),
    "idle": {"idle_reclaim"},
    "idle-hoarder": {"idle_reclaim"},
    "small-batch": {"batch_size"},
    "data-bound": {"data_loading"},
    "saturated-serving": set(),
    "throttled": {"cooling"},
    "lost": {"lost_gpu"},
    "memory-bound": {"memory_saving"},
    "memory-full": {"memory_saving"},
    "communication-bound": {"communication"},
    "busy-but-empty": {"profiling"},
    "hung-collective": {"profiling"},
    "straggler": {"straggler"},
    "held-up": set(),
    "power-limited": {"power_limit"},
    "power-capped": set(),
    "hot": set(),
    "single-precision": {"mixed_precision"},
    "small-service": {"smaller_gpu"},
    "failing": {"failing_gpu"},
}

#: GPUs of each: in a job in lock step, enough to find the slow one.
COUNTS = {"held-up": 7, "training": 6}


def fleet() -> str:
    return ",".join(f"{COUNTS.get(name, 2 if name != 'straggler' else 1)}xH100-80GB:{name}" for name in SCENARIOS)


def settings() -> Settings:
    gpus = parse_fleet(fleet())
    serving = [gpu.identity.uuid for gpu in gpus if "serv" in gpu.scenario.about or "requests" in gpu.scenario.about]
    return Settings.model_validate(
        {
            "resources": {"gpu": {"min": 0, "max": 64}},
            "pools": [
                {"name": "serving", "kind": "serving", "match": {"uuid": "|".join(serving)}},
                {"name": "training", "kind": "training"},
            ],
        }
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    found = History(tmp_path_factory.mktemp("scenarios") / "history.db")
    import_openmetrics(found, iter(list(render_history(_past()))), *TARGET)
    yield found
    found.close()


@pytest.fixture(scope="module")
def evaluation(history: History) -> Evaluation:
    return evaluate(EmbeddedSource(history), settings(), AT)


def _past() -> Iterator[tuple[float, list[FamilySamples]]]:
    peaks = tuple(((gpu.identity.uuid,), min(1.0, gpu.scenario.busy_ratio * 1.1)) for gpu in parse_fleet(fleet()))
    for at, samples in generate_history(fleet(), 0, "node-1", START, START + LENGTH_SECONDS, 15):
        host = [
            FamilySamples(UNAME, ((("node-1",), 1.0),)),
            FamilySamples(UP, ((TARGET, 1.0),)),
            FamilySamples(DAY_PEAK, peaks),
        ]
        yield at, [*samples, *host]


def test_all_recommendations_can_be_followed_together(evaluation: Evaluation) -> None:
    assert contradictions(evaluation.recommendations, evaluation.facts) == []


def test_there_is_an_expectation_for_each_scenario() -> None:
    assert EXPECTED.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("scenario", EXPECTED)
def test_a_scenario_is_recognized(scenario: str, evaluation: Evaluation) -> None:
    uuids = {gpu.identity.uuid for gpu in parse_fleet(fleet()) if gpu.scenario is SCENARIOS[scenario]}
    reported = [each for each in evaluation.recommendations if uuids & set(each.gpus)]
    advice = [
        each for each in reported if each.kind not in ("scale_up", "scale_down")
    ]  # how many replicas is another test
    assert {each.kind for each in advice} == EXPECTED[scenario], [each.summary for each in advice]
    for each in advice:
        assert all(shown.promql and shown.value is not None for shown in each.evidence)
        if each.kind not in ("idle_reclaim",):
            assert set(each.gpus) <= uuids, "advice on others' GPUs"


@pytest.mark.servers
def test_the_evidence_of_each_cause_is_what_prometheus_answers(tmp_path: Path, history: History) -> None:
    """Pasted into a real Prometheus that holds the same history, each query gives the number that is shown."""
    file = tmp_path / "past.txt"
    file.write_text("\n".join(add_target_labels(render_history(_past()))) + "\n")
    with prometheus(tmp_path, backfill=file) as server:
        evaluation = evaluate(embedded_source(history, server), settings(), AT)
        shown = [each for advice in evaluation.recommendations for each in advice.evidence]
        assert {advice.kind for advice in evaluation.recommendations} >= set().union(*EXPECTED.values())
        for evidence in shown:
            assert query_evidence(server, evidence) == pytest.approx(evidence.value, rel=1e-9, abs=1e-9), (
                evidence.promql
            )
