"""The fleet at a glance: is anything wrong, what is there to do, and where.

Device series go by uuid and are aggregated by it first: after an exporter's restart there are two instances of each
for a while. gpu_info then adds where a GPU is. Utilization is busy time over observed time; a mean of the gauge would
be one of moments.
"""

# The builder library's types need Python 3.11; checked as 3.10, what its methods return is unknown.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from grafana.panels import (
    BAD,
    GOOD,
    MIDDLING,
    PLAIN,
    choice,
    column,
    datasource_variable,
    lines,
    listing,
    number,
    steps,
    target_line,
    texts,
)

#: The advisor's default targets.
GPU_TARGET, MEMORY_TARGET, CPU_TARGET = 0.90, 0.85, 0.80

CHOSEN = 'gpu_info{nodename=~"$nodename", name=~"$name"}'
#: One gpu_info of each chosen GPU, however many there are after a restart or a new driver.
IDENTITY = f"* on (uuid) group_left (nodename, index, name) topk by (uuid) (1, {CHOSEN})"
GPU = "{{nodename}} GPU {{index}}"


def of_chosen(expr: str) -> str:
    """A vector by uuid, of the chosen GPUs only."""
    return f"({expr} and on (uuid) {CHOSEN})"


def busy(window: str) -> str:
    return f"sum by (uuid) (rate(gpu_busy_seconds_total[{window}]))"


def observed(window: str) -> str:
    return f"sum by (uuid) (rate(gpu_observed_seconds_total[{window}]))"


def utilization(window: str) -> str:
    """Share of the time in which the GPU was busy, by uuid."""
    return f"({busy(window)} / {observed(window)})"


UP = of_chosen("max by (uuid) (gpu_up)")
MEMORY_SHARE = "(max by (uuid) (gpu_memory_used_bytes) / max by (uuid) (gpu_memory_total_bytes))"
#: 1 for a GPU that does nothing and holds memory, 0 for another; and for one that was watched for less than 90 % of the
#: time, because what was not seen is not idle.
IDLE_HOLDER = f"(({utilization('30m')} < bool 0.01) * ({observed('30m')} >= bool 0.9) * ({MEMORY_SHARE} > bool 0.05))"
CHECK = "max by (item, scope_kind, scope{}) ({})"


def dashboard() -> Dashboard:
    board = (
        Dashboard("GPU fleet")
        .uid("gpu-advisor-fleet")
        .description("Is anything wrong with the GPUs, are they used, and what does the advisor suggest?")
        .tags(["gpu-advisor"])
        .readonly()
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(datasource_variable())
        .with_variable(choice("nodename", "Node", "gpu_info"))
        .with_variable(choice("name", "GPU model", "gpu_info", '{nodename=~"$nodename"}'))
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_row(Row("What is there to do?")).with_panel(recommendations())
    board = board.with_panel(checks()).with_panel(abstentions())
    board = board.with_row(Row("How are the GPUs used?"))
    for graph in usage():
        board = board.with_panel(graph)
    return board.with_row(Row("Can this be trusted?")).with_panel(source_state()).with_panel(exporter_state())


def glance() -> list[Stat]:
    # Differences and sums of what there is: zero is shown when it was counted, never for want of data.
    return [
        number("GPUs that are up", "GPUs that answer their driver.", f"sum({UP})", steps(PLAIN)),
        number(
            "GPUs that are down",
            "GPUs that the exporter knows and that do not answer. The alert GpuDown tells which and why.",
            f"count({UP}) - sum({UP})",
            steps(GOOD, (1, BAD)),
        ),
        number(
            "How busy was the fleet?",
            "Mean utilization of the last 5 minutes: busy time of all chosen GPUs over their observed time. Green from "
            "the target of 90 % on.",
            f"sum({of_chosen(busy('5m'))}) / sum({of_chosen(observed('5m'))})",
            steps(BAD, (0.6, MIDDLING), (GPU_TARGET, GOOD)),
        )
        .unit("percentunit")
        .decimals(0),
        number(
            "GPUs idle while holding memory",
            "GPUs below 1 % utilization over the last 30 minutes with more than 5 % of their memory in use: nobody "
            "works on them, and nobody else can.",
            f"sum({of_chosen(IDLE_HOLDER)})",
            steps(GOOD, (1, MIDDLING)),
        ),
        number(
            "Open recommendations",
            "What the advisor suggests now, for the whole fleet. No data if it does not run or its source is away.",
            "count(max by (id) (gpu_advisor_recommendation_info)) or 0 * max(gpu_advisor_source_up == 1)",
            steps(GOOD, (1, MIDDLING)),
        ),
        number(
            "Is the advice current?",
            "Stale: the advisor's data source does not answer, and the last good answer is shown.",
            "max(gpu_advisor_stale)",
            steps(GOOD, (1, BAD)),
        ).mappings(texts({"0": ("current", GOOD), "1": ("stale", BAD)})),
    ]


def recommendations() -> Table:
    panel = listing(
        "What does the advisor recommend?",
        "Open recommendations, and since when. Evidence and how to apply them are on the advisor's page. Empty if "
        "there are none: see at the top whether the advice is current.",
        [
            "max by (id, kind, scope_kind, scope, severity) (gpu_advisor_recommendation_info)",
            "max by (id) (gpu_advisor_recommendation_since_timestamp_seconds) * 1000",
        ],
        {
            "severity": "Severity",
            "kind": "Recommendation",
            "scope_kind": "For",
            "scope": "Which",
            "Value #B": "Since",
            "id": "Id",
        },
    )
    return column(panel, "Since", unit="dateTimeFromNow")


def checks() -> Table:
    # Two queries, because a check of unknown outcome has no value.
    panel = listing(
        "Which targets are met?",
        f"Each check of fleet, pools and nodes against its target: GPU {GPU_TARGET:.0%}, memory {MEMORY_TARGET:.0%}, "
        f"CPU {CPU_TARGET:.0%} unless the advisor is set otherwise. Unknown means too little data, not zero.",
        [
            CHECK.format(", status", 'gpu_advisor_check_status{scope_kind!="gpu"} == 1'),
            CHECK.format("", 'gpu_advisor_check_value_ratio{scope_kind!="gpu"}'),
        ],
        {"item": "What", "scope_kind": "Of", "scope": "Which", "status": "Target", "Value #B": "Measured"},
    ).span(12)
    panel = column(panel, "Measured", unit="percentunit", decimals=1)
    outcome = texts({"met": ("met", GOOD), "missed": ("missed", BAD), "unknown": ("unknown", MIDDLING)})
    return column(panel, "Target", mappings=outcome, **{"custom.cellOptions": {"type": "color-text"}})


def abstentions() -> Table:
    return listing(
        "Where does the advisor say nothing, and why?",
        "What it was asked to judge and could not, for want of good data.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "About", "scope_kind": "Of", "scope": "Which", "reason": "Reason"},
    ).span(12)


def usage() -> list[TimeSeries]:
    nodes = f"sum by (nodename) ({busy('$__rate_interval')} {IDENTITY})"
    nodes_observed = f"sum by (nodename) ({observed('$__rate_interval')} {IDENTITY})"
    cpu_idle = 'sum by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))'
    cpu_all = "sum by (instance) (rate(node_cpu_seconds_total[$__rate_interval]))"
    node_names = 'topk by (instance) (1, node_uname_info{nodename=~"$nodename"})'
    return [
        shares(
            "How busy are the GPUs of each node?",
            "Busy time over observed time, all chosen GPUs of a node together. Dashed: the target of 90 %.",
            f"{nodes} / {nodes_observed}",
            "{{nodename}}",
            GPU_TARGET,
        ),
        shares(
            "How busy is each GPU?",
            "Busy time over observed time: the share of time in which a kernel ran, not how much of the GPU it used. "
            "Dashed: the target of 90 %. Choose a node if there are too many lines.",
            f"{utilization('$__rate_interval')} {IDENTITY}",
            GPU,
            GPU_TARGET,
        ),
        shares(
            "How full is each GPU's memory?",
            "Memory that processes hold, of all there is. Dashed: the target of 85 %.",
            f"{MEMORY_SHARE} {IDENTITY}",
            GPU,
            MEMORY_TARGET,
        ),
        shares(
            "How busy are the CPUs of each node?",
            "Share of CPU time that was not idle. Dashed: the target of 80 %. Full CPUs keep GPUs waiting for data.",
            f"(1 - {cpu_idle} / {cpu_all}) * on (instance) group_left (nodename) {node_names}",
            "{{nodename}}",
            CPU_TARGET,
        ),
        lines(
            "How much power does each GPU draw?",
            "Power of the whole board, in watts.",
            f"max by (uuid) (gpu_power_watts) {IDENTITY}",
            GPU,
            "watt",
        ),
        target_line(
            lines(
                "How hot is each GPU?",
                "Temperature of the core. Dashed: 87 °C, where GpuTooHot fires.",
                f"max by (uuid) (gpu_temperature_celsius) {IDENTITY}",
                GPU,
                "celsius",
            ),
            87,
            BAD,
        ),
    ]


def shares(title: str, description: str, expr: str, legend: str, target: float) -> TimeSeries:
    return target_line(lines(title, description, expr, legend, "percentunit").max(1), target, GOOD)


def source_state() -> Table:
    panel = listing(
        "What does the advisor reach?",
        "The advisor's data source, and the Alertmanagers it sends to.",
        [
            'label_replace(max by (instance, source) (gpu_advisor_source_up), "what", "$1", "source", "(.*)")'
            ' or label_replace(max by (instance, alertmanager) (gpu_advisor_alertmanager_up), "what", "$1", '
            '"alertmanager", "(.*)")'
        ],
        {"instance": "Advisor", "what": "Talks to", "Value #A": "State"},
    ).span(12)
    return _state(panel)


def exporter_state() -> Table:
    panel = listing(
        "Which exporters and advisors answer Prometheus?",
        "The last scrape of each. What is known of a node is as good as its exporter's answer.",
        ['max by (job, instance) (up{job=~"gpu-exporter|gpu-advisor"})'],
        {"job": "Job", "instance": "Instance", "Value #A": "State"},
    ).span(12)
    return _state(panel)


def _state(panel: Table) -> Table:
    answers = texts({"0": ("does not answer", BAD), "1": ("answers", GOOD)})
    return column(panel, "State", mappings=answers, **{"custom.cellOptions": {"type": "color-text"}})
