"""Other people's exporters in a real Prometheus: the same fleet through each mapping, and what can go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import nan

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.recommendation import FLEET, Check, CheckStatus, Reason
from gpu_advisor.evaluation.signals import (
    DAILY_PEAK_UTILIZATION,
    GPU_UP,
    IDLE_COVERAGE,
    IDLE_UTILIZATION,
    PROCESSES,
    UTILIZATION,
    UTILIZATION_COVERAGE,
)
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import metrics_of
from gpu_advisor.settings import Settings
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.servers import Prometheus, VictoriaMetrics, prometheus
from tests.unit.sources.expositions import (
    EXPOSITIONS,
    ExportedGpu,
    ExportedHost,
    Exposition,
    SampleLine,
    dcgm_exporter,
    gpu_exporter,
    node_exporter,
    nvitop_exporter,
    openmetrics_lines,
)

pytestmark = pytest.mark.servers

START = 1_795_000_000.0
MINUTES = 35
INTERVAL = 15
ODD = 'A "quoted"\nname \\ 🚀 $1'

CARDS = (
    ExportedGpu("GPU-0000", 0, utilization=0.95, used_mib=68_000),
    ExportedGpu("GPU-0001", 1, utilization=0.0, used_mib=70_000),
    ExportedGpu("GPU-0002", 2, utilization=0.5, used_mib=100),
    ExportedGpu("GPU-0003", 3, utilization=0.0, used_mib=500, name=ODD),
)
HOST = ExportedHost("node-1", "10.0.0.1", CARDS)


@dataclass(frozen=True)
class TargetHistory:
    """A target of one of the histories. `during` are seconds of the history in which it was scraped."""

    say: Exposition
    job: str
    host: ExportedHost = HOST
    port: int = 9400
    during: tuple[float, float] = (0, MINUTES * 60)


HISTORIES: dict[str, list[TargetHistory]] = {
    **{name: [TargetHistory(say, "gpus")] for name, say in EXPOSITIONS.items()},
    "both": [TargetHistory(gpu_exporter, "ours"), TargetHistory(dcgm_exporter, "dcgm", port=9401)],
    "compatible": [TargetHistory(lambda host, at: [*gpu_exporter(host, at), *dcgm_exporter(host, at)], "ours")],
    "halves": [
        TargetHistory(gpu_exporter, "ours", replace(HOST, cards=CARDS[:2])),
        TargetHistory(dcgm_exporter, "dcgm", ExportedHost("node-2", "10.0.0.2", CARDS[2:])),
    ],
    "foreign": [
        TargetHistory(gpu_exporter, "ours"),
        TargetHistory(
            lambda host, at: [SampleLine("gpu_memory_used_bytes", {"uuid": c.uuid}, 9e13) for c in CARDS], "monitor"
        ),
        TargetHistory(
            lambda host, at: [SampleLine("gpu_info", {"card": "0"}, 1), SampleLine("gpu_utilization", {}, 1)], "other"
        ),
    ],
    "untrue": [
        TargetHistory(
            dcgm_exporter,
            "dcgm",
            ExportedHost("node-1", "10.0.0.1", (
                replace(CARDS[0], utilization=2.5), replace(CARDS[1], utilization=-0.03),
                replace(CARDS[2], used_mib=9_223_372_036_854_775_794.0), replace(CARDS[3], utilization=nan),
            )),
        )
    ],
    "blind nvitop": [
        TargetHistory(nvitop_exporter, "nvitop", replace(HOST, cards=(replace(CARDS[0], utilization=nan),)))
    ],
    "young": [TargetHistory(dcgm_exporter, "dcgm", during=((MINUTES - 6) * 60, MINUTES * 60))],
    "returned": [  # everything was away for a while, as when Prometheus itself was down
        TargetHistory(dcgm_exporter, "dcgm", during=(0, 420)),
        TargetHistory(dcgm_exporter, "dcgm", during=(1500, MINUTES * 60)),
    ],
    "silent": [
        TargetHistory(dcgm_exporter, "dcgm", during=(0, MINUTES * 60 - 600)),
        TargetHistory(gpu_exporter, "x", ExportedHost("b", "b", ())),
    ],
    "recorded": [TargetHistory(gpu_exporter, "gpus")],
    "nothing": [TargetHistory(lambda host, at: [SampleLine("something_else", {}, 1)], "elsewhere")],
}  # fmt: skip


@dataclass(frozen=True)
class PrometheusHistories:
    source: PrometheusSource
    server: Prometheus

    def evaluated(self, history: str, settings: Settings | None = None) -> Evaluation:
        return evaluate(self.source, settings or Settings(), evaluation_time(history))


def begin(history: str) -> float:
    """Each history has its own two hours, so that one server holds them all."""
    return START + list(HISTORIES).index(history) * 2 * 3600


def evaluation_time(history: str) -> float:
    return begin(history) + MINUTES * 60 + 1.25


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusHistories]:
    folder = tmp_path_factory.mktemp("exporters")
    past = folder / "past.txt"
    past.write_text("".join([*reported(), *recorded(evaluation_time("recorded"))]) + "# EOF\n")
    with prometheus(folder, backfill=past) as server, prometheus_source(server) as source:
        yield PrometheusHistories(source, server)


@contextmanager
def prometheus_source(server: Prometheus) -> Iterator[PrometheusSource]:
    source = PrometheusSource(PrometheusClientConfig(server.url))
    yield source
    source.close()


def reported() -> Iterator[str]:
    for history, targets in HISTORIES.items():
        for second in range(0, MINUTES * 60 + 1, INTERVAL):
            at = begin(history) + second
            for target in targets:
                if target.during[0] <= second <= target.during[1]:
                    instance = f"{target.host.address}:{target.port}"
                    yield openmetrics_lines(target.say(target.host, second), target.job, instance, at)
                    yield openmetrics_lines(
                        node_exporter(target.host, second), "nodes", f"{target.host.address}:9100", at
                    )
                elif history == "silent":
                    yield f'up{{job="{target.job}",instance="{target.host.address}:{target.port}"}} 0 {at:.3f}\n'


def recorded(end: float) -> Iterator[str]:
    """A day of what the recording rules make."""
    for card in CARDS:
        labels = f'{{uuid="{card.uuid}"}}'
        for hour in reversed(range(25)):
            at = end - 600 - hour * 3600
            yield f"gpu:utilization_ratio:mean1h{labels} {card.utilization} {at:.3f}\n"
            yield f"gpu:utilization_coverage_ratio:mean1h{labels} 1 {at:.3f}\n"
        yield f"gpu:utilization_ratio:max1d{labels} 0.6 {end - 30:.3f}\n"


def check_statuses(checks: Iterable[Check]) -> dict[tuple[str, str], tuple[CheckStatus, float | None]]:
    return {(check.item, str(check.scope)): (check.status, check.value) for check in checks}


def near(value: float | None, rel: float = 1e-9) -> object:
    return None if value is None else pytest.approx(value, rel=rel, abs=1e-9)


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_the_same_fleet_gives_the_same_checks_through_each_mapping(histories: PrometheusHistories, name: str) -> None:
    ours, theirs = histories.evaluated("gpu-exporter"), histories.evaluated(name)
    assert [(gpu.uuid, gpu.index, gpu.name, gpu.node, gpu.up) for gpu in theirs.facts.gpus] == [
        (card.uuid, str(card.index), card.name, "node-1", True) for card in CARDS
    ]
    assert {gpu.exporter for gpu in theirs.facts.gpus} == {name}
    wanted, found = check_statuses(ours.checks), check_statuses(theirs.checks)
    assert {key: status for key, (status, _) in found.items()} == {key: status for key, (status, _) in wanted.items()}
    for key, (_, value) in wanted.items():
        assert found[key][1] == near(value, 1e-6), key
    assert CheckStatus.MET in {check.status for check in theirs.checks if check.item == "gpu_utilization"}
    assert len(theirs.recommendations) == len(ours.recommendations) > 0
    assert [each.gpus for each in theirs.recommendations] == [each.gpus for each in ours.recommendations]


@pytest.mark.parametrize("name", [*EXPOSITIONS, "halves"])
def test_evidence_pasted_gives_the_number_shown(histories: PrometheusHistories, name: str) -> None:
    evaluation = histories.evaluated(name)
    shown = [each for advice in evaluation.recommendations for each in advice.evidence]
    shown += [each for check in evaluation.checks for each in check.evidence]
    assert len(shown) > 10
    for evidence in shown:
        assert evidence.promql is not None
        [result] = histories.server.query(evidence.promql, time=START)
        assert float(result["value"][1]) == pytest.approx(evidence.value, rel=1e-9, abs=1e-12), evidence.promql


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_what_an_exporter_lacks_is_unsupported_and_not_guessed(histories: PrometheusHistories, name: str) -> None:
    facts = histories.evaluated(name).facts
    gpu = facts.gpus[0]
    assert facts.value(PROCESSES, gpu.uuid) is None
    if name in ("dcgm-exporter", "nvitop-exporter", "amd-device-metrics-exporter"):
        assert explain_missing(facts, PROCESSES, gpu.scope, gpu).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_a_gauge_gives_the_coverage_of_the_window(histories: PrometheusHistories, name: str) -> None:
    facts = histories.evaluated(name).facts
    for signal in (UTILIZATION_COVERAGE, IDLE_COVERAGE):
        for card in CARDS:
            assert facts.value(signal, card.uuid) == pytest.approx(1, abs=0.06)


def test_two_exporters_for_a_gpu_count_once_and_are_reported(histories: PrometheusHistories) -> None:
    both, ours = histories.evaluated("both"), histories.evaluated("gpu-exporter")
    assert [gpu.uuid for gpu in both.facts.gpus] == [card.uuid for card in CARDS]
    assert {gpu.exporter for gpu in both.facts.gpus} == {"gpu-exporter"}
    [duplicates] = [check for check in both.checks if check.item == "exporters"]
    assert (duplicates.scope, duplicates.status, duplicates.value) == (FLEET, CheckStatus.MISSED, 1.0)
    assert "4 GPUs" in duplicates.message
    assert "gpu-exporter" in duplicates.message
    assert "dcgm-exporter" in duplicates.message
    rest = {key: found for key, found in check_statuses(both.checks).items() if key[0] != "exporters"}
    assert rest.keys() == check_statuses(ours.checks).keys()
    for key, (status, value) in check_statuses(ours.checks).items():
        assert rest[key] == (status, near(value)), key
    assert [each.gpus for each in both.recommendations] == [each.gpus for each in ours.recommendations]


def test_our_exporter_under_dcgm_names_as_well_is_one_exporter(histories: PrometheusHistories) -> None:
    facts = histories.evaluated("compatible").facts
    assert facts.exporters_of_duplicates == {}
    assert {gpu.exporter for gpu in facts.gpus} == {"gpu-exporter"}


def test_a_fleet_of_two_kinds_is_one_fleet(histories: PrometheusHistories) -> None:
    evaluation = histories.evaluated("halves")
    exporters = [gpu.exporter for gpu in evaluation.facts.gpus]
    assert exporters == ["gpu-exporter", "gpu-exporter", "dcgm-exporter", "dcgm-exporter"]
    utilization = evaluation.facts.values[UTILIZATION.name]
    assert utilization == pytest.approx({card.uuid: card.utilization for card in CARDS}, rel=1e-6, abs=1e-12)


def test_other_programs_series_of_the_same_names_are_left_alone(histories: PrometheusHistories) -> None:
    ours, foreign = histories.evaluated("gpu-exporter"), histories.evaluated("foreign")
    assert foreign.facts.gpus == ours.facts.gpus
    assert check_statuses(foreign.checks) == {
        key: (status, near(value)) for key, (status, value) in check_statuses(ours.checks).items()
    }


def test_readings_that_cannot_be_true_are_not_used_and_reported(histories: PrometheusHistories) -> None:
    evaluation = histories.evaluated("untrue")
    results = {(check.item, check.scope.name): check for check in evaluation.checks if check.scope.kind == "gpu"}
    assert results["gpu_utilization", "GPU-0003"].status is CheckStatus.UNKNOWN
    stores_nan = not isinstance(histories.server, VictoriaMetrics)
    for uuid in ("GPU-0000", "GPU-0001", *(["GPU-0003"] if stores_nan else [])):
        check = results["gpu_utilization", uuid]
        assert (check.status, check.reason) == (CheckStatus.UNKNOWN, Reason.CONFLICTING), check
        assert "dcgm-exporter" in check.message
    assert "250 %" in results["gpu_utilization", "GPU-0000"].message
    assert results["gpu_memory", "GPU-0002"].reason is Reason.CONFLICTING
    assert results["gpu_utilization", "GPU-0002"].status is CheckStatus.MISSED
    assert results["gpu_memory", "GPU-0000"].status is CheckStatus.MET
    assert not [each for each in evaluation.recommendations if set(each.gpus) & {"GPU-0001", "GPU-0003"}]
    if not stores_nan:
        return
    nvitop = histories.evaluated("blind nvitop")
    [check] = [check for check in nvitop.checks if check.item == "gpu_utilization" and check.scope.kind == "gpu"]
    assert (check.reason, "nvitop-exporter reports nan" in check.message) == (Reason.CONFLICTING, True)


@pytest.mark.parametrize(("history", "seen"), [("young", 0.2), ("returned", 0.41)])
def test_unobserved_time_is_not_idle(histories: PrometheusHistories, history: str, seen: float) -> None:
    """Two GPUs did nothing in all samples that there are: of a window with a gap, that is not enough."""
    evaluation = histories.evaluated(history)
    assert evaluation.facts.value(IDLE_COVERAGE, "GPU-0001") == pytest.approx(seen, abs=0.03)
    assert evaluation.facts.value(UTILIZATION_COVERAGE, "GPU-0001") == pytest.approx(1, abs=0.06)
    assert [each for each in evaluation.recommendations if each.kind == "idle_reclaim"] == []
    assert Reason.INSUFFICIENT_HISTORY in {each.reason for each in evaluation.abstentions}


def test_gpus_of_a_silent_exporter_are_known_and_stale(histories: PrometheusHistories) -> None:
    evaluation = histories.evaluated("silent")
    assert {gpu.uuid: gpu.up for gpu in evaluation.facts.gpus} == dict.fromkeys((card.uuid for card in CARDS), None)
    assert evaluation.facts.value(GPU_UP, "GPU-0000") is None
    assert Reason.STALE in {check.reason for check in evaluation.checks if check.scope.kind == "gpu"}
    assert evaluation.recommendations == ()


def test_where_no_mapping_matches_it_is_reported(histories: PrometheusHistories) -> None:
    evaluation = histories.evaluated("nothing")
    assert (evaluation.facts.gpus, evaluation.recommendations) == ((), ())
    assert evaluation.abstentions[0].subject == "gpus"


def test_long_windows_are_read_from_recorded_series_where_they_are(histories: PrometheusHistories) -> None:
    settings = Settings.model_validate({"evaluation": {"idle_window_seconds": 24 * 3600}})
    evaluation = histories.evaluated("recorded", settings)
    facts = evaluation.facts
    expression = facts.expressions[IDLE_UTILIZATION.name]
    assert metrics_of(expression) == {"gpu:utilization_ratio:mean1h"}
    assert facts.value(IDLE_UTILIZATION, "GPU-0002") == pytest.approx(0.5)
    assert facts.value(IDLE_COVERAGE, "GPU-0002") == pytest.approx(1, abs=0.05)
    assert facts.value(DAILY_PEAK_UTILIZATION, "GPU-0002") == pytest.approx(0.6)
    idle = [each for each in evaluation.recommendations if each.kind == "idle_reclaim"]
    assert {gpu for each in idle for gpu in each.gpus} == {"GPU-0001"}  # the other pool keeps its one
    for advice in idle:
        for evidence in advice.evidence:
            assert evidence.promql is not None
            [result] = histories.server.query(evidence.promql, time=START)
            assert float(result["value"][1]) == pytest.approx(evidence.value, rel=1e-9, abs=1e-12), evidence.promql
    assert "increase(" in to_promql(
        histories.evaluated("recorded").facts.expressions[IDLE_UTILIZATION.name]
    )  # a short one


@pytest.mark.parametrize("history", HISTORIES)
def test_the_number_of_queries(histories: PrometheusHistories, history: str) -> None:
    evaluation = histories.evaluated(history)
    assert evaluation.queries <= 25
