"""The fleet at a glance: is anything wrong, what is there to do, and where."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import (
    STATUSES,
    advice_freshness_panel,
    advisor_variable,
    recommendation_count_panel,
    recommendations_table,
)
from grafana.dashboard_frame import cell_value, label_value, link, new_dashboard, recommendation_annotations
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    add_target_line,
    format_ratio_column,
    format_state_column,
    multi_value_variable,
    override_column,
    ratio_panel,
    ratio_timeseries_panel,
    sort_table,
    stat_panel,
    steps,
    table_panel,
    timeseries_panel,
)
from grafana.queries import (
    CPU_TARGET,
    GPU_TARGET,
    HOT_CELSIUS,
    MEMORY_TARGET,
    OPEN_RECOMMENDATIONS,
    RECOMMENDED_SINCE,
    SELECTED_GPUS,
    memory_used_ratio,
    utilization,
    with_gpu_identity,
    with_node_name,
)

CHECK = "max by (item, scope_kind, scope{}) ({})"


def dashboard() -> Dashboard:
    board = (
        new_dashboard(
            "fleet", "GPU fleet", "Is anything wrong with the GPUs, are they used, and what does the advisor suggest?"
        )
        .with_variable(multi_value_variable("nodename", "Node", "gpu:identity:info"))
        .with_variable(multi_value_variable("name", "GPU model", "gpu:identity:info", '{nodename=~"$nodename"}'))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({OPEN_RECOMMENDATIONS})"
            )
        )
    )
    for panel in glance():
        board = board.with_panel(panel.span(6))
    board = board.with_row(Row("What is there to do?")).with_panel(advice())
    board = board.with_row(Row("Where?")).with_panel(nodes())
    board = board.with_row(Row("How are the GPUs used?"))
    for graph in usage():
        board = board.with_panel(graph)
    return board.with_row(Row("Which targets are met?")).with_panel(checks()).with_panel(abstentions())


def glance() -> list[Stat]:
    # Sums of what there is: zero is shown when it was counted, never for want of data.
    return [
        stat_panel("GPUs", "All that an exporter tells of.", f"sum(host:gpus:count{SELECTED_GPUS})"),
        stat_panel(
            "GPUs that are down",
            "GPUs that their exporter knows and that do not answer. The alert GpuDown tells which and why. No data "
            "where the exporter does not tell.",
            f"sum(host:gpus_down:sum{SELECTED_GPUS})",
            steps(GOOD, (1, BAD)),
        ),
        ratio_panel(
            "How busy is the fleet?",
            "Mean utilization of the last 5 minutes: the share of time in which kernels ran. Green from the target of "
            "90 % on.",
            utilization(),
            GPU_TARGET,
        ),
        ratio_panel(
            "How full is the memory?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            memory_used_ratio(),
            MEMORY_TARGET,
        ),
        stat_panel(
            "GPUs that do nothing",
            "GPUs below 1 % utilization over the last 30 minutes. Those that were seen for less than 90 % of that time "
            "are not counted.",
            f"sum(host:gpus_idle:sum30m{SELECTED_GPUS})",
            steps(GOOD, (1, WARNING)),
        ),
        stat_panel(
            "GPUs idle while holding memory",
            "Those of them with more than 5 % of their memory in use: nobody works on them, and nobody else can.",
            f"sum(host:gpus_idle_holding:sum30m{SELECTED_GPUS})",
            steps(GOOD, (1, BAD)),
        ),
        recommendation_count_panel(),
        advice_freshness_panel(),
    ]


def advice() -> Table:
    return recommendations_table(
        "What does the advisor recommend?", "Open recommendations for the whole fleet."
    ).height(10)


def nodes() -> Table:
    panel = table_panel(
        "Which nodes need a look?",
        "The GPUs of each node: how busy they are on average, how full, and how many of them are idle or down. A "
        "click on a node's name shows its GPUs.",
        [
            f"sum by (nodename) (host:gpus:count{SELECTED_GPUS})",
            utilization(by="nodename"),
            memory_used_ratio(by="nodename"),
            f"sum by (nodename) (host:gpus_idle:sum30m{SELECTED_GPUS})",
            f"sum by (nodename) (host:gpus_idle_holding:sum30m{SELECTED_GPUS})",
            f"sum by (nodename) (host:gpus_down:sum{SELECTED_GPUS})",
            f"sum by (nodename) (host:gpu_power_watts:sum{SELECTED_GPUS})",
        ],
        {
            "nodename": "Node",
            "Value #A": "GPUs",
            "Value #B": "Busy",
            "Value #C": "Memory",
            "Value #D": "Idle",
            "Value #E": "Idle, holding memory",
            "Value #F": "Down",
            "Value #G": "Power",
        },
    )
    panel = format_ratio_column(panel, "Busy", GPU_TARGET)
    panel = format_ratio_column(panel, "Memory", MEMORY_TARGET)
    panel = sort_table(override_column(panel, "Power", unit="watt"), "Busy")
    return add_column_links(panel, "Node", link("node", "GPUs of this node", nodename=cell_value("Node"))).height(7)


def usage() -> list[TimeSeries]:
    node = link("node", "GPUs of this node", nodename=label_value("nodename"))
    return [
        ratio_timeseries_panel(
            "How busy are the GPUs of each node?",
            "Mean utilization of a node's chosen GPUs over 5 minutes. Dashed: the target of 90 %. Marks: since when a "
            "recommendation is given.",
            (utilization(by="nodename"), "{{nodename}}"),
            target=GPU_TARGET,
        ).data_links([node]),
        ratio_timeseries_panel(
            "How busy are the GPUs of each model?",
            "Mean utilization of all chosen GPUs of a model over 5 minutes. Dashed: the target of 90 %.",
            (utilization(by="name"), "{{name}}"),
            target=GPU_TARGET,
        ),
        ratio_timeseries_panel(
            "How full is the memory of each node's GPUs?",
            "Memory that processes hold, of all that the node's chosen GPUs have. Dashed: the target of 85 %.",
            (memory_used_ratio(by="nodename"), "{{nodename}}"),
            target=MEMORY_TARGET,
        ).data_links([node]),
        ratio_timeseries_panel(
            "How busy are the CPUs of each node?",
            "Share of CPU time that was not idle. Dashed: the target of 80 %. Full CPUs keep GPUs waiting for data.",
            (with_node_name("node:cpu_ratio:mean5m"), "{{nodename}}"),
            target=CPU_TARGET,
        ),
        timeseries_panel(
            "How much power do the GPUs of each node draw?",
            "Power of all chosen boards of a node.",
            "watt",
            (f"sum by (nodename) (host:gpu_power_watts:sum{SELECTED_GPUS})", "{{nodename}}"),
        ),
        add_target_line(
            timeseries_panel(
                "Which GPUs are the hottest?",
                f"Temperature of the cores of the five hottest GPUs at each moment. Dashed: {HOT_CELSIUS} °C, where "
                "the alert GpuTooHot fires.",
                "celsius",
                (f"topk(5, {with_gpu_identity('gpu:temperature_celsius:last')})", "{{nodename}} GPU {{index}}"),
            ),
            HOT_CELSIUS,
            BAD,
        ),
    ]


def checks() -> Table:
    # Two queries, because a check of unknown outcome has no value.
    panel = table_panel(
        "Which targets are met?",
        f"Each check of fleet, pools and nodes against its target: GPU {GPU_TARGET:.0%}, memory {MEMORY_TARGET:.0%}, "
        f"CPU {CPU_TARGET:.0%} unless the advisor is set otherwise. Unknown means too little data, not zero.",
        [
            CHECK.format(", status", 'gpu_advisor_check_status{scope_kind!="gpu"} == 1'),
            CHECK.format("", 'gpu_advisor_check_value_ratio{scope_kind!="gpu"}'),
        ],
        {"item": "What", "scope_kind": "Of", "scope": "Which", "status": "Target", "Value #B": "Measured"},
        wanted="status",
    ).span(12)
    panel = override_column(panel, "Measured", unit="percentunit", decimals=1)
    return format_state_column(panel, "Target", STATUSES)


def abstentions() -> Table:
    return table_panel(
        "Where does the advisor say nothing, and why?",
        "What it was asked to judge and could not, for want of good data.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "About", "scope_kind": "Of", "scope": "Which", "reason": "Reason"},
    ).span(12)
