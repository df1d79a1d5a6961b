"""Pages as they are found in clusters: which servers each is, and what is said where it is none. One row a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.serving.groups import serving_groups
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource

from tests.serving_pages import START, history_of, scraped
from tests.unit.serving.test_mappings import STEP_SECONDS, STEPS

END = START + STEP_SECONDS * STEPS
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@dataclass(frozen=True)
class Target:
    """One page: gauges, and the rates of counters; `labels` are those that the scrape adds."""

    gauges: Mapping[str, float]
    rates: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def lines(self, number: int) -> Iterator[str]:
        target = {"job": "pods", "instance": f"h{number}:8000", **self.labels}
        for step in range(STEPS + 1):
            rows = {**self.gauges, **{name: rate * step * STEP_SECONDS for name, rate in self.rates.items()}}
            text = "\n".join(f"{name} {value}" for name, value in rows.items())
            yield from scraped(text, START + step * STEP_SECONDS, target)


@dataclass(frozen=True)
class Kind:
    """`servers` are (kind, instance, model, engine) with some of their signals; `says` is what the checklist names,
    `groups` what they are together, where that is not one each."""

    name: str
    pages: Sequence[Target]
    servers: Mapping[tuple[str, str, str, str], Mapping[str, float]]
    says: str = ""
    groups: Sequence[str] = ()


def vllm(labels: str, running: float = 3, usage: str = "kv_cache_usage_perc", prefix: str = "vllm:") -> Target:
    """The least that every version has."""
    return Target(
        {
            f"{prefix}num_requests_running{{{labels}}}": running,
            f"{prefix}num_requests_waiting{{{labels}}}": 1,
            f"{prefix}{usage}{{{labels}}}": 0.5,
        },
        {f"{prefix}generation_tokens_total{{{labels}}}": 100 * running, f"{prefix}prompt_tokens_total{{{labels}}}": 10},
    )


def together(*targets: Target, labels: Mapping[str, str] | None = None) -> Target:
    """Several parts of one page."""
    gauges = {name: value for each in targets for name, value in each.gauges.items()}
    rates = {name: value for each in targets for name, value in each.rates.items()}
    return Target(gauges, rates, labels or {})


TRITON = Target(
    {'nv_inference_pending_request_count{model="m",version="1"}': 0},
    {'nv_inference_request_success{model="m",version="1"}': 2},
)
DYNAMO = Target(
    {
        'dynamo_frontend_inflight_requests{model="org/model"}': 4,
        'dynamo_frontend_queued_requests{model="org/model"}': 0,
    },
    {'dynamo_frontend_output_sequence_tokens_sum{model="org/model"}': 400},
)
ROUTER = Target(
    {
        f'vllm:{name}{{server="http://h0:8000"}}': 1.0
        for name in ("num_requests_running", "num_requests_waiting", "healthy_pods_total", "current_qps")
    }
)
ANSWERS = Target({}, {'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"}': 3})
OF_RAY = 'ReplicaId="r1",WorkerId="w1",engine="0",model_name="m",Version="2.48.0"'

KINDS = (
    Kind("vLLM 0.6, one engine without a label", [vllm(f'model_name="{LLAMA}"', usage="gpu_cache_usage_perc")],
         {("vllm", "h0:8000", LLAMA, ""): {"running": 3, "kv_usage": 0.5}}),
    Kind("both names of the cache's use, in the versions between",
         [together(vllm('model_name="m",engine="0"'), vllm('model_name="m",engine="0"', usage="gpu_cache_usage_perc"))],
         {("vllm", "h0:8000", "m", "0"): {"kv_usage": 0.5}}),
    Kind("LoRA adapters, in a gauge of times",
         [together(vllm('model_name="m",engine="0"'),
                   Target({'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a,b",'
                           'waiting_lora_adapters="c"}': 1.79e9}))],
         {("vllm", "h0:8000", "m", "0"): {"running": 3}}),
    Kind("data-parallel engines behind several API servers",
         [together(vllm('model_name="m",engine="0"', 3), vllm('model_name="m",engine="1"', 5))],
         {("vllm", "h0:8000", "m", "0"): {"running": 3}, ("vllm", "h0:8000", "m", "1"): {"running": 5}}),
    Kind("no label for the model", [vllm('engine="0"')], {("vllm", "h0:8000", "", "0"): {"running": 3}}),
    Kind("a hybrid model, whose blocks times their size are not the cache's tokens",
         [together(vllm('model_name="m",engine="0"'),
                   Target({'vllm:cache_config_info{block_size="4",engine="0",kv_cache_size_tokens="463459",'
                           'num_gpu_blocks="320"}': 1}))],
         {("vllm", "h0:8000", "m", "0"): {"kv_tokens": 463459}}),
    Kind("a version without the size in tokens",
         [together(vllm('model_name="m",engine="0"'),
                   Target({'vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="None",'
                           'num_gpu_blocks="1000"}': 1}))],
         {("vllm", "h0:8000", "m", "0"): {"kv_tokens": 16000}}),
    Kind("percent under a ratio's name",
         [together(vllm('model_name="m"'), Target({'vllm:kv_cache_usage_perc{model_name="m"}': 73.0}))],
         {("vllm", "h0:8000", "m", ""): {"running": 3}}),
    Kind("vLLM in Triton: the engine, not what it is wrapped in",
         [together(vllm('model="m",version="1"', usage="gpu_cache_usage_perc"), TRITON)],
         {("vllm", "h0:8000", "m", "1"): {"running": 3, "kv_usage": 0.5}}),
    Kind("Triton by itself", [TRITON], {("triton", "h0:8000", "m", "1"): {"waiting": 0, "request_rate": 2}}),
    Kind("an ensemble of TensorRT-LLM in Triton: the engine, not the steps around it",
         [Target({**{f'nv_inference_pending_request_count{{model="{model}",version="1"}}': 0
                     for model in ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing")},
                  'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"}': 8,
                  'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"}':
                      0.5},
                 {f'nv_inference_request_success{{model="{model}",version="1"}}': 3
                  for model in ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing")})],
         {("triton", "h0:8000", "tensorrt_llm", "1"): {"running": 8, "kv_usage": 0.5}}),
    Kind("two models of embeddings in one Triton are two",
         [Target({f'nv_inference_pending_request_count{{model="{model}",version="1"}}': 1 for model in "ab"},
                 {f'nv_inference_request_success{{model="{model}",version="1"}}': 3 for model in "ab"})],
         {("triton", "h0:8000", "a", "1"): {"waiting": 1}, ("triton", "h0:8000", "b", "1"): {"waiting": 1}}),
    Kind("Ray Serve before 2.10, whose counters have no _total",
         [Target({'ray_serve_replica_processing_queries{deployment="d",replica="d#1"}': 2,
                  'ray_serve_batch_queue_length{deployment="d",replica="d#1"}': 0},
                 {'ray_serve_deployment_request_counter{deployment="d",replica="d#1"}': 4})],
         {("ray-serve", "h0:8000", "d", "d#1"): {"running": 2, "request_rate": 4}}),
    Kind("Ray Serve LLM: the engines, not the deployments around them",
         [together(vllm(OF_RAY, prefix="ray_vllm_"),
                   Target({'ray_serve_replica_processing_queries{deployment="LLMServer",replica="r1"}': 3,
                           'ray_serve_replica_processing_queries{deployment="LLMRouter",replica="r2"}': 3}))],
         {("vllm-ray-underscored", "h0:8000", "m", "0/r1/w1"): {"running": 3}}),
    Kind("the first Ray Serve LLM with metrics", [vllm('WorkerId="w1",model_name="m"', prefix="ray_vllm:")],
         {("vllm-ray", "h0:8000", "m", "w1"): {"running": 3, "kv_usage": 0.5}}),
    Kind("Dynamo: the workers, where they are scraped",
         [DYNAMO, vllm('model_name="org/Model",dynamo_component="backend",dynamo_namespace="dynamo"', 4)],
         {("vllm", "h1:8000", "org/Model", ""): {"running": 4}}),
    Kind("Dynamo: its frontend, where they are not", [DYNAMO],
         {("dynamo", "h0:8000", "org/model", ""): {"running": 4, "generation_token_rate": 400}}),
    Kind("a router beside its servers", [vllm('model_name="m"'), ROUTER],
         {("vllm", "h0:8000", "m", ""): {"running": 3}}),
    Kind("workers of SGLang behind a gateway's page",
         [Target({f'sglang_{name}{{model_name="m",tp_rank="0",worker_addr="grpc://w{worker}:1"}}': value
                  for name, value in (("num_running_reqs", 4), ("num_queue_reqs", 1), ("token_usage", 0.2))
                  for worker in (1, 2)})],
         {("sglang-underscored", "h0:8000", "m", f"grpc://w{worker}:1"): {"running": 4, "waiting": 1}
          for worker in (1, 2)}),
    Kind("SGLang, disaggregated",
         [Target({f'sglang:{name}{{engine_type="{role}",model_name="m",tp_rank="0"}}': value
                  for name, value in (("num_running_reqs", 4), ("num_queue_reqs", 1))},
                 {f'sglang:generation_tokens_total{{engine_type="{role}",model_name="m",tp_rank="0"}}': 10})
          for role in ("prefill", "decode", "decode")],
         {("sglang", f"h{n}:8000", "m", ""): {"running": 4} for n in range(3)}, groups=("m", "m (prefill)")),
    Kind("SGLang's first page with metrics",
         [Target({'sglang:num_running_reqs{name="/models/m"}': 4, 'sglang:num_queue_reqs{name="/models/m"}': 1})],
         {("sglang", "h0:8000", "/models/m", ""): {"running": 4}}),
    Kind("SGLang without labels", [Target({"sglang:num_running_reqs": 1, "sglang:num_queue_reqs": 0},
                                           {"sglang:generation_tokens_total": 50})],
         {("sglang", "h0:8000", "", ""): {"running": 1}}),
    Kind("TGI through a pipeline that adds _total",
         [Target({"tgi_queue_size": 6, "tgi_batch_current_size": 5}, {"tgi_request_success_total": 2})],
         {("tgi", "h0:8000", "", ""): {"running": 5, "waiting": 6, "request_rate": 2}}),
    Kind("KServe: the page of all containers, with the queue proxy's",
         [together(vllm('model_name="chat"'), Target({'revision_queue_depth{service_name="chat"}': 2}),
                   labels={"namespace": "ns", "pod": "chat-0", "service": "chat-metrics"})],
         {("vllm", "h0:8000", "chat", ""): {"running": 3}}),
    Kind("pod labels that are mapped to all series",
         [together(vllm('model_name="m",exported_engine="0"'),
                   labels={"model": "m-v2", "engine": "vllm", "version": "v1", "kubernetes_namespace": "ns",
                           "kubernetes_pod_name": "p"})],
         {("vllm", "h0:8000", "m", "0"): {"running": 3}}),
    Kind("vLLM with --disable-log-stats: its HTTP server counts, its engine does not", [ANSWERS], {},
         "h0:8000: requests for completions, and no metric of an engine. vLLM needs a start without"),
    Kind("Triton before it counted pending requests",
         [Target({}, {'nv_inference_request_success{model="m",version="1"}': 2})], {},
         "h0:8000: Triton publishes neither requests running nor waiting"),
    Kind("the same beside another server", [vllm('model_name="m"'), ANSWERS],
         {("vllm", "h0:8000", "m", ""): {"running": 3}}, "h1:8000: requests for completions"),
    Kind("a healthy server counts HTTP requests, too", [together(vllm('model_name="m"'), ANSWERS)],
         {("vllm", "h0:8000", "m", ""): {"running": 3}}),
    Kind("a router whose servers nobody scrapes", [together(ROUTER, ANSWERS)], {},
         "h0:8000: a router shows gauges of its servers, and nobody scrapes these"),
    Kind("many servers without statistics", [ANSWERS] * 5, {}, "h0:8000, h1:8000, h2:8000 and 2 more: requests"),
)  # fmt: skip


def evaluation_of(pages: Sequence[Target], folder: Path) -> Evaluation:
    with closing(history_of((line for n, page in enumerate(pages) for line in page.lines(n)), folder)) as history:
        return evaluate(EmbeddedSource(history), Settings(), END)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_page_is_these_servers(kind: Kind, tmp_path: Path) -> None:
    found = evaluation_of(kind.pages, tmp_path)
    servers = {(each.server, each.instance, each.model, each.engine): each for each in found.facts.serving.replicas}
    assert servers.keys() == kind.servers.keys()
    for key, expected in kind.servers.items():
        assert {name: servers[key].value(name) for name in expected} == pytest.approx(dict(expected))
        assert (servers[key].value("kv_usage") or 0.0) <= 1
    if kind.groups:
        assert sorted(each.name for each in serving_groups(found.facts.serving, END)) == list(kind.groups)
    if kind.says:
        assert any(kind.says in each.message for each in found.checks if each.item == "unread_servers")
    else:
        assert not [each.message for each in found.checks if each.item == "unread_servers"]
