"""The same history through a real Prometheus and through the embedded source gives the same answer, and each evidence
query, pasted into that Prometheus, gives the number that was shown."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Evidence
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_exporter.devices.simulated import MODELS, SCENARIOS, generate_history
from gpu_exporter.exposition import render_history
from gpu_exporter.metrics import FamilySamples, MetricFamily
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.embedded import embedded_source
from tests.servers import Prometheus, VictoriaMetrics, prometheus

pytestmark = pytest.mark.servers

START = 1_795_000_000.0
LENGTH_SECONDS = 40 * 60
TARGET = {"instance": "127.0.0.1:9816", "job": "gpu-exporter"}

UP = MetricFamily("up", "gauge", "scraped", tuple(TARGET))
CPU = MetricFamily("node_cpu_seconds_total", "counter", "cpu", ("cpu", "mode"))
IO = MetricFamily("node_pressure_io_waiting_seconds_total", "counter", "io")
UNAME = MetricFamily("node_uname_info", "gauge", "uname", ("nodename",))

SETTINGS = Settings(
    pools=[
        PoolSettings(name="serving", kind="serving", match={"name": ".*(A100|V100).*"}),
        PoolSettings(name="training", kind="training", match={"name": ".*H100.*"}),
    ]
)

Points = list[tuple[float, list[FamilySamples]]]


def fleets() -> st.SearchStrategy[str]:
    group = st.tuples(st.integers(1, 3), st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(SCENARIOS)))
    return st.lists(group, min_size=1, max_size=3).map(lambda found: ",".join(f"{n}x{m}:{s}" for n, m, s in found))


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, int]:
    """A fleet's text, and the seed of what befalls its history."""
    return draw(fleets()), draw(st.integers(0, 10**6))


def with_faults(fleet: str, seed: int, start: float) -> Iterator[tuple[float, list[FamilySamples]]]:
    """The fleet's past with a host beside it, in which scrapes are missed, one GPU vanishes and counters restart."""
    rng = random.Random(seed)
    gap_from = start + rng.uniform(-600, LENGTH_SECONDS)
    gap_to = gap_from + rng.choice([0, 40, 400, 3000])
    reset_at = start + rng.uniform(0, 3 * LENGTH_SECONDS)
    silent_index = rng.choice(["0", "1", "none"])
    silent_from = start + rng.uniform(0, 2 * LENGTH_SECONDS)
    idle, step = rng.uniform(0, 1), rng.choice([5, 15, 30])
    for at, samples in generate_history(fleet, seed, "node-1", start, start + LENGTH_SECONDS, step):
        if gap_from <= at < gap_to or rng.random() < 0.02:
            continue
        info = next((each for each in samples if each.family.name == "gpu_info"), None)
        gone = {row[0][0] for row in info.rows if row[0][1] == silent_index and at > silent_from} if info else set()
        busy = at - start
        host = [
            FamilySamples(CPU, ((("0", "idle"), busy * idle), (("0", "user"), busy * (1 - idle)))),
            FamilySamples(IO, (((), busy * idle * 0.2),)),
            FamilySamples(UNAME, ((("node-1",), 1.0),)),
            FamilySamples(UP, ((tuple(TARGET.values()), 1.0),)),
        ]
        jittered = at + rng.uniform(-0.4, 0.4)
        yield jittered, [*(_inject_faults(each, gone, at > reset_at) for each in samples), *host]


def _inject_faults(samples: FamilySamples, gone: set[str], was_reset: bool) -> FamilySamples:
    rows = tuple(
        (labels, value * 1e-3 if was_reset and samples.family.type == "counter" else value)
        for labels, value in samples.rows
        if not (labels and labels[0] in gone)
    )
    return FamilySamples(samples.family, rows)


def add_target_labels(lines: Iterator[str]) -> Iterator[str]:
    """What a scrape adds; `up` has them already."""
    extra = ",".join(f'{name}="{value}"' for name, value in TARGET.items())
    for line in lines:
        if line.startswith(("#", "up{")):
            yield line
        elif "{" in line.split(" ", 1)[0]:
            yield line.replace("{", "{" + extra + ",", 1)
        else:
            name, rest = line.split(" ", 1)
            yield f"{name}{{{extra}}} {rest}"


def conclusions(evaluation: Evaluation) -> dict[str, object]:
    """All that was concluded, without the floating-point tails of values."""
    return {
        "advice": [
            (a.id("c"), a.kind, a.scope, a.current, a.recommended, a.diagnosis, a.confidence, a.summary, a.gpus)
            for a in evaluation.recommendations
        ],
        "abstentions": evaluation.abstentions,
        "checks": [(c.item, c.scope, c.status, c.reason, c.message) for c in evaluation.checks],
        "pools": [(p.pool, p.usage.capacity, p.usage.allocated) for p in evaluation.pools],
        "desired": evaluation.desired_replicas,
    }


def values(evaluation: Evaluation) -> dict[tuple[str, str], float]:
    return {(name, key): value for name, found in evaluation.facts.values.items() for key, value in found.items()}


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.generate],  # an example costs seconds, and shrinking it would cost minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(found=st.lists(histories(), min_size=12, max_size=12, unique=True))
def test_both_sources_give_the_same_recommendations(
    found: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each history has its own two hours, so that one server holds them all."""
    folder = tmp_path_factory.mktemp("histories")
    whole = [
        point
        for index, (fleet, seed) in enumerate(found)
        for point in with_faults(fleet, seed, START + index * 2 * 3600)
    ]
    with both_sources(folder, whole) as (server, embedded):
        source = PrometheusSource(PrometheusClientConfig(server.url))
        kinds = set()
        for index in range(len(found)):
            for after in (LENGTH_SECONDS - 700, LENGTH_SECONDS, LENGTH_SECONDS + 200):
                at = round(START + index * 2 * 3600 + after + 0.123, 3)
                ours, theirs = evaluate(embedded, SETTINGS, at), evaluate(source, SETTINGS, at)
                assert conclusions(ours) == conclusions(theirs), found[index]
                assert values(ours) == pytest.approx(values(theirs), rel=tolerance(server)), found[index]
                kinds |= {advice.kind for advice in ours.recommendations}
                kinds |= {each.reason.value for each in ours.abstentions}
        assert len(kinds) >= 2  # such a batch of histories leads to advice and to abstentions of several kinds
        source.close()


def test_pasted_evidence_gives_the_same_numbers(tmp_path: Path) -> None:
    fleet = "3xH100-80GB:idle-hoarder,2xA100-80GB:saturated-serving,2xL4-24GB:idle,1xT4-16GB:data-bound"
    whole = list(without_faults(fleet))
    at = START + LENGTH_SECONDS + 1.5
    with both_sources(tmp_path, whole) as (server, embedded):
        evaluation = evaluate(embedded, SETTINGS, at)
        assert {advice.kind for advice in evaluation.recommendations} >= {"idle_reclaim", "scale_up"}
        shown = [each for advice in evaluation.recommendations for each in advice.evidence]
        shown += [each for check in evaluation.checks for each in check.evidence]
        assert len(shown) > 20
        for evidence in shown:
            shown_value = pytest.approx(evidence.value, rel=tolerance(server), abs=1e-12)
            assert query_evidence(server, evidence) == shown_value, evidence.promql


def without_faults(fleet: str) -> Iterator[tuple[float, list[FamilySamples]]]:
    for at, samples in generate_history(fleet, 0, "node-1", START, START + LENGTH_SECONDS, 15):
        host = [
            FamilySamples(CPU, ((("0", "idle"), at * 0.25), (("0", "user"), at * 0.75))),
            FamilySamples(IO, (((), at * 0.01),)),
            FamilySamples(UNAME, ((("node-1",), 1.0),)),
            FamilySamples(UP, ((tuple(TARGET.values()), 1.0),)),
        ]
        yield at, [*samples, *host]


def query_evidence(server: Prometheus, evidence: Evidence) -> float:
    """What a person gets who pastes the query, in the server's language, at whatever time that is."""
    source = PrometheusSource(PrometheusClientConfig(server.url))
    promql = replace(evidence, language=source.query_language()).promql
    source.close()
    assert promql is not None
    [result] = server.query(promql, time=START)
    return float(result["value"][1])


def tolerance(server: Prometheus) -> float:
    """VictoriaMetrics rounds what it stores."""
    return 1e-6 if isinstance(server, VictoriaMetrics) else 1e-9


@contextmanager
def both_sources(folder: Path, history: Points) -> Iterator[tuple[Prometheus, EmbeddedSource]]:
    """The same samples in a real Prometheus and in an embedded history."""
    file = folder / "past.txt"
    file.write_text("\n".join(add_target_labels(render_history(history))) + "\n")
    store = History(folder / "history.db")
    with file.open() as lines:
        import_openmetrics(store, lines, TARGET["instance"], TARGET["job"])
    with prometheus(folder, backfill=file) as server:
        yield server, embedded_source(store, server)
    store.close()


def test_the_target_labels_are_as_a_scrape_adds_them() -> None:
    assert list(add_target_labels(iter(['a{b="c"} 1 2', "d 1 2", 'up{instance="x",job="y"} 1 2']))) == [
        'a{instance="127.0.0.1:9816",job="gpu-exporter",b="c"} 1 2',
        'd{instance="127.0.0.1:9816",job="gpu-exporter"} 1 2',
        'up{instance="x",job="y"} 1 2',
    ]
