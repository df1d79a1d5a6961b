"""The simulated inference server obeys conservation and the laws of queues; the rules are judged by it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from benchmarks.serving.causes import causes_of
from benchmarks.serving.draw import CLASSES
from benchmarks.serving.server_model import GPUS, MODELS, Settings
from benchmarks.serving.simulator import Replica, Request
from benchmarks.serving.situation import Load, Situation, run

BASE = Situation("a", GPUS[0], MODELS[0], Settings(64, 2048, 200_000), Load(2.0, 500, 150), ttft=1.0, itl=0.05, seed=3)


def drain(settings: Settings, requests: list[Request]) -> Replica:
    replica = Replica(replace(BASE, settings=settings).cost, settings)
    for request in requests:
        replica.advance(request.arrival)
        replica.submit(request)
    replica.advance(1e6)
    return replica


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("kv_tokens", [3_000, 200_000])
@pytest.mark.parametrize("seed", range(4))
def test_every_request_gets_its_tokens_and_nothing_stays(seed: int, kv_tokens: int, chunked: bool) -> None:
    draw = random.Random(seed)
    requests = [
        Request(draw.uniform(0, 10), draw.randint(1, 900), draw.randint(1, 300), draw.randrange(3), 5)
        for _ in range(60)
    ]
    requests.sort(key=lambda each: each.arrival)
    settings = Settings(16, 512, kv_tokens, chunked_prefill=chunked, prefix_cache=bool(seed % 2))
    replica = drain(settings, requests)
    assert (replica.outstanding, replica.kv) == (0, 0)
    assert [each.generated for each in requests] == [each.output for each in requests]
    assert all(each.arrival <= each.scheduled < each.first_token <= each.finish for each in requests)
    assert replica.counters["generation_tokens"] == replica.counters["request_generation_tokens"]
    assert replica.counters["generation_tokens"] >= sum(each.output for each in requests)
    assert sum(replica.ttft.counts) == len(requests)
    assert (replica.counters["num_preemptions"] > 0) == (kv_tokens == 3_000)


def test_steps_taken_at_once_take_as_long_as_one_by_one() -> None:
    settings = Settings(8, 512, 100_000)
    together, apart = (Replica(BASE.cost, settings) for _ in range(2))
    for replica in (together, apart):
        for size in (200, 90, 300):
            replica.submit(Request(0.0, size, size))
    together.advance(100.0)
    at = 0.0
    while at < 100.0:
        at += 0.001
        apart.advance(at)
    assert together.counters == apart.counters
    assert math.isclose(together.itl.sum, apart.itl.sum, rel_tol=1e-9)


def test_littles_law() -> None:
    found = run(BASE)
    times = [each.finish - each.arrival for each in found.requests if not math.isnan(each.finish)]
    seconds = sum(times) / len(times)
    running = [each.values["num_requests_running"] for each in found.samples[0]]
    assert sum(running) / len(running) == pytest.approx(found.offered * seconds, rel=0.25)


def test_a_run_repeats_and_its_metrics_only_grow() -> None:
    first, second = run(BASE), run(BASE)
    assert first.samples == second.samples
    for before, after in zip(first.samples[0], first.samples[0][1:], strict=False):
        for name in before.values:
            assert name.startswith(("num_requests", "kv_")) or after.values[name] >= before.values[name]


@pytest.mark.parametrize("name", ["healthy", "batch_limit_bound", "kv_cache_bound", "under_batched", "wrong_gpu"])
def test_classes_have_their_cause(name: str) -> None:
    found = causes_of(CLASSES[name](1001))
    assert name in found if name != "healthy" else found == frozenset()


def test_a_relaxed_limit_never_lowers_the_goodput_of_a_limited_server() -> None:
    tight = replace(BASE, settings=replace(BASE.settings, max_num_seqs=4))
    goodput = [run(replace(tight, settings=replace(tight.settings, max_num_seqs=n))).goodput for n in (2, 4, 8, 16)]
    assert goodput == sorted(goodput)
    assert goodput[-1] > 2 * goodput[0] + 0.1
