"""Serving: what users of language models feel, and what their servers do. By the names of vLLM."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.dashboard_frame import new_dashboard
from grafana.queries import extremes

MODEL = '{model_name=~"$model_name"}'
BY_MODEL, BY_SERVER = "{{model_name}}", "{{model_name}} {{instance}}"


TOKENS_PER_STEP = (
    f"rate(vllm:iteration_tokens_total_sum{MODEL}[$__rate_interval])"
    f" / rate(vllm:iteration_tokens_total_count{MODEL}[$__rate_interval])"
)


def dashboard() -> Dashboard:
    board = new_dashboard("serving", "Inference servers", "Do users wait, and what limits the servers?").with_variable(
        panels.multi_value_variable("model_name", "Model", "vllm:num_requests_running")
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_row(Row("Latency"))
    for graph in latencies():
        board = board.with_panel(graph)
    board = board.with_row(Row("Servers"))
    for graph in servers():
        board = board.with_panel(graph)
    return board


def overview() -> list[Stat]:
    return [
        panels.stat_panel("Replicas", "Servers that report.", f"count(vllm:num_requests_running{MODEL})").span(4),
        panels.stat_panel("Running requests", "Of all servers, now.", f"sum(vllm:num_requests_running{MODEL})").span(4),
        panels.stat_panel(
            "Waiting requests",
            "Of all servers, now.",
            f"sum(vllm:num_requests_waiting{MODEL})",
            panels.threshold_steps(panels.GOOD, (1, panels.WARNING), (50, panels.BAD)),
        ).span(4),
        panels.stat_panel(
            "KV cache used",
            "The highest use of a server's KV cache. Full: sequences are preempted.",
            f"max(vllm:kv_cache_usage_perc{MODEL})",
            panels.threshold_steps(panels.GOOD, (0.9, panels.WARNING), (0.98, panels.BAD)),
            "percentunit",
        )
        .decimals(0)
        .span(4),
        panels.stat_panel(
            "Generation throughput",
            "Tokens generated per second.",
            f"sum(rate(vllm:generation_tokens_total{MODEL}[$__rate_interval]))",
        )
        .decimals(0)
        .span(4),
        panels.stat_panel(
            "Preemptions per second",
            "Sequences that lose their KV cache and are computed again.",
            f"sum(rate(vllm:num_preemptions_total{MODEL}[$__rate_interval]))",
            panels.threshold_steps(panels.GOOD, (0.02, panels.WARNING), (0.5, panels.BAD)),
        ).span(4),
    ]


def quantile(share: float, metric: str) -> str:
    rate = f"rate({metric}_bucket{MODEL}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (model_name, le) ({rate}))"


def latencies() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            f"{title} (p{100 * share:.0f})",
            f"{share:.0%} of the requests have no more, by model.",
            "s",
            (quantile(share, metric), BY_MODEL),
        )
        for title, metric, share in (
            ("Time to first token", "vllm:time_to_first_token_seconds", 0.95),
            ("Inter-token latency", "vllm:inter_token_latency_seconds", 0.95),
            ("Time to first token", "vllm:time_to_first_token_seconds", 0.5),
            ("Time in queue", "vllm:request_queue_time_seconds", 0.95),
        )
    ]


def servers() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "Requests running",
            "The ten servers with the most. A number that does not change while others wait is the limit of the batch.",
            "short",
            (extremes(f"vllm:num_requests_running{MODEL}", "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Requests waiting",
            "The ten servers with the most.",
            "short",
            (extremes(f"vllm:num_requests_waiting{MODEL}", "instance"), BY_SERVER),
        ),
        panels.ratio_timeseries_panel(
            "KV cache used by server",
            "The ten servers with the most.",
            (extremes(f"vllm:kv_cache_usage_perc{MODEL}", "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Preemptions by server",
            "Sequences per second that are computed again; the ten servers with the most.",
            "short",
            (extremes(f"rate(vllm:num_preemptions_total{MODEL}[$__rate_interval])", "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Token throughput",
            "Tokens per second, generated and of prompts.",
            "short",
            (
                f"sum by (model_name) (rate(vllm:generation_tokens_total{MODEL}[$__rate_interval]))",
                f"{BY_MODEL} generated",
            ),
            (f"sum by (model_name) (rate(vllm:prompt_tokens_total{MODEL}[$__rate_interval]))", f"{BY_MODEL} prompts"),
        ),
        panels.timeseries_panel(
            "Tokens per step",
            "Mean; the ten servers with the most. Far above the requests running: prompts take the steps.",
            "short",
            (extremes(TOKENS_PER_STEP, "instance"), BY_SERVER),
        ),
    ]
