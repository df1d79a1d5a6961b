"""The serving advice on a real vLLM: what it says of two limits, and whether its projections come true.

A server's speed here depends on what else the machine does: it should do little. So the same requests are answered
before and after a change in turns, in short blocks of which the best counts. Throughput is tokens by second on the
wall, as clients see it, and only the ratio of the two is compared. The ratio by the engine's CPU time is recorded next
to it: its threads spin while they wait for each other, which makes it the noisier one on a quiet machine.
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
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from benchmarks.common import write
from tests.servers import Prometheus, prometheus, require_binary
from tests.vllm.server import Vllm, ask_all, clients, version, vllm

#: vLLM's environment, which run.sh makes.
ENVIRONMENT = os.environ.get("GPU_ADVISOR_VLLM", "")

pytestmark = [pytest.mark.servers, pytest.mark.skipif(not ENVIRONMENT, reason="needs a real vLLM: make test-vllm")]

#: Advice takes two of them.
WINDOW_SECONDS = 30
CLIENTS, PROMPT_TOKENS, ANSWER_TOKENS = 32, 100, 64

#: Requests of a block: whole batches of both servers, whose sequences are equally long. And blocks of a round.
REQUESTS, BLOCKS = 16, 4

#: Rounds of load before and after a change; the projection has to hold in HELD of them.
ROUNDS, HELD = 10, 8

#: The widest projection that says something.
MAX_WIDTH_RATIO = 0.4

SETTINGS = Settings(evaluation=EvaluationSettings(window_seconds=WINDOW_SECONDS))


@dataclass(frozen=True)
class Throughput:
    """Tokens per second of the engine's CPU time, and of the time on the wall."""

    cpu: float
    wall: float


@dataclass
class ServedModel:
    """A vLLM that a Prometheus scrapes every second."""

    server: Vllm
    store: Prometheus

    def evaluate(self) -> Evaluation:
        return evaluate(PrometheusSource(PrometheusClientConfig(self.store.url)), SETTINGS, time.time())

    def throughput(self) -> Throughput:
        """Of one block of requests, with more clients than run at a time."""
        begin, used = time.monotonic(), self.server.engine_seconds()
        ask_all(self.server, REQUESTS, CLIENTS, PROMPT_TOKENS, ANSWER_TOKENS)
        tokens = REQUESTS * ANSWER_TOKENS
        return Throughput(tokens / (self.server.engine_seconds() - used), tokens / (time.monotonic() - begin))


def measure_round(before: ServedModel, after: ServedModel) -> tuple[Throughput, Throughput]:
    """Blocks in turns. What else the machine does only ever adds time: the best of each counts."""
    blocks = [(before.throughput(), after.throughput()) for _ in range(BLOCKS)]
    old, new = zip(*blocks, strict=True)
    return _best(old), _best(new)


def _best(blocks: Sequence[Throughput]) -> Throughput:
    return Throughput(max(each.cpu for each in blocks), max(each.wall for each in blocks))


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[ServedModel]:
    require_binary("prometheus")  # before minutes of starting a vLLM
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
        for each in found.evidence:  # pasted into Prometheus; a scrape under way at the evaluation may add a sample
            assert each.promql is not None
            (row,) = before.store.query(each.promql)
            assert float(row["value"][1]) == pytest.approx(each.value, rel=0.1), each.promql
        with served(tmp_path, "--max-num-seqs", str(int(found.recommended))) as after:
            for model in (before, after):
                model.throughput()  # warms up
            rounds = [measure_round(before, after) for _ in range(ROUNDS)]
    ratios = [new.wall / old.wall for old, new in rounds]
    held = sum(low <= each <= high for each in ratios)
    result = {
        "recommended": found.recommended,
        "projected": [low, high],
        "measured": [round(each, 3) for each in ratios],
        "measured_cpu": [round(new.cpu / old.cpu, 3) for old, new in rounds],
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
