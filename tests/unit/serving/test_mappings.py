"""Each server's page as it is documented, and the signals worked out by hand: two scrapes, a minute apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.serving.facts import ServingFacts, ServingReplica
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.observation.serving import read_serving
from gpu_advisor.observation.serving_day import ServingDayCache
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Expression, Labels, Matcher, TimeSeries, Vector
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.exporters.serving.mapping import UNDERSCORED, ServerMapping, server_mappings

from tests.serving_pages import START, history_of, scraped

#: The interval of scrapes, and how many there are: two windows.
STEP_SECONDS, STEPS = 15, 40


@dataclass(frozen=True)
class Page:
    """Samples at the end of a window: gauges as they are, and by how much counters grow per second."""

    server: str
    gauges: Mapping[str, float]
    rates: Mapping[str, float]
    expected: Mapping[str, float]


PAGES = (
    Page(
        "vllm",
        {
            'vllm:num_requests_running{engine="0",model_name="m"}': 12,
            'vllm:num_requests_waiting{engine="0",model_name="m"}': 3,
            'vllm:kv_cache_usage_perc{engine="0",model_name="m"}': 0.5,
            'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"}': 1,
        },
        {
            'vllm:num_preemptions_total{engine="0",model_name="m"}': 0.2,
            'vllm:generation_tokens_total{engine="0",model_name="m"}': 600,
            'vllm:prompt_tokens_total{engine="0",model_name="m"}': 1200,
            'vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"}': 2,
            'vllm:request_success_total{engine="0",finished_reason="length",model_name="m"}': 1,
            'vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"}': 12,
            'vllm:inter_token_latency_seconds_count{engine="0",model_name="m"}': 600,
            'vllm:request_prefill_time_seconds_bucket{engine="0",le="1.0",model_name="m"}': 2,
            'vllm:request_prefill_time_seconds_bucket{engine="0",le="+Inf",model_name="m"}': 2,
            'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="m"}': 1.5,
            'vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="m"}': 3,
            'vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"}': 3,
        },
        {
            "running": 12, "waiting": 3, "kv_usage": 0.5, "kv_tokens": 16_000, "preemption_rate": 0.2,
            "generation_token_rate": 600, "prompt_token_rate": 1200, "request_rate": 3, "itl_mean": 0.02,
            "ttft_p50": 0.5, "ttft_p90": 0.9, "running_p50": 12,
        },
    ),
    Page(
        "vllm",  # the names of 0.4 to 0.8
        {'vllm:num_requests_running{model_name="m"}': 2, 'vllm:gpu_cache_usage_perc{model_name="m"}': 0.25},
        {
            'vllm:time_per_output_token_seconds_sum{model_name="m"}': 4,
            'vllm:time_per_output_token_seconds_count{model_name="m"}': 100,
            'vllm:gpu_prefix_cache_hits_total{model_name="m"}': 5,
        },
        {"running": 2, "kv_usage": 0.25, "itl_mean": 0.04, "prefix_hit_rate": 5},
    ),
    Page(
        "sglang",
        {
            'sglang:num_running_reqs{model_name="m",tp_rank="0"}': 7,
            'sglang:num_running_reqs{model_name="m",tp_rank="1"}': 7,
            'sglang:num_queue_reqs{model_name="m",tp_rank="0"}': 4,
            'sglang:token_usage{model_name="m",tp_rank="0"}': 0.9,
            'sglang:max_total_num_tokens{model_name="m"}': 50_000,
        },
        {
            'sglang:num_retracted_requests_total{model_name="m"}': 0.5,
            'sglang:generation_tokens_total{model_name="m"}': 300,
            'sglang:cached_tokens_total{model_name="m"}': 40,
            'sglang:prompt_tokens_total{model_name="m"}': 400,
        },
        {
            "running": 7, "waiting": 4, "kv_usage": 0.9, "kv_tokens": 50_000, "preemption_rate": 0.5,
            "generation_token_rate": 300, "prefix_hit_rate": 40, "prefix_query_rate": 400,
        },
    ),
    Page(
        "sglang",  # data-parallel ranks, each of two tensor-parallel ranks that all publish; tokens are the server's
        {
            f'sglang:{name}{{dp_rank="{dp}",engine_type="unified",model_name="m",tp_rank="{2 * dp + tp}"}}': value
            for name, values in (
                ("num_running_reqs", (7, 3)), ("num_queue_reqs", (4, 0)), ("token_usage", (0.9, 0.4)),
                ("max_total_num_tokens", (50_000, 50_000)),
            )
            for dp, value in enumerate(values)
            for tp in (0, 1)
        },
        {
            'sglang:num_retracted_requests_total{dp_rank="0",model_name="m",tp_rank="0"}': 0.5,
            'sglang:num_retracted_requests_total{dp_rank="0",model_name="m",tp_rank="1"}': 0.5,
            'sglang:num_retracted_requests_total{dp_rank="1",model_name="m",tp_rank="2"}': 0.25,
            'sglang:generation_tokens_total{model_name="m"}': 300,
            'sglang:time_to_first_token_seconds_bucket{le="1.0",model_name="m"}': 4,
            'sglang:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"}': 4,
        },
        {
            "running": 10, "running_max": 10, "waiting": 4, "waiting_now": 4, "kv_usage": 0.9, "kv_tokens": 100_000,
            "preemption_rate": 0.75, "generation_token_rate": 300, "ttft_p50": 0.5,
        },
    ),
    Page(
        "tgi",
        {"tgi_batch_current_size": 5, "tgi_queue_size": 6},
        {
            "tgi_request_success": 2, "tgi_request_generated_tokens_sum": 100,
            "tgi_request_generated_tokens_count": 2, "tgi_request_queue_duration_sum": 3,
            "tgi_request_queue_duration_count": 2,
        },
        {"running": 5, "waiting": 6, "request_rate": 2, "generation_token_rate": 100, "output_tokens": 50,
         "queue_seconds": 1.5},
    ),
    Page(
        "triton",
        {
            'nv_inference_pending_request_count{model="m",version="1"}': 9,
            'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"}': 8,
            'nv_trt_llm_request_metrics{model="m",request_type="max",version="1"}': 64,
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"}': 0.75,
        },
        {
            'nv_inference_request_success{model="m",version="1"}': 4,
            'nv_inference_count{model="m",version="1"}': 40,
            'nv_inference_exec_count{model="m",version="1"}': 5,
            'nv_inference_queue_duration_us{model="m",version="1"}': 2_000_000,
        },
        {"waiting": 9, "running": 8, "max_num_seqs": 64, "kv_usage": 0.75, "batch": 8, "queue_seconds": 0.5},
    ),
    Page(
        "triton",  # in-flight batching of TensorRT-LLM has a queue of its own
        {
            'nv_inference_pending_request_count{model="m",version="1"}': 0,
            'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"}': 5,
            'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"}': 8,
        },
        {'nv_inference_request_success{gpu_uuid="GPU-1",model="m",version="1"}': 1,
         'nv_inference_request_success{gpu_uuid="GPU-2",model="m",version="1"}': 2},
        {"waiting": 5, "running": 8, "request_rate": 3},
    ),
    Page(
        "trtllm-serve",
        {'trtllm_num_requests_running{model_name="m"}': 3, 'trtllm_num_requests_waiting{model_name="m"}': 1,
         'trtllm_kv_cache_utilization{model_name="m"}': 0.1},
        {
            'trtllm_request_success_total{finished_reason="stop",model_name="m"}': 1,
            'trtllm_generation_tokens_total{model_name="m"}': 100,
            'trtllm_time_per_output_token_seconds_sum{model_name="m"}': 0.02,
            'trtllm_time_per_output_token_seconds_count{model_name="m"}': 1,
            'trtllm_time_to_first_token_seconds_bucket{le="0.5",model_name="m"}': 1,
            'trtllm_time_to_first_token_seconds_bucket{le="+Inf",model_name="m"}': 1,
        },
        {"running": 3, "waiting": 1, "kv_usage": 0.1, "request_rate": 1, "generation_token_rate": 100,
         "itl_mean": 0.02, "ttft_p50": 0.25},
    ),
    Page(
        "vllm-ray",  # one agent for all replicas of a node
        {
            f'ray_vllm:{name}{{ReplicaId="r1",WorkerId="w1",engine="0",model_name="m"}}': value
            for name, value in (("num_requests_running", 12), ("num_requests_waiting", 3), ("kv_cache_usage_perc", 0.5))
        },
        {
            'ray_vllm:generation_tokens_total{ReplicaId="r1",WorkerId="w1",engine="0",model_name="m"}': 600,
            'ray_vllm:num_preemptions_total{ReplicaId="r1",WorkerId="w1",engine="0",model_name="m"}': 0.2,
            'ray_vllm:inter_token_latency_seconds_sum{ReplicaId="r1",WorkerId="w1",engine="0",model_name="m"}': 12,
            'ray_vllm:inter_token_latency_seconds_count{ReplicaId="r1",WorkerId="w1",engine="0",model_name="m"}': 600,
        },
        {"running": 12, "waiting": 3, "kv_usage": 0.5, "generation_token_rate": 600, "preemption_rate": 0.2,
         "itl_mean": 0.02},
    ),
    Page(
        "nim",
        {'num_requests_running{model_name="m"}': 5, 'num_requests_waiting{model_name="m"}': 2,
         'num_request_max{model_name="m"}': 256, 'gpu_cache_usage_perc{model_name="m"}': 0.3},
        {
            'request_success_total{model_name="m"}': 2,
            'generation_tokens_total{model_name="m"}': 250,
            'time_per_output_token_seconds_sum{model_name="m"}': 5,
            'time_per_output_token_seconds_count{model_name="m"}': 250,
        },
        {"running": 5, "waiting": 2, "max_num_seqs": 256, "kv_usage": 0.3, "request_rate": 2,
         "generation_token_rate": 250, "itl_mean": 0.02},
    ),
    Page(
        "lmdeploy",
        {'lmdeploy:num_requests_running{engine="0",model_name="m"}': 6,
         'lmdeploy:num_requests_waiting{engine="0",model_name="m"}': 1,
         'lmdeploy:gpu_cache_usage_perc{engine="0",model_name="m"}': 0.8},
        {
            'lmdeploy:request_success_total{engine="0",finished_reason="length",model_name="m"}': 1,
            'lmdeploy:request_success_total{engine="0",finished_reason="stop",model_name="m"}': 2,
            'lmdeploy:iter_token_latency_sum{engine="0",model_name="m"}': 9,
            'lmdeploy:iter_token_latency_count{engine="0",model_name="m"}': 300,
            'lmdeploy:request_queue_time_seconds_sum{engine="0",model_name="m"}': 3,
            'lmdeploy:request_queue_time_seconds_count{engine="0",model_name="m"}': 3,
        },
        {"running": 6, "waiting": 1, "kv_usage": 0.8, "request_rate": 3, "itl_mean": 0.03, "queue_seconds": 1},
    ),
    Page(
        "llama-cpp",
        {"llamacpp:requests_processing": 4, "llamacpp:requests_deferred": 9, "llamacpp:kv_cache_usage_ratio": 0.6},
        {"llamacpp:prompt_tokens_total": 50, "llamacpp:tokens_predicted_total": 80,
         "llamacpp:tokens_predicted_seconds_total": 4},
        {"running": 4, "waiting": 9, "kv_usage": 0.6, "prompt_token_rate": 50, "generation_token_rate": 80,
         "itl_mean": 0.05},
    ),
    Page(
        "tei",
        {"te_queue_size": 40},
        {"te_request_success": 20, "te_request_queue_duration_sum": 4, "te_request_queue_duration_count": 20,
         "te_request_duration_sum": 5, "te_request_duration_count": 20, "te_batch_next_size_sum": 20,
         "te_batch_next_size_count": 5},
        {"waiting": 40, "request_rate": 20, "queue_seconds": 0.2, "request_seconds": 0.25, "batch": 4},
    ),
    Page(
        "dynamo",
        {
            'dynamo_frontend_inflight_requests{model="m"}': 20,
            'dynamo_frontend_queued_requests{model="m"}': 2,
            'dynamo_frontend_model_max_num_seqs{model="m"}': 256,
        },
        {
            'dynamo_frontend_inter_token_latency_seconds_sum{model="m"}': 5,
            'dynamo_frontend_inter_token_latency_seconds_count{model="m"}': 250,
            'dynamo_frontend_output_sequence_tokens_sum{model="m"}': 250,
        },
        {"running": 20, "waiting": 2, "max_num_seqs": 256, "itl_mean": 0.02, "generation_token_rate": 250},
    ),
    Page(
        "dynamo",  # 1.3: requests by stage, before workers compute them
        {
            'dynamo_frontend_active_requests{model="m"}': 20,
            'dynamo_frontend_stage_requests{model="m",phase="aggregated",stage="preprocess"}': 1,
            'dynamo_frontend_stage_requests{model="m",phase="aggregated",stage="route"}': 4,
            'dynamo_frontend_stage_requests{model="m",phase="aggregated",stage="dispatch"}': 2,
        },
        {'dynamo_frontend_output_sequence_tokens_sum{model="m"}': 250},
        {"running": 20, "running_max": 20, "waiting": 7, "waiting_now": 7, "generation_token_rate": 250},
    ),
    Page(
        "ray-serve",
        {
            'ray_serve_replica_processing_queries{application="a",deployment="m",replica="r1"}': 12,
            'ray_serve_batch_queue_length{application="a",deployment="m",function_name="f",replica="r1"}': 8,
        },
        {
            'ray_serve_deployment_request_counter_total{deployment="m",replica="r1",route="/"}': 40,
            'ray_serve_batch_wait_time_ms_sum{deployment="m",function_name="f",replica="r1"}': 6000,
            'ray_serve_batch_wait_time_ms_count{deployment="m",function_name="f",replica="r1"}': 40,
            'ray_serve_deployment_processing_latency_ms_sum{deployment="m",replica="r1",route="/"}': 10_000,
            'ray_serve_deployment_processing_latency_ms_count{deployment="m",replica="r1",route="/"}': 40,
            'ray_serve_actual_batch_size_sum{deployment="m",function_name="f",replica="r1"}': 40,
            'ray_serve_actual_batch_size_count{deployment="m",function_name="f",replica="r1"}': 10,
        },
        {"running": 12, "waiting": 8, "request_rate": 40, "queue_seconds": 0.15, "request_seconds": 0.25, "batch": 4},
    ),
)  # fmt: skip


def evaluation_of(pages: Sequence[Page], folder: Path, steps: int = STEPS) -> Evaluation:
    """An evaluation of these pages, each at an address and, of several, in a namespace of its own."""
    lines: list[str] = []
    for number, page in enumerate(pages):
        target = {"job": "models", "instance": f"h{number}:8000"}
        target |= {"namespace": f"n{number}"} if len(pages) > 1 else {}
        for step in range(steps + 1):
            rows = {**page.gauges, **{name: rate * step * STEP_SECONDS for name, rate in page.rates.items()}}
            text = "\n".join(f"{name} {value}" for name, value in rows.items())
            lines += scraped(text, START + step * STEP_SECONDS, target)
    with closing(history_of(lines, folder)) as history:
        return evaluate(EmbeddedSource(history), Settings(), START + steps * STEP_SECONDS)


def serving_of(pages: Sequence[Page], folder: Path) -> ServingFacts:
    return evaluation_of(pages, folder).facts.serving


def replica_of(page: Page, folder: Path) -> ServingReplica:
    (replica,) = serving_of([page], folder).replicas
    return replica


@pytest.mark.parametrize(("pages", "queries"), [(PAGES[:6], 5), (PAGES, 9)])
def test_kinds_of_servers_together_take_few_queries(pages: Sequence[Page], queries: int, tmp_path: Path) -> None:
    evaluation = evaluation_of(pages, tmp_path)
    found = evaluation.facts.serving
    assert sorted(each.server for each in found.replicas) == sorted(page.server for page in pages)
    for each in found.replicas:
        page = pages[int(each.instance[1 : each.instance.index(":")])]
        assert {name: each.value(name) for name in page.expected} == pytest.approx(dict(page.expected))
    with closing(history_of([], tmp_path / "none")) as nothing:
        without = evaluate(EmbeddedSource(nothing), Settings(), START)
    assert 1 < evaluation.queries - without.queries <= queries  # whether there are servers is asked in any case


class MeasuredSource(EmbeddedSource):
    """An embedded history that keeps the longest query, as text."""

    longest = 0

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        self._measure(*expressions.values())
        return super().instant(expressions, at)

    def range(self, expression: Expression, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        self._measure(expression)
        return super().range(expression, start, end, step)

    def _measure(self, *expressions: Expression) -> None:
        self.longest = max(self.longest, *(len(to_promql(each)) for each in expressions))


@pytest.mark.parametrize("day", [None, ServingDayCache()])
def test_no_query_is_too_long_for_victoriametrics(day: ServingDayCache | None, tmp_path: Path) -> None:
    """All kinds of servers in one of several clusters; 16 KiB is its -search.maxQueryLen."""
    pages = list({page.server: page for page in PAGES}.values())
    matchers = (Matcher("cluster", "=", "production-eu-west-1"),)
    targets = [
        {"job": "models", "instance": f"h{number}:8000", "cluster": "production-eu-west-1", "namespace": f"n{number}"}
        for number in range(len(pages))
    ]
    lines = [
        line
        for page, target in zip(pages, targets, strict=True)
        for line in scraped("\n".join(f"{name} 1" for name in {**page.gauges, **page.rates}), START, target)
    ]
    with closing(history_of(lines, tmp_path)) as history:
        source = MeasuredSource(history)
        facts = Facts(START, (), (), {}, {}, EvaluationSettings())
        found = read_serving(source, facts, START, matchers, "cluster", day)
    assert {each.server for each in found.replicas} == {page.server for page in pages}
    assert 4_000 < source.longest < 16 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.server)
def test_worked_page(page: Page, tmp_path: Path) -> None:
    found = replica_of(page, tmp_path)
    assert found.server == page.server
    assert found.instance == "h0:8000"
    assert {name: found.value(name) for name in page.expected} == pytest.approx(dict(page.expected))
    assert all(map(math.isfinite, found.values.values()))


def underscored(page: Page) -> Page:
    gauges, rates = (
        {name.replace(":", "_", 1): value for name, value in each.items()} for each in (page.gauges, page.rates)
    )
    return Page(page.server + UNDERSCORED, gauges, rates, page.expected)


@pytest.mark.parametrize(
    "page", [each for each in PAGES if any(":" in name.partition("{")[0] for name in each.gauges)],
    ids=lambda page: page.server,
)  # fmt: skip
def test_names_with_underscores_for_colons_are_the_same_server(page: Page, tmp_path: Path) -> None:
    found = replica_of(underscored(page), tmp_path)
    assert found.server == page.server + UNDERSCORED
    assert {name: found.value(name) for name in page.expected} == pytest.approx(dict(page.expected))


@pytest.mark.parametrize(("extra", "servers"), [({}, 1), ({"vllm:generation_tokens_total": 10.0}, 2)])
def test_a_router_that_shows_the_gauges_of_its_servers_is_none(
    extra: Mapping[str, float], servers: int, tmp_path: Path
) -> None:
    """The page of vLLM's production stack beside one of the servers behind it. What counts tokens is a server."""
    server = next(page for page in PAGES if page.server == "vllm")
    router = Page(
        "vllm",
        {
            f'vllm:{name}{{server="http://h{number}:8000"}}': value
            for number in (0, 1)
            for name, value in (
                ("num_requests_running", 12),
                ("num_requests_waiting", 3),
                ("gpu_cache_usage_perc", 0.5),
            )
        },
        extra,
        {},
    )
    found = serving_of([server, router], tmp_path).replicas
    assert sorted(each.instance for each in found) == ["h0:8000", "h1:8000"][:servers]


@pytest.mark.parametrize("mapping", server_mappings(), ids=lambda mapping: mapping.name)
def test_flags_and_quantities_are_known(mapping: ServerMapping) -> None:
    assert any(page.server == mapping.name.removesuffix(UNDERSCORED) for page in PAGES)
    assert {"running", "waiting"} & mapping.quantities.keys()


def test_a_server_of_images_with_a_queue_gets_advice_with_its_evidence(tmp_path: Path) -> None:
    """Plain Triton publishes no number of requests running: what waits is what was sampled."""
    page = Page(
        "triton",
        {'nv_inference_pending_request_count{model="m",version="1"}': 30},
        {
            'nv_inference_request_success{model="m",version="1"}': 80,
            'nv_inference_count{model="m",version="1"}': 80,
            'nv_inference_exec_count{model="m",version="1"}': 40,
            'nv_inference_queue_duration_us{model="m",version="1"}': 30_000_000,
            'nv_inference_request_duration_us{model="m",version="1"}': 40_000_000,
        },
        {},
    )
    (tmp_path / "short").mkdir()
    early = evaluation_of([page], tmp_path / "short", STEPS // 2)
    assert early.recommendations == (), "one window is a burst"
    assert any("Batch-limit-bound in the last 300 s, not" in each.message for each in early.abstentions)
    (found,) = evaluation_of([page], tmp_path).recommendations
    assert (found.diagnosis, found.current, found.recommended) == ("batch_limit_bound", 2.0, 4)
    assert {each.signal for each in found.evidence} >= {"serving_batch", "serving_waiting", "serving_queue_seconds"}
    assert not any(each.things and each.things.everything for each in found.evidence)  # of this server alone


@pytest.mark.parametrize(
    ("server", "running", "tokens", "hangs"),
    [
        ("vllm", "vllm:num_requests_running", ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"), True),
        ("sglang", "sglang:num_running_reqs", ("sglang:prompt_tokens_total", "sglang:generation_tokens_total"), False),
        ("tgi", "tgi_batch_current_size", ("tgi_request_input_length_sum", "tgi_request_generated_tokens_sum"), False),
        ("llama-cpp", "llamacpp:requests_processing", ("llamacpp:prompt_tokens_total",
                                                       "llamacpp:tokens_predicted_total"), False),
    ],
)  # fmt: skip
def test_a_server_that_counts_tokens_at_the_end_of_a_request_is_not_known_to_hang(
    server: str, running: str, tokens: Sequence[str], hangs: bool, tmp_path: Path
) -> None:
    """One answer that takes longer than the window."""
    gauges = {running: 1, **({"tgi_queue_size": 0} if server == "tgi" else {})}
    found = evaluation_of([Page(server, gauges, dict.fromkeys(tokens, 0), {})], tmp_path)
    (replica,) = found.facts.serving.replicas
    assert [replica.value(name) for name in ("prompt_token_rate", "generation_token_rate")] == [0, 0]
    assert any("restart what hangs" in each.message for each in found.abstentions) is hangs


def test_a_queue_without_a_kv_cache_to_look_at_is_said_with_both_remedies(tmp_path: Path) -> None:
    messages = []
    for waiting in (20, 0):
        page = Page("tgi", {"tgi_batch_current_size": 5, "tgi_queue_size": waiting}, {"tgi_request_success": 2}, {})
        folder = tmp_path / str(waiting)
        folder.mkdir()
        found = evaluation_of([page], folder)
        assert found.recommendations == ()
        messages.append([each.message for each in found.abstentions if each.subject == "serving"])
    (queue,), calm = messages
    assert "--max-batch-total-tokens" in queue
    assert "replicas" in queue
    assert calm == []


def test_what_a_server_does_not_publish_is_missing(tmp_path: Path) -> None:
    found = replica_of(next(page for page in PAGES if page.server == "tgi"), tmp_path)
    assert found.value("kv_usage") is None
    assert found.value("ttft_p95") is None
