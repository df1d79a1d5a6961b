"""What a simulated replica's page /metrics looks like: vLLM's names, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.serving.simulator import ITL_BUCKETS, QUEUE_BUCKETS, TTFT_BUCKETS, Sample

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
COUNTERS = (
    "num_preemptions", "prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits",
    "request_success",
)  # fmt: skip
HISTOGRAMS = {
    "time_to_first_token_seconds": TTFT_BUCKETS,
    "inter_token_latency_seconds": ITL_BUCKETS,
    "request_queue_time_seconds": QUEUE_BUCKETS,
    "request_prefill_time_seconds": QUEUE_BUCKETS,
}
#: Histograms of which the simulator keeps sum and count: name -> its counters.
SUMMARIES = {
    "iteration_tokens_total": ("iteration_tokens", "iterations"),
    "request_prompt_tokens": ("request_prompt_tokens", "request_success"),
    "request_generation_tokens": ("request_generation_tokens", "request_success"),
}


def page(sample: Sample, model: str, blocks: int, block_size: int = 16) -> str:
    """One page. `blocks` is the size of the KV cache."""
    labels = f'{{engine="0",model_name="{model}"}}'
    return "\n".join(_lines(sample, labels, blocks, block_size)) + "\n"


def _lines(sample: Sample, labels: str, blocks: int, block_size: int) -> Iterator[str]:
    for name in GAUGES:
        yield f"# TYPE vllm:{name} gauge"
        yield f"vllm:{name}{labels} {sample.values[name]!r}"
    yield "# TYPE vllm:cache_config_info gauge"
    yield f'vllm:cache_config_info{{block_size="{block_size}",engine="0",num_gpu_blocks="{blocks}"}} 1.0'
    for name in COUNTERS:
        yield f"# TYPE vllm:{name}_total counter"
        yield f"vllm:{name}_total{labels} {sample.values[name]!r}"
    for name, bounds in HISTOGRAMS.items():
        counts, total = sample.histograms[name]
        yield f"# TYPE vllm:{name} histogram"
        running = 0.0
        for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
            running += count
            yield f'vllm:{name}_bucket{labels[:-1]},le="{bound}"}} {running!r}'
        yield f"vllm:{name}_sum{labels} {total!r}"
        yield f"vllm:{name}_count{labels} {running!r}"
    for name, (total_name, count_name) in SUMMARIES.items():
        yield f"# TYPE vllm:{name} histogram"
        yield f"vllm:{name}_sum{labels} {sample.values[total_name]!r}"
        yield f"vllm:{name}_count{labels} {sample.values[count_name]!r}"
