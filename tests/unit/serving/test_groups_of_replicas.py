"""What a group of replicas is: its cluster, namespace, kind of server and model, under whatever names labels have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.serving.facts import GroupKey, ServingFacts
from gpu_advisor.evaluation.serving.groups import serving_groups
from gpu_advisor.observation.serving import read_serving
from gpu_advisor.observation.serving_day import ServingDayCache
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.embedded.source import EmbeddedSource

from tests.serving_pages import START, history_of, scraped

STEP_SECONDS, SECONDS = 15, 900
END = START + SECONDS


@dataclass(frozen=True)
class Server:
    """A page with so many tokens per second and requests running; `own` are labels of all its series, `target` those
    that the scrape adds."""

    tokens: float
    running: float
    target: Mapping[str, str]
    own: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        labels = ",".join(f'{name}="{value}"' for name, value in self.own.items())
        for second in range(0, SECONDS + 1, STEP_SECONDS):
            page = [
                f"vllm:num_requests_running{{{labels}}} {self.running}",
                f"vllm:num_requests_waiting{{{labels}}} 0",
                f"vllm:generation_tokens_total{{{labels}}} {self.tokens * second}",
                f"vllm:prompt_tokens_total{{{labels}}} {second}",
                f"vllm:inter_token_latency_seconds_sum{{{labels}}} {self.tokens * second * 0.02}",
                f"vllm:inter_token_latency_seconds_count{{{labels}}} {self.tokens * second}",
            ]
            yield from scraped("\n".join(page), START + second, self.target)


def server(number: int, tokens: float, model: str = "m", engine: str = "0", **target: str) -> Server:
    return Server(
        tokens, tokens / 50, {"job": "vllm", "instance": f"h{number}:8000", **target},
        {"model_name": model, "engine": engine},
    )  # fmt: skip


def read(servers: Sequence[Server], folder: Path, day: ServingDayCache | None = None) -> ServingFacts:
    folder.mkdir(exist_ok=True)
    with closing(history_of((line for each in servers for line in each.lines()), folder)) as history:
        facts = Facts(END, (), (), {}, {}, EvaluationSettings())
        return read_serving(EmbeddedSource(history), facts, END, (), "cluster", day)


def last_tokens(found: ServingFacts) -> dict[str, tuple[float, float]]:
    """Of each group: the tokens per second of its last step, and how many replicas report."""
    return {
        group.name: (round(group.demand[-1].tokens_per_second, 3), group.demand[-1].replicas)
        for group in serving_groups(found, END)
    }


def alone(servers: Iterable[Server], folder: Path) -> dict[str, tuple[float, float]]:
    """The same, of servers that are the only ones."""
    return last_tokens(read(list(servers), folder))


PLACES = [
    {"cluster": cluster, "namespace": namespace} for cluster in ("east", "west") for namespace in ("chat", "batch")
]


@pytest.mark.parametrize("day", [None, ServingDayCache()])
def test_a_group_has_the_same_history_whatever_others_serve(day: ServingDayCache | None, tmp_path: Path) -> None:
    """Two models in two namespaces of two clusters, with one to three replicas each."""
    places = [(place, model) for place in PLACES for model in ("m", "org/m:adapter")]
    groups = [
        [server(10 * number + each, 100.0 * (number + 1), model, **place) for each in range(1 + number % 3)]
        for number, (place, model) in enumerate(places)
    ]
    together = read([each for members in groups for each in members], tmp_path / "all", day)
    expected: dict[str, tuple[float, float]] = {}
    for number, members in enumerate(groups):
        expected |= alone(members, tmp_path / str(number))
    assert last_tokens(together) == expected
    assert len(expected) == len(places) == len(together.histories)
    assert all(group.points for group in serving_groups(together, END))


#: How the series of one scrape of two servers differ from those of the other.
COPIES: Mapping[str, Mapping[str, str]] = {
    "by two jobs": {"job": "annotations"},
    "by two Prometheus servers": {"prometheus_replica": "prometheus-1"},
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_server_that_is_scraped_twice_counts_once(copy: str, tmp_path: Path) -> None:
    own = {"prometheus_replica": "prometheus-0"} if "prometheus_replica" in COPIES[copy] else {}
    servers = [server(n, 100.0, namespace="ns", pod=f"p{n}", **own) for n in (0, 1)]
    again = [
        replace(each, target={**each.target, **{k: v.format(**each.target) for k, v in COPIES[copy].items()}})
        for each in servers
    ]
    found = read([*servers, *again], tmp_path / "both")
    assert last_tokens(found) == alone(servers, tmp_path / "one") == {"ns/m": (200.0, 2.0)}
    assert [round(each.values["generation_token_rate"]) for each in found.replicas] == [100, 100]


def test_servers_on_several_ports_of_a_pod_are_several(tmp_path: Path) -> None:
    """One for each data-parallel rank."""
    ranks = [server(0, 100.0, namespace="ns", pod="p0", instance=f"10.0.0.1:{port}") for port in (8000, 8001)]
    found = read(ranks, tmp_path)
    assert [each.instance for each in found.replicas] == ["10.0.0.1:8000", "10.0.0.1:8001"]
    assert last_tokens(found) == {"ns/m": (200.0, 2.0)}


def test_a_server_stored_under_both_spellings_is_one(tmp_path: Path) -> None:
    colons = server(0, 100.0, namespace="ns", pod="p0")
    lines = [*colons.lines(), *(line.replace("vllm:", "vllm_") for line in colons.lines())]
    with closing(history_of(lines, tmp_path)) as history:
        facts = Facts(END, (), (), {}, {}, EvaluationSettings())
        found = read_serving(EmbeddedSource(history), facts, END, (), "cluster")
    assert len(found.replicas) == 1
    assert last_tokens(found) == {"ns/m": (100.0, 1.0)}


#: How the same two servers, of two engines each, may be stored: labels of the target, and of the page.
STORED: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "plain": ({"instance": "{pod}:8000", "namespace": "ns", "pod": "{pod}"}, {"engine": "{engine}"}),
    "an older chart's names": (
        {"instance": "{pod}:8000", "kubernetes_namespace": "ns", "kubernetes_pod_name": "{pod}"},
        {"engine": "{engine}"},
    ),
    "a pod label hides the engine": (
        {"instance": "{pod}:8000", "namespace": "ns", "pod": "{pod}", "engine": "vllm"},
        {"exported_engine": "{engine}"},
    ),
    "a pod label hides the model": (
        {"instance": "{pod}:8000", "namespace": "ns", "pod": "{pod}", "model_name": "x"},
        {"engine": "{engine}", "exported_model_name": "m"},
    ),
    "federated": (
        {"instance": "prometheus:9090"},
        {"engine": "{engine}", "exported_job": "vllm", "exported_instance": "{pod}:8000", "namespace": "ns",
         "pod": "{pod}"},
    ),
    "an OpenTelemetry collector": (
        {"instance": "collector:8889", "namespace": "monitoring", "pod": "collector-0"},
        {"engine": "{engine}", "exported_job": "vllm", "exported_instance": "{pod}:8000", "k8s_namespace_name": "ns",
         "k8s_pod_name": "{pod}"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stored", STORED)
def test_labels_under_other_names_are_the_same_servers(stored: str, tmp_path: Path) -> None:
    target, own = STORED[stored]
    servers = []
    for pod, engine, tokens in (("a", "0", 100.0), ("a", "1", 200.0), ("b", "0", 300.0), ("b", "1", 400.0)):

        def filled(labels: Mapping[str, str], pod: str = pod, engine: str = engine) -> dict[str, str]:
            return {name: value.format(pod=pod, engine=engine) for name, value in labels.items()}

        page = {"model_name": "m", **filled(own)}
        if "exported_model_name" in page:
            del page["model_name"]
        servers.append(Server(tokens, 1.0, {"job": "pods", **filled(target)}, page))
    found = read(servers, tmp_path)
    assert [
        (each.namespace, each.pod, each.instance, each.model, each.engine, round(each.values["generation_token_rate"]))
        for each in found.replicas
    ] == [
        ("ns", pod, f"{pod}:8000", "m", engine, tokens)
        for pod, engine, tokens in (("a", "0", 100), ("a", "1", 200), ("b", "0", 300), ("b", "1", 400))
    ]
    assert last_tokens(found) == {"ns/m": (1000.0, 4.0)}
    assert found.demand.keys() == {GroupKey("vllm", "m", "", "ns")}
    for each in found.replicas:  # what selects one engine selects no other
        assert {"instance", "job"} <= dict(each.series_labels).keys()
    assert len({each.series_labels for each in found.replicas}) == len(found.replicas)


def test_unusual_labels_are_in_queries_only_where_they_are_in_use(tmp_path: Path) -> None:
    found = read([server(0, 100.0, namespace="ns")], tmp_path)
    text = to_promql(found.expressions["vllm"]["running"])
    assert "exported" not in text
    assert "k8s" not in text
