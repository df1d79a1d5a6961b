"""Serving: what users of language models feel, and what their servers do, by the recorded series of all servers."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.dashboard_frame import new_dashboard
from grafana.queries import extremes

MODEL = '{model=~"$model"}'
BY_MODEL, BY_SERVER = "{{namespace}} {{model}} ({{server}})", "{{model}} {{instance}} {{engine}}"

#: What passes its requests on to engines that are shown.
FRONTENDS = "on (cluster, job, instance, namespace, model, server) server:frontend:info"


def engines(record: str) -> str:
    """The series of each engine: of a server that several jobs scrape, one, and of a frontend none."""
    return f"max without (job, node) (server:{record}{MODEL} unless {FRONTENDS})"


REPLICAS = f"count({engines('requests_running:last')} or {engines('requests_waiting:last')})"


def dashboard() -> Dashboard:
    board = new_dashboard("serving", "Inference servers", "Do users wait, and what limits the servers?").with_variable(
        panels.multi_value_variable("model", "Model", "server:requests_waiting:last")
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
        panels.stat_panel(
            "Replicas",
            "Engines that report. No data: let Prometheus load the rules that `gpu-advisor rules --serving` prints.",
            REPLICAS,
        ).span(4),
        panels.stat_panel("Running requests", "Of all servers, now.", f"sum({engines('requests_running:last')})").span(
            4
        ),
        panels.stat_panel(
            "Waiting requests",
            "Of all servers, now.",
            f"sum({engines('requests_waiting:last')})",
            panels.threshold_steps(panels.GOOD, (1, panels.WARNING), (50, panels.BAD)),
        ).span(4),
        panels.stat_panel(
            "KV cache used",
            "The highest use of a server's KV cache. Full: sequences are preempted.",
            f"max(server:kv_cache_usage_ratio:last{MODEL})",
            panels.threshold_steps(panels.GOOD, (0.9, panels.WARNING), (0.98, panels.BAD)),
            "percentunit",
        )
        .decimals(0)
        .span(4),
        panels.stat_panel(
            "Generation throughput",
            "Tokens generated per second.",
            f"sum({engines('generated_tokens_per_second:rate5m')})",
        )
        .decimals(0)
        .span(4),
        panels.stat_panel(
            "Preemptions per second",
            "Sequences that lose their KV cache and are computed again.",
            f"sum({engines('preemptions_per_second:rate5m')})",
            panels.threshold_steps(panels.GOOD, (0.02, panels.WARNING), (0.5, panels.BAD)),
        ).span(4),
    ]


def latencies() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            f"{title} (p{100 * share:.0f})",
            f"{share:.0%} of the requests of the last 5 minutes have no more, by namespace and model.",
            "s",
            (f"served_model:{metric}:p{100 * share:.0f}_5m{MODEL}", BY_MODEL),
        )
        for title, metric, share in (
            ("Time to first token", "ttft_seconds", 0.95),
            ("Inter-token latency", "itl_seconds", 0.95),
            ("Time to first token", "ttft_seconds", 0.5),
            ("Time in queue", "queue_seconds", 0.95),
        )
    ]


def servers() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "Requests running",
            "The ten servers with the most. A number that does not change while others wait is the limit of the batch.",
            "short",
            (extremes(engines("requests_running:last"), "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Requests waiting",
            "The ten servers with the most.",
            "short",
            (extremes(engines("requests_waiting:last"), "instance"), BY_SERVER),
        ),
        panels.ratio_timeseries_panel(
            "KV cache used by server",
            "The ten servers with the most.",
            (extremes(engines("kv_cache_usage_ratio:last"), "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Preemptions by server",
            "Sequences per second that are computed again; the ten servers with the most.",
            "short",
            (extremes(engines("preemptions_per_second:rate5m"), "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Token throughput",
            "Tokens per second, generated and of prompts.",
            "short",
            (f"sum by (model) ({engines('generated_tokens_per_second:rate5m')})", "{{model}} generated"),
            (f"sum by (model) ({engines('prompt_tokens_per_second:rate5m')})", "{{model}} prompts"),
        ),
        panels.timeseries_panel(
            "Tokens per step",
            "Mean; the ten servers with the most. Far above the requests running: prompts take the steps.",
            "short",
            (extremes(engines("step_tokens:mean5m"), "instance"), BY_SERVER),
        ),
        panels.timeseries_panel(
            "Requests of an execution",
            "Mean of servers of embeddings and images; the ten servers with the most. One: nothing is batched.",
            "short",
            (extremes(engines("execution_requests:mean5m"), "instance"), BY_SERVER),
        ),
    ]
