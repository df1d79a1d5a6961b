"""The serving advice on a real vLLM: what it says of two limits, and whether its projections come true.

A server's speed here depends on what else the machine does, so loads before and after a change run in turns, and only
their ratio is compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources.prometheus.source import PrometheusClientConfig, PrometheusSource

from benchmarks.common import write
from tests.servers import Prometheus, prometheus
from tests.vllm.server import Vllm, clients, version, vllm

#: vLLM's environment, which run.sh makes.
ENVIRONMENT = os.environ.get("GPU_ADVISOR_VLLM", "")

pytestmark = [pytest.mark.servers, pytest.mark.skipif(not ENVIRONMENT, reason="needs a real vLLM: make test-vllm")]

#: Advice takes two of them.
WINDOW_SECONDS = 30
CLIENTS, PROMPT_TOKENS, ANSWER_TOKENS = 32, 100, 64

#: Rounds of load before and after a change; the projection has to hold in HELD of them.
ROUNDS, HELD = 10, 8

#: The widest projection that says something.
MAX_WIDTH_RATIO = 0.4

SETTINGS = Settings(evaluation=EvaluationSettings(window_seconds=WINDOW_SECONDS))


@dataclass
class ServedModel:
    """A vLLM that a Prometheus scrapes every second."""

    server: Vllm
    store: Prometheus

    def evaluate(self) -> Evaluation:
        return evaluate(PrometheusSource(PrometheusClientConfig(self.store.url)), SETTINGS, time.time())

    def tokens(self) -> float:
        """Tokens generated so far."""
        samples = self.store.query(f'vllm:generation_tokens_total{{instance="{self.server.address}"}}')
        return float(samples[0]["value"][1])

    def tokens_per_second(self, seconds: float) -> float:
        """Throughput under load, once the clients are in step."""
        with clients(self.server, CLIENTS, PROMPT_TOKENS, ANSWER_TOKENS):
            time.sleep(3)
            begin, tokens = time.monotonic(), self.tokens()
            time.sleep(seconds)
            return (self.tokens() - tokens) / (time.monotonic() - begin)


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[ServedModel]:
    with (
        vllm(Path(ENVIRONMENT), folder, arguments) as server,
        prometheus(folder, scrape={"vllm": [server.address]}) as store,
    ):
        yield ServedModel(server, store)


def advice_under_load(model: ServedModel, answer_tokens: int = ANSWER_TOKENS) -> list[Recommendation]:
    with clients(model.server, CLIENTS, PROMPT_TOKENS, answer_tokens):
        time.sleep(2 * WINDOW_SECONDS + 5)
        return list(model.evaluate().recommendations)


def only(advice: Sequence[Recommendation], cause: str) -> Recommendation:
    found = [each for each in advice if each.diagnosis == cause]
    assert len(found) == 1, [(each.diagnosis, each.summary) for each in advice]
    return found[0]


def test_a_small_batch_limit_is_named_and_the_projection_comes_true(tmp_path: Path) -> None:
    with served(tmp_path, "--max-num-seqs", "4") as before:
        found = only(advice_under_load(before), "batch_limit_bound")
        assert (found.current, found.unit) == (4, "requests at a time")
        assert 4 < found.recommended <= 8
        flags = {name: value for action in found.actions for name, value in action.parameters.items()}
        assert flags.get("--max-num-seqs") == found.recommended
        low, high = found.projection.intervals["throughput_ratio"]
        for evidence in found.evidence:  # what is pasted into Prometheus gives the number
            assert evidence.value is not None
        with served(tmp_path, "--max-num-seqs", str(int(found.recommended))) as after:
            ratios = []
            for _ in range(ROUNDS):
                old = before.tokens_per_second(6)
                ratios.append(after.tokens_per_second(6) / old)
    held = sum(low <= each <= high for each in ratios)
    result = {
        "recommended": found.recommended,
        "projected": [low, high],
        "measured": [round(each, 3) for each in ratios],
        "held": held,
    }
    write("vllm", {"vllm": version(Path(ENVIRONMENT)), "throughput_ratio": result}, Path(ENVIRONMENT))
    assert (high - low) / (high + low) <= MAX_WIDTH_RATIO, result
    assert held >= HELD, result


def test_a_small_cache_is_named(tmp_path: Path) -> None:
    """16 blocks of 128 tokens: room for four sequences of 500 tokens."""
    with served(tmp_path, "--max-num-seqs", "16", "--num-gpu-blocks-override", "16") as model:
        advice = advice_under_load(model, answer_tokens=400)
    found = only(advice, "kv_cache_bound")
    assert "batch_limit_bound" not in {each.diagnosis for each in advice}
    assert any("preempt" in each.about for each in found.evidence)


def test_a_server_with_room_gets_no_advice_on_its_limits(tmp_path: Path) -> None:
    with served(tmp_path, "--max-num-seqs", "64") as model, clients(model.server, 4, PROMPT_TOKENS, ANSWER_TOKENS):
        time.sleep(2 * WINDOW_SECONDS + 5)
        advice = model.evaluate().recommendations
    assert not {each.diagnosis for each in advice} & {"batch_limit_bound", "kv_cache_bound"}
