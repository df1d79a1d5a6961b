"""A simulated run as the facts that the advisor would read: the same reductions, over the same scrapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import median

from gpu_advisor.evaluation.serving.facts import CurvePoint, ServingReplica
from gpu_advisor.sources.algebra import bucket_quantile

from benchmarks.serving.simulator import ITL_BUCKETS, QUEUE_BUCKETS, TTFT_BUCKETS, Sample
from benchmarks.serving.situation import SCRAPE_SECONDS, Run, Situation

#: Signal -> the counter whose rate it is.
RATES = {
    "preemption_rate": "num_preemptions", "prompt_token_rate": "prompt_tokens",
    "generation_token_rate": "generation_tokens", "request_rate": "request_success",
    "iteration_rate": "iterations", "prefix_query_rate": "prefix_cache_queries",
    "prefix_hit_rate": "prefix_cache_hits",
}  # fmt: skip
#: Signal -> the counters whose ratio it is.
MEANS = {
    "prompt_tokens": ("request_prompt_tokens", "request_success"),
    "output_tokens": ("request_generation_tokens", "request_success"),
    "iteration_tokens": ("iteration_tokens", "iterations"),
}
BUCKETS = {
    "time_to_first_token_seconds": TTFT_BUCKETS, "inter_token_latency_seconds": ITL_BUCKETS,
    "request_queue_time_seconds": QUEUE_BUCKETS, "request_prefill_time_seconds": QUEUE_BUCKETS,
}  # fmt: skip
#: Signal -> histogram and quantile; None for the mean.
LATENCIES: dict[str, tuple[str, float | None]] = {
    "ttft_p95": ("time_to_first_token_seconds", 0.95), "ttft_p90": ("time_to_first_token_seconds", 0.9),
    "ttft_p50": ("time_to_first_token_seconds", 0.5),
    "itl_p95": ("inter_token_latency_seconds", 0.95), "itl_p99": ("inter_token_latency_seconds", 0.99),
    "itl_mean": ("inter_token_latency_seconds", None),
    "queue_seconds": ("request_queue_time_seconds", None), "prefill_seconds": ("request_prefill_time_seconds", None),
}  # fmt: skip


def replicas_of(situation: Situation, run: Run) -> tuple[ServingReplica, ...]:
    """One replica each, with the values of a window that ends with the last scrape; those that never served lack."""
    return tuple(
        ServingReplica(
            "vllm", "servers", f"10.0.0.{number}:8000", situation.model.name, "0",
            values=values_of(samples, situation.settings.kv_tokens), started=1e6 + 90.0 - 1e5 if not delay else 1e6,
        )
        for number, (samples, delay) in enumerate(zip(run.samples, situation.delays, strict=True))
        if len(samples) >= 2
    )  # fmt: skip


def values_of(samples: Sequence[Sample], kv_tokens: int) -> dict[str, float]:
    """The signals of one replica over its samples."""
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    gauges = {
        name: [each.values[metric] for each in samples]
        for name, metric in (
            ("running", "num_requests_running"), ("waiting", "num_requests_waiting"),
            ("kv_usage", "kv_cache_usage_perc"),
        )
    }  # fmt: skip
    found = {name: sum(values) / len(values) for name, values in gauges.items()}
    found |= {"running_max": max(gauges["running"]), "kv_usage_max": max(gauges["kv_usage"])}
    found["running_p50"] = median(gauges["running"])
    found |= {"waiting_now": gauges["waiting"][-1], "samples": float(len(samples)), "kv_tokens": float(kv_tokens)}

    def grown(counter: str) -> float:
        return last.values[counter] - first.values[counter]

    found |= {name: grown(counter) / seconds for name, counter in RATES.items()}
    for name, (part, whole) in MEANS.items():
        if grown(whole) > 0:
            found[name] = grown(part) / grown(whole)
    for name, (metric, q) in LATENCIES.items():
        (before, sum_before), (after, sum_after) = first.histograms[metric], last.histograms[metric]
        counts = [b - a for a, b in zip(before, after, strict=True)]
        total = sum(counts)
        if total > 0:
            found[name] = (sum_after - sum_before) / total if q is None else _quantile(q, BUCKETS[metric], counts)
    return found


def points_of(run: Run) -> tuple[CurvePoint, ...]:
    """The curve's points: one per replica and scrape interval."""
    found = []
    for samples in run.samples:
        for first, last in itertools.pairwise(samples):
            seconds = last.at - first.at
            (before, sum_before), (after, sum_after) = (
                each.histograms["inter_token_latency_seconds"] for each in (first, last)
            )
            tokens = sum(after) - sum(before)
            generated, prompts = (
                (last.values[name] - first.values[name]) / seconds for name in ("generation_tokens", "prompt_tokens")
            )
            running = (first.values["num_requests_running"] + last.values["num_requests_running"]) / 2
            if tokens > 0 and generated > 0 and running > 0:
                itl = (sum_after - sum_before) / tokens
                found.append(CurvePoint(running, generated, itl, prompts * running / generated))
    return tuple(found)


def _quantile(q: float, bounds: Sequence[float], counts: Sequence[float]) -> float:
    running, buckets = 0.0, []
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        running += count
        buckets.append((bound, running))
    return bucket_quantile(q, buckets)


#: The time at which windows end (Unix time), and the interval of scrapes.
AT, INTERVAL_SECONDS = 1e6 + 390.0, SCRAPE_SECONDS
