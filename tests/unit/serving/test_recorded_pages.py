"""Pages and loads of a real vLLM 0.32.0 (CPU build, a tiny model), recorded once.

A page was recorded after a load, taken as 150 s, and is replayed as a window that begins at zero. Its gauges are at
rest: while the load ran, by Little's law, as many requests ran as they took seconds in all per second of the load, and
as many waited as they queued. The page has both sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.serving.diagnosis import diagnose_group
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, make_group
from gpu_advisor.evaluation.serving.signals import SERVING_SIGNALS
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource

from tests.serving_pages import START, history_of, scraped

PAGES = Path(__file__).with_name("pages")
LOAD_SECONDS, STEP_SECONDS, STEPS = 150.0, 15, 40
MODEL = 'engine="0",model_name="tiny"'
#: Limits and request times that vLLM does not publish, and a batch of its own sort.
NOT_PUBLISHED = {"max_num_seqs", "max_num_batched_tokens", "batch", "request_seconds"}


def samples_of(page: str) -> dict[str, float]:
    lines = (PAGES / page).read_text("utf-8").splitlines()
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}


def gauges(page: Mapping[str, float], kv_usage: float) -> dict[str, float]:
    def in_progress(name: str) -> float:
        return page[f"vllm:request_{name}_time_seconds_sum{{{MODEL}}}"] / LOAD_SECONDS

    return {
        f"vllm:num_requests_running{{{MODEL}}}": in_progress("inference"),
        f"vllm:num_requests_waiting{{{MODEL}}}": in_progress("queue"),
        f"vllm:kv_cache_usage_perc{{{MODEL}}}": kv_usage,
    }


def replayed(
    page: Mapping[str, float], under_load: Mapping[str, float], folder: Path, settings: Settings | None = None
) -> Evaluation:
    """The page's load, again and again for two windows."""

    def lines() -> Iterator[str]:
        for step in range(STEPS + 1):
            loads = step * STEP_SECONDS / LOAD_SECONDS
            fixed = ("vllm:cache_config_info", "vllm:engine_sleep_state")
            now = {
                series: under_load.get(series, value if series.startswith(fixed) else value * loads)
                for series, value in page.items()
            }
            text = "\n".join(f"{series} {value!r}" for series, value in now.items())
            yield from scraped(text, START + step * STEP_SECONDS, {"job": "vllm", "instance": "h:8000"})

    with closing(history_of(lines(), folder)) as history:
        return evaluate(EmbeddedSource(history), settings or Settings(), START + STEPS * STEP_SECONDS)


@pytest.mark.parametrize("name", ["vllm-0.32.0.txt", "vllm-0.32.0-small-cache.txt"])
def test_each_signal_that_vllm_publishes_is_on_its_page(name: str, tmp_path: Path) -> None:
    page = samples_of(name)
    (replica,) = replayed(page, gauges(page, 0.5), tmp_path).facts.serving.replicas
    missing = {each.name for each in SERVING_SIGNALS if replica.value(each.name) is None}
    assert missing == NOT_PUBLISHED | {"prefix_query_rate", "prefix_hit_rate"} - replica.values.keys()
    assert {"running", "ttft_p95", "request_itl_p95", "kv_tokens"} <= replica.values.keys()

    def total(metric: str) -> float:
        return sum(value for series, value in page.items() if series.startswith(f"vllm:{metric}{{"))

    assert replica.value("generation_token_rate") == pytest.approx(total("generation_tokens_total") / LOAD_SECONDS)
    assert replica.value("request_rate") == pytest.approx(total("request_success_total") / LOAD_SECONDS)
    assert replica.value("preemption_rate") == pytest.approx(total("num_preemptions_total") / LOAD_SECONDS)
    assert replica.value("itl_mean") == pytest.approx(
        total("inter_token_latency_seconds_sum") / total("inter_token_latency_seconds_count")
    )
    assert replica.value("prompt_tokens") == pytest.approx(
        total("request_prompt_tokens_sum") / total("request_prompt_tokens_count")
    )


def test_a_server_whose_cache_is_small_is_found_bound_by_it(tmp_path: Path) -> None:
    """16 blocks of 128 tokens, and sequences of 500."""
    page = samples_of("vllm-0.32.0-small-cache.txt")
    found = replayed(page, gauges(page, 1.0), tmp_path)
    assert {each.diagnosis for each in found.recommendations} == {"kv_cache_bound"}
    assert found.facts.serving.replicas[0].value("kv_tokens") == 2048


def test_the_same_server_with_room_is_not(tmp_path: Path) -> None:
    page = samples_of("vllm-0.32.0.txt")
    found = replayed(page, gauges(page, 0.2), tmp_path)
    assert "kv_cache_bound" not in {each.diagnosis for each in found.recommendations}


def test_first_tokens_that_wait_for_a_place_are_not_waiting_for_prompts(tmp_path: Path) -> None:
    """Of the page's first tokens, 95 % of the time is in the queue of a server at its limit, 5 % is their prompts'."""
    page = samples_of("vllm-0.32.0.txt")
    pool = {"name": "tiny", "kind": "serving", "slo": {"ttft_p95": "500ms", "itl_p95": "50ms"}}
    found = replayed(page, gauges(page, 0.2), tmp_path, Settings.model_validate({"pools": [pool]}))
    assert {each.diagnosis for each in found.recommendations} == {"batch_limit_bound"}


#: Of servers with --max-num-seqs 16, 4 and 64, and with 16 blocks of KV cache: clients, requests running (mean, most)
#: and waiting, KV cache used (mean, most), preemptions in 8 s, requests finished, and the causes of that setting.
LOADS: tuple[tuple[str, int, float, float, float, float, float, float, int, set[str]], ...] = (
    ("16", 1, 1, 1, 0, 0.0005, 0.0005, 0, 11, set()),
    ("16", 4, 4, 4, 0, 0.0017, 0.002, 0, 36, set()),
    ("16", 16, 16, 16, 0, 0.0061, 0.0078, 0, 96, set()),
    ("16", 32, 16, 16, 16, 0.0067, 0.0078, 0, 160, {"batch_limit_bound"}),
    ("16 blocks", 1, 1, 1, 0, 0.1917, 0.2667, 0, 6, set()),
    ("16 blocks", 8, 4.875, 6, 3.125, 0.9583, 1, 21.68, 21, {"kv_cache_bound"}),
    ("16 blocks", 16, 4.625, 5, 11.38, 0.95, 1, 49.14, 36, {"kv_cache_bound"}),
    ("16 blocks", 64, 5.125, 7, 58.88, 0.95, 1, 41.14, 82, {"kv_cache_bound"}),
    ("4", 1, 1, 1, 0, 0.0004, 0.0005, 0, 18, set()),
    ("4", 4, 4, 4, 0, 0.002, 0.002, 0, 64, set()),
    ("4", 16, 4, 4, 12, 0.002, 0.002, 0, 64, {"batch_limit_bound"}),
    ("4", 64, 4, 4, 60, 0.0017, 0.002, 0, 96, {"batch_limit_bound"}),
    ("64", 16, 14.57, 16, 0, 0.0058, 0.0078, 0, 176, set()),
    ("64", 64, 64, 64, 0, 0.0268, 0.0313, 0, 256, set()),
)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load[0]}, {load[1]} clients")
def test_each_recorded_load_has_the_cause_of_its_setting(
    load: tuple[str, int, float, float, float, float, float, float, int, set[str]],
) -> None:
    _, _, running, most, waiting, used, used_most, preempted, finished, causes = load
    values = {
        "running": running, "running_max": most, "running_p50": round(running), "waiting": waiting,
        "waiting_now": waiting, "kv_usage": used, "kv_usage_max": used_most, "preemption_rate": preempted / 8,
        "request_rate": finished / 8, "samples": 20.0,
    }  # fmt: skip
    replica = ServingReplica("vllm", "j", "h:8000", "tiny", values=values, before=values)
    found = diagnose_group(make_group([replica], (), START, 300.0), Objectives())
    assert {each.name for each in found.causes} == causes
