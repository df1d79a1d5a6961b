"""Servers of disaggregated serving are judged apart; servers whose metrics nobody reads are named."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.serving.facts import CurvePoint, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.groups import serving_groups
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.exporters.serving.mapping import UNMAPPED_SERVERS

from tests.serving_pages import START, history_of, scraped
from tests.unit.serving.test_advice import AT, CALM

PREFILL = {**CALM, "output_tokens": 1.0, "running": 2.0}
IDLE = {name: value for name, value in CALM.items() if name not in ("output_tokens", "itl_mean")} | {"running": 0.0}
POINTS = tuple(CurvePoint(n, 100 * n, 0.02, 0.0) for n in (1.0, 2.0, 3.0))


def groups(*values: Mapping[str, float]) -> dict[str, int]:
    replicas = tuple(ServingReplica("vllm", "j", f"h{n}:8000", "m", values=each) for n, each in enumerate(values))
    facts = ServingFacts(replicas, histories={GroupKey("vllm", "m"): POINTS})
    return {each.name: len(each.replicas) if each.points else -len(each.replicas) for each in serving_groups(facts, AT)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((CALM, CALM), {"m": 2}),
        ((PREFILL, PREFILL, CALM), {"m": -1, "m (prefill)": -2}),  # their mean curve is of neither
        ((PREFILL, CALM, IDLE), {"m": -2, "m (prefill)": -1}),
        ((PREFILL, PREFILL), {"m": 2}),  # all answer in one token: a model that scores
        ((PREFILL, IDLE), {"m": 2}),
    ],
)
def test_servers_that_compute_prompts_for_others_are_a_group(
    values: tuple[Mapping[str, float], ...], expected: dict[str, int]
) -> None:
    assert groups(*values) == expected


def test_the_role_outlasts_a_window_without_requests() -> None:
    replicas = (
        ServingReplica("vllm", "j", "h0:8000", "m", values=IDLE, before=PREFILL),
        ServingReplica("vllm", "j", "h1:8000", "m", values=CALM, before=CALM),
    )
    assert {each.name for each in serving_groups(ServingFacts(replicas), AT)} == {"m", "m (prefill)"}


@pytest.mark.parametrize(("metric", "title"), UNMAPPED_SERVERS.items())
def test_a_server_without_a_mapping_is_named(metric: str, title: str, tmp_path: Path) -> None:
    lines = list(scraped(f'{metric}{{model_name="m"}} 1', START, {"job": "j", "instance": "h:8082"}))
    with closing(history_of(lines, tmp_path)) as history:
        found = evaluate(EmbeddedSource(history), Settings(), START)
    (message,) = (each.message for each in found.checks if each.item == "unread_servers")
    assert message.startswith(f"{title} publishes {metric}, which no mapping reads")


@pytest.mark.parametrize(
    ("owner", "served", "expected"),
    [
        (GpuOwner("ns", "ollama-0", "ollama"), (), "1 GPU belongs to an inference server (ollama) without metrics: it"),
        (GpuOwner("ns", "chat-0", "vllm"), (), "1 GPU belongs to an inference server (vllm) without metrics: let"),
        (
            GpuOwner("ns", "c-0", "sglang"),
            (),
            "1 GPU belongs to an inference server (sglang) without metrics: start it with --enable-metrics",
        ),
        (
            GpuOwner("ns", "c-0", "torchserve"),
            (),
            "1 GPU belongs to an inference server (torchserve) without metrics: let Prometheus scrape its metrics",
        ),
        (GpuOwner("ns", "chat-0", "vllm"), ("GPU-1",), None),
        (GpuOwner("ns", "train-0", "torch"), (), None),
    ],
)
def test_gpus_of_a_server_whose_metrics_are_missing(
    owner: GpuOwner, served: tuple[str, ...], expected: str | None
) -> None:
    replicas = (ServingReplica("vllm", "j", "h:8000", "m", values=CALM, gpus=served),) if served else ()
    gpus = (Gpu("GPU-1", "0", "NVIDIA H100", "nvidia", "n", True),)
    facts = Facts(
        AT, gpus, (), {}, {}, EvaluationSettings(), owners={"GPU-1": (owner,)}, serving=ServingFacts(replicas)
    )
    found = [each.message for each in decide(facts, Settings()).checks if each.item == "unread_servers"]
    assert [message[: len(expected or "")] for message in found] == ([expected] if expected else [])


def test_a_server_without_known_gpus_may_have_them() -> None:
    replica = ServingReplica("vllm", "j", "h:8000", "m", values=CALM)
    gpus = (Gpu("GPU-1", "0", "NVIDIA H100", "nvidia", "n", True),)
    owners = {"GPU-1": (GpuOwner("ns", "vllm-0", "vllm"),)}
    facts = Facts(AT, gpus, (), {}, {}, EvaluationSettings(), owners=owners, serving=ServingFacts((replica,)))
    assert not [each for each in decide(facts, Settings()).checks if each.item == "unread_servers"]
