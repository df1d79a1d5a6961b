"""The catalogue of serving signals: each quantity of an inference server that the advisor uses, defined once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ServingUnit = Literal["ratio", "count", "seconds", "tokens", "per_second", "tokens_per_second"]

#: `last` is an instant value. Of the window are `mean`, `max` and `quantile` of a gauge, `mean` and `quantile` of a
#: histogram, `rate` of a counter or of a histogram's observations, and `samples`, their number.
ServingReduction = Literal["last", "mean", "max", "quantile", "rate", "samples"]


@dataclass(frozen=True, slots=True)
class ServingSignal:
    """`quantity` is what a mapping names; `q` (0..1) is for quantiles."""

    name: str
    about: str
    unit: ServingUnit
    quantity: str
    reduction: ServingReduction
    q: float | None = None


SERVING_SIGNALS: tuple[ServingSignal, ...] = (
    ServingSignal("running", "requests running", "count", "running", "mean"),
    ServingSignal("running_max", "most requests running", "count", "running", "max"),
    ServingSignal("running_p50", "requests running, median", "count", "running", "quantile", 0.5),
    ServingSignal("samples", "samples in the window", "count", "running", "samples"),
    ServingSignal("waiting", "requests waiting", "count", "waiting", "mean"),
    ServingSignal("waiting_now", "requests waiting now", "count", "waiting", "last"),
    ServingSignal("kv_usage", "KV cache used", "ratio", "kv_usage", "mean"),
    ServingSignal("kv_usage_max", "most KV cache used", "ratio", "kv_usage", "max"),
    ServingSignal("preemption_rate", "preemptions", "per_second", "preemptions", "rate"),
    ServingSignal("prompt_token_rate", "prompt tokens", "tokens_per_second", "prompt_tokens", "rate"),
    ServingSignal("generation_token_rate", "generated tokens", "tokens_per_second", "generation_tokens", "rate"),
    ServingSignal("request_rate", "requests finished", "per_second", "requests", "rate"),
    ServingSignal("ttft_p95", "time to first token, 95th percentile", "seconds", "ttft", "quantile", 0.95),
    ServingSignal("ttft_p90", "time to first token, 90th percentile", "seconds", "ttft", "quantile", 0.9),
    ServingSignal("ttft_p50", "time to first token, median", "seconds", "ttft", "quantile", 0.5),
    ServingSignal("itl_p95", "inter-token latency, 95th percentile", "seconds", "itl", "quantile", 0.95),
    ServingSignal("itl_p99", "inter-token latency, 99th percentile", "seconds", "itl", "quantile", 0.99),
    ServingSignal("itl_mean", "inter-token latency, mean", "seconds", "itl", "mean"),
    ServingSignal("request_itl_p50", "inter-token latency of requests, median", "seconds", "request_itl", "quantile",
                  0.5),
    ServingSignal("request_itl_p90", "inter-token latency of requests, 90th percentile", "seconds", "request_itl",
                  "quantile", 0.9),
    ServingSignal("request_itl_p95", "inter-token latency of requests, 95th percentile", "seconds", "request_itl",
                  "quantile", 0.95),
    ServingSignal("queue_seconds", "time in the queue, mean", "seconds", "queue_time", "mean"),
    ServingSignal("prefill_seconds", "time of the prompt's computation, mean", "seconds", "prefill_time", "mean"),
    ServingSignal("prompt_tokens", "tokens of a prompt, mean", "tokens", "prompt_length", "mean"),
    ServingSignal("prompt_tokens_p50", "tokens of a prompt, median", "tokens", "prompt_length", "quantile", 0.5),
    ServingSignal("output_tokens", "tokens of an answer, mean", "tokens", "output_length", "mean"),
    ServingSignal("iteration_tokens", "tokens of a step, mean", "tokens", "iteration_tokens", "mean"),
    ServingSignal("iteration_rate", "steps", "per_second", "iteration_tokens", "rate"),
    ServingSignal("prefix_query_rate", "tokens looked up in the prefix cache", "tokens_per_second", "prefix_queries",
                  "rate"),
    ServingSignal("prefix_hit_rate", "tokens found in the prefix cache", "tokens_per_second", "prefix_hits", "rate"),
    ServingSignal("kv_tokens", "size of the KV cache", "tokens", "kv_tokens", "last"),
    ServingSignal("max_num_seqs", "limit of requests running", "count", "max_num_seqs", "last"),
    ServingSignal("max_num_batched_tokens", "limit of tokens in a step", "tokens", "max_num_batched_tokens", "last"),
    ServingSignal("batch", "requests of an execution, mean", "count", "batch", "mean"),
    ServingSignal("request_seconds", "time of a request, mean", "seconds", "request_time", "mean"),
)  # fmt: skip

BY_NAME = {signal.name: signal for signal in SERVING_SIGNALS}
