"""Serving: what users of language models feel, and what their servers do. By the names of vLLM."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.dashboard_frame import new_dashboard
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    multi_value_variable,
    ratio_timeseries_panel,
    stat_panel,
    threshold_steps,
    timeseries_panel,
)

MODEL = '{model_name=~"$model_name"}'
BY_MODEL, BY_SERVER = "{{model_name}}", "{{model_name}} {{instance}}"


def dashboard() -> Dashboard:
    board = new_dashboard(
        "serving", "Inference servers", "Do users wait, and what holds the servers back?"
    ).with_variable(multi_value_variable("model_name", "Model", "vllm:num_requests_running"))
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_row(Row("What users feel"))
    for graph in latencies():
        board = board.with_panel(graph)
    board = board.with_row(Row("What servers do"))
    for graph in servers():
        board = board.with_panel(graph)
    return board


def overview() -> list[Stat]:
    return [
        stat_panel("Replicas", "Servers that report.", f"count(vllm:num_requests_running{MODEL})").span(4),
        stat_panel("Running", "Requests running now.", f"sum(vllm:num_requests_running{MODEL})").span(4),
        stat_panel(
            "Waiting",
            "Requests waiting now.",
            f"sum(vllm:num_requests_waiting{MODEL})",
            threshold_steps(GOOD, (1, WARNING), (50, BAD)),
        ).span(4),
        stat_panel(
            "Fullest KV cache",
            "The highest use of a server's KV cache. Full: sequences are preempted.",
            f"max(vllm:kv_cache_usage_perc{MODEL})",
            threshold_steps(GOOD, (0.9, WARNING), (0.98, BAD)),
            "percentunit",
        )
        .decimals(0)
        .span(4),
        stat_panel(
            "Generated tokens",
            "Tokens generated per second.",
            f"sum(rate(vllm:generation_tokens_total{MODEL}[$__rate_interval]))",
        )
        .decimals(0)
        .span(4),
        stat_panel(
            "Preemptions",
            "Sequences per second that lose their KV cache and are computed again.",
            f"sum(rate(vllm:num_preemptions_total{MODEL}[$__rate_interval]))",
            threshold_steps(GOOD, (0.02, WARNING), (0.5, BAD)),
        ).span(4),
    ]


def quantile(share: float, metric: str) -> str:
    rate = f"rate({metric}_bucket{MODEL}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (model_name, le) ({rate}))"


def latencies() -> list[TimeSeries]:
    return [
        timeseries_panel(
            f"{title}",
            f"{title} of {share:.0%} of the requests is shorter.",
            "s",
            (quantile(share, metric), BY_MODEL),
        )
        for title, metric, share in (
            ("Time to first token", "vllm:time_to_first_token_seconds", 0.95),
            ("Inter-token latency", "vllm:inter_token_latency_seconds", 0.95),
            ("Median time to first token", "vllm:time_to_first_token_seconds", 0.5),
            ("Time in the queue", "vllm:request_queue_time_seconds", 0.95),
        )
    ]


def servers() -> list[TimeSeries]:
    return [
        timeseries_panel(
            "Requests running",
            "A number that does not change while others wait is the limit of the batch.",
            "short",
            (f"vllm:num_requests_running{MODEL}", BY_SERVER),
        ),
        timeseries_panel(
            "Requests waiting", "Of each server.", "short", (f"vllm:num_requests_waiting{MODEL}", BY_SERVER)
        ),
        ratio_timeseries_panel(
            "KV cache", "Use of each server's KV cache.", (f"vllm:kv_cache_usage_perc{MODEL}", BY_SERVER)
        ),
        timeseries_panel(
            "Preemption rate",
            "Sequences per second that are computed again.",
            "short",
            (f"rate(vllm:num_preemptions_total{MODEL}[$__rate_interval])", BY_SERVER),
        ),
        timeseries_panel(
            "Tokens per second",
            "Generated, and of prompts.",
            "short",
            (
                f"sum by (model_name) (rate(vllm:generation_tokens_total{MODEL}[$__rate_interval]))",
                f"{BY_MODEL} generated",
            ),
            (f"sum by (model_name) (rate(vllm:prompt_tokens_total{MODEL}[$__rate_interval]))", f"{BY_MODEL} prompts"),
        ),
        timeseries_panel(
            "Tokens in a step",
            "Mean. Far above the requests running: prompts take the steps.",
            "short",
            (
                f"rate(vllm:iteration_tokens_total_sum{MODEL}[$__rate_interval])"
                f" / rate(vllm:iteration_tokens_total_count{MODEL}[$__rate_interval])",
                BY_SERVER,
            ),
        ),
    ]
