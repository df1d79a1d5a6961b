"""Sizes of pools from a real Prometheus: trails added up there, demand signals, and what a broken one takes with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_advisor.backtest.recorded_demand import find_serving_pool, read_recorded_demand
from gpu_advisor.backtest.trace import TraceError
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.servers import Prometheus, prometheus

pytestmark = pytest.mark.servers

START = 1_795_000_020.0
HOURS = 2
STEP = 15
END = START + HOURS * 3600

#: node -> (GPUs, their utilization)
FLEET = {"chat": (4, 1.0), "mail": (4, 0.95), "night": (12, 0.2), "train": (4, 1.0)}


def history() -> Iterator[str]:
    """Four nodes' GPUs, and what a server and a scheduler say beside them."""
    times = [START + STEP * i for i in range(HOURS * 3600 // STEP + 1)]
    gpus = [(node, index, share) for node, (count, share) in FLEET.items() for index in range(count)]
    yield from _family("up", "gauge", ((f'instance="{node}:1",job="gpu"', 1.0, 0.0) for node in FLEET), times)
    named = [(f'instance="{node}:1",job="gpu",uuid="GPU-{node}-{index}"', node, index) for node, index, _ in gpus]
    info = [f'{key},index="{index}",name="H100",vendor="nvidia",nodename="{node}"' for key, node, index in named]
    yield from _family("gpu_info", "gauge", ((each, 1.0, 0.0) for each in info), times)
    yield from _family("gpu_up", "gauge", ((key, 1.0, 0.0) for key, _, _ in named), times)
    shares = [share for _, _, share in gpus]
    busy = ((key, 0.0, share) for (key, _, _), share in zip(named, shares, strict=True))
    yield from _family("gpu_busy_seconds_total", "counter", busy, times)
    yield from _family("gpu_observed_seconds_total", "counter", ((key, 0.0, 1.0) for key, _, _ in named), times)
    for name, value in (("vllm:num_requests_running", 64.0), ("vllm:num_requests_waiting", 128.0)):
        replicas = ((f'instance="vllm-{i}:1",job="vllm"', value / 4, 0.0) for i in range(4))
        yield from _family(name, "gauge", replicas, times)
    queue = [('instance="login:9816",scheduler="slurm",partition="gpu"', 1.0, 0.0)]
    yield from _family("gpu_queue_eligible_jobs", "gauge", queue, times)
    yield "# EOF"


def _family(name: str, kind: str, rows: Iterator[tuple[str, float, float]] | list[tuple[str, float, float]],
            times: list[float]) -> Iterator[str]:  # fmt: skip
    """Each row is its labels, its value at the start, and its growth a second."""
    yield f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}"
    for labels, value, growth in rows:
        for at in times:
            yield f"{name}{{{labels}}} {value + growth * (at - START):.6f} {at:.3f}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("scale")
    file = folder / "past.txt"
    file.write_text("\n".join(history()) + "\n")
    with prometheus(folder, backfill=file) as running:
        yield running


@pytest.fixture
def source(server: Prometheus) -> Iterator[PrometheusSource]:
    made = PrometheusSource(PrometheusClientConfig(server.url))
    yield made
    made.close()


def settings(**demand: object) -> Settings:
    """One pool a node, with the demand signals that are given by pool."""
    kinds = {"train": {"kind": "training", "tensor_parallel": 2}}
    pools = [
        {"name": name, "match": {"node": name}, "gpu": {"min": 1, "max": 32}, "kind": "serving", **kinds.get(name, {})}
        | ({"demand": demand[name]} if name in demand else {})
        for name in FLEET
    ]
    return Settings.model_validate({"pools": pools})


def advice(found: Evaluation) -> dict[str, float]:
    return {each.scope.name: each.recommended for each in found.recommendations if each.kind.startswith("scale")}


def summaries(found: Evaluation) -> dict[tuple[str, str], Reason]:
    subjects = {"scale", "demand"}
    return {(w.scope.name, w.subject): w.reason for w in found.abstentions if w.subject in subjects}


AT = END - 20


def test_sizes_from_what_prometheus_adds_up(server: Prometheus, source: PrometheusSource) -> None:
    found = evaluate(source, settings(), AT)
    assert advice(found) == {"chat": 5, "mail": 5, "night": 3}
    assert summaries(found) == {("chat", "demand"): Reason.SATURATED}
    for each in (each for word in found.recommendations for each in word.evidence):
        assert each.promql is not None
        [result] = server.query(each.promql, time=START)
        assert float(result["value"][1]) == pytest.approx(each.value, rel=1e-6)


def test_presets_size_in_one_step_and_gangs_grow_for_what_waits(server: Prometheus, source: PrometheusSource) -> None:
    chosen = settings(chat={"preset": "vllm", "per_replica": 16}, train={"preset": "slurm", "per_replica": 1})
    found = evaluate(source, chosen, AT)
    assert advice(found) == {"chat": 15, "mail": 5, "night": 3, "train": 3}  # 192 requests; a gang more for one job
    assert not summaries(found)
    [demand] = [
        e for w in found.recommendations if w.scope.name == "chat" for e in w.evidence if e.signal == "pool_demand"
    ]
    [result] = server.query(demand.promql or "", time=START)
    assert float(result["value"][1]) == demand.value == 192


@pytest.mark.parametrize(
    ("query", "reason", "reported"),
    [
        ("sum(", Reason.CONFLICTING, "rejected a query"),
        ("vllm:num_requests_running", Reason.CONFLICTING, "wrap it in sum()"),
        ("sum(nothing_like_this)", Reason.NO_DATA, "check that its target is scraped"),
        ("-sum(vllm:num_requests_running)", Reason.CONFLICTING, "negative"),
    ],
)
def test_a_broken_signal_is_reported_and_takes_nothing_with_it(
    source: PrometheusSource, query: str, reason: Reason, reported: str
) -> None:
    found = evaluate(source, settings(mail={"query": query, "per_replica": 1}), AT)
    assert advice(found) == {"chat": 5, "mail": 5, "night": 3}
    assert summaries(found)["mail", "demand"] is reason
    [message] = [w.message for w in found.abstentions if (w.scope.name, w.subject) == ("mail", "demand")]
    assert reported in message
    assert query in message
    assert "mail" in message


def test_a_restart_changes_nothing(server: Prometheus, source: PrometheusSource) -> None:
    other = PrometheusSource(PrometheusClientConfig(server.url))
    for at in (AT, AT - 7, AT - 600):
        assert evaluate(source, settings(), at).recommendations == evaluate(other, settings(), at).recommendations
    other.close()


def test_what_was_recorded_can_be_replayed(source: PrometheusSource) -> None:
    chosen = settings()
    trace = read_recorded_demand(source, chosen, find_serving_pool(chosen, "mail"), 3600, 60, AT)
    assert len(trace.demand) == 60
    assert trace.demand == pytest.approx([3.8] * 60)
    with pytest.raises(TraceError, match="chat, mail, night"):
        find_serving_pool(chosen, "train")
    with pytest.raises(TraceError, match="no data of pool mail"):
        read_recorded_demand(source, chosen, find_serving_pool(chosen, "mail"), 600, 60, START - 86400)


def test_the_embedded_source_says_that_it_has_no_promql(tmp_path: Path) -> None:
    from gpu_advisor.observation.demand import read_demand_signals
    from gpu_advisor.sources.embedded.history import History
    from gpu_advisor.sources.embedded.source import EmbeddedSource

    chosen = settings(chat={"preset": "vllm", "per_replica": 16})
    store = History(tmp_path / "history.db")
    found = read_demand_signals(EmbeddedSource(store), chosen.pools, AT, chosen.evaluation)
    store.close()
    assert found["chat"].reason is Reason.UNSUPPORTED
