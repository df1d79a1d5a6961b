"""Fleet overview: problems, open recommendations, and the nodes concerned."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import (
    STATUSES,
    advice_freshness_panel,
    advisor_variable,
    recommendation_count_panel,
    recommendations_table,
)
from grafana.dashboard_frame import cell_value, dashboard_link, label_value, new_dashboard, recommendation_annotations
from grafana.money_panels import cost_panel, savings_panel, unused_cost_panel
from grafana.queries import (
    CPU_TARGET,
    GPU_LEGEND,
    GPU_TARGET,
    HOT_CELSIUS,
    MEMORY_TARGET,
    OPEN_RECOMMENDATIONS,
    RECOMMENDED_SINCE,
    SELECTED_GPUS,
    extremes,
    memory_used_ratio,
    utilization,
    with_gpu_identity,
    with_node_name,
)

#: Bands of GPU utilization: legend, recorded numbers of GPUs below the band's end and start, colour. Below 1 % is what
#: the advisor calls idle.
BANDS = (
    ("0 to 1 % (idle)", "gpus_below_1_percent:sum", "", panels.BAD),
    ("1 to 60 %", "gpus_below_60_percent:sum", "gpus_below_1_percent:sum", panels.WARNING),
    ("60 to 90 %", "gpus_below_90_percent:sum", "gpus_below_60_percent:sum", "yellow"),
    ("90 to 100 %", "gpus_measured:count", "gpus_below_90_percent:sum", panels.GOOD),
)
TEMPERATURE = "gpu:temperature_celsius:last"
HOTTEST = (
    f"({TEMPERATURE} and on (cluster, uuid) topk(10, max_over_time({TEMPERATURE}[$__range] @ end())"
    f" and on (cluster, uuid) (gpu:identity:info{SELECTED_GPUS} @ end())))"
)
CHECK = "max by (item, scope_kind, scope{}) ({})"


def dashboard() -> Dashboard:
    board = (
        new_dashboard("fleet", "GPU fleet", "Are the GPUs healthy and used, and what does the advisor recommend?")
        .with_variable(panels.cluster_variable())
        .with_variable(panels.multi_value_variable("nodename", "Node", "gpu:identity:info", '{cluster=~"$cluster"}'))
        .with_variable(
            panels.multi_value_variable(
                "name", "GPU model", "gpu:identity:info", '{cluster=~"$cluster", nodename=~"$nodename"}'
            )
        )
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({OPEN_RECOMMENDATIONS})"
            )
        )
    )
    for panel in overview():
        board = board.with_panel(panel.span(6))
    board = board.with_row(Row("Money"))
    for panel in (cost_panel(SELECTED_GPUS), unused_cost_panel(SELECTED_GPUS), savings_panel()):
        board = board.with_panel(panel)
    board = board.with_row(Row("Recommendations")).with_panel(advice())
    board = board.with_row(Row("Nodes")).with_panel(nodes())
    board = board.with_row(Row("Utilization"))
    for graph in usage():
        board = board.with_panel(graph)
    return board.with_row(Row("Checklist")).with_panel(checks()).with_panel(abstentions())


def gpus_between(low: str, high: str) -> str:
    """The number of selected GPUs below one limit and not below another, by their recorded series."""
    below = f"sum(host:{high}{SELECTED_GPUS})"
    return f"{below} - sum(host:{low}{SELECTED_GPUS})" if low else below


def overview() -> list[Stat]:
    # Sums over existing series: 0 is a count, never missing data.
    return [
        panels.stat_panel("GPUs", "All GPUs that an exporter reports.", f"sum(host:gpus:count{SELECTED_GPUS})"),
        panels.stat_panel(
            "GPUs down",
            "Known GPUs that do not respond. The alert GpuDown shows which and why. No data if the exporter does not "
            "report it.",
            f"sum(host:gpus_down:sum{SELECTED_GPUS})",
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ),
        panels.ratio_panel(
            "GPU utilization",
            "Mean over the last 5 minutes: the ratio of time in which kernels ran. Green from the target of 90 %.",
            utilization(),
            GPU_TARGET,
        ),
        panels.memory_panel(
            "GPU memory used",
            "Ratio of GPU memory in use. Green around the target: 80 to 90 %. Red from 95 %.",
            memory_used_ratio(),
        ),
        panels.stat_panel(
            "Idle GPUs",
            "GPUs below 1 % utilization over the last 30 minutes. GPUs without data for 90 % of it do not count.",
            f"sum(host:gpus_idle:sum30m{SELECTED_GPUS})",
            panels.threshold_steps(panels.GOOD, (1, panels.WARNING)),
        ),
        panels.stat_panel(
            "Idle GPUs, memory allocated",
            "Idle GPUs with more than 5 % of their memory in use: unused, and unusable for others.",
            f"sum(host:gpus_idle_holding:sum30m{SELECTED_GPUS})",
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ),
        recommendation_count_panel(),
        advice_freshness_panel(),
    ]


def advice() -> Table:
    return recommendations_table(
        "Open recommendations by GPU, job, node and pool", "All open recommendations of the fleet."
    ).height(10)


def nodes() -> Table:
    panel = panels.table_panel(
        "Nodes by utilization",
        "GPUs of each node: mean utilization, memory used, number of idle and down GPUs. Click a node to see its GPUs.",
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
            "Value #B": "Utilization",
            "Value #C": "Memory",
            "Value #D": "Idle",
            "Value #E": "Idle, memory allocated",
            "Value #F": "Down",
            "Value #G": "Power",
        },
    )
    panel = panels.format_ratio_column(panel, "Utilization", GPU_TARGET)
    panel = panels.format_memory_column(panel, "Memory")
    panel = panels.sort_table(panels.override_column(panel, "Power", unit="watt"), "Utilization")
    return panels.add_column_links(
        panel, "Node", dashboard_link("node", "GPUs of this node", nodename=cell_value("Node"))
    ).height(7)


def usage() -> list[TimeSeries]:
    node = dashboard_link("node", "GPUs of this node", nodename=label_value("nodename"))
    return [
        panels.stacked(
            panels.timeseries_panel(
                "GPUs by utilization",
                "Number of selected GPUs in each band of utilization over 5 minutes: the shape of a fleet of any size. "
                "Annotations: starts of recommendations.",
                "short",
                *((gpus_between(low, high), legend) for legend, high, low, _ in BANDS),
            ),
            {legend: color for legend, *_, color in BANDS},
        ).span(24),
        panels.ratio_timeseries_panel(
            "Nodes with the lowest GPU utilization",
            "Mean over 5 minutes of a node's selected GPUs; the ten lowest now. Dashed: the target of 90 %.",
            (extremes(utilization(by="nodename"), "nodename", "bottomk"), "{{nodename}}"),
            target=GPU_TARGET,
        ).data_links([node]),
        panels.ratio_timeseries_panel(
            "GPU utilization by model",
            "Mean over 5 minutes of the selected GPUs of a model. Dashed: the target of 90 %.",
            (utilization(by="name"), "{{name}}"),
            target=GPU_TARGET,
        ),
        panels.ratio_timeseries_panel(
            "Nodes with the most GPU memory used",
            "Ratio of memory in use, over a node's selected GPUs; the ten highest now. Dashed: the target of 85 %.",
            (extremes(memory_used_ratio(by="nodename"), "nodename"), "{{nodename}}"),
            target=MEMORY_TARGET,
        ).data_links([node]),
        panels.ratio_timeseries_panel(
            "Nodes with the highest CPU utilization",
            "Ratio of CPU time not idle; the ten highest now. Dashed: the target of 80 %. Saturated CPUs "
            "keep GPUs waiting for data.",
            (extremes(with_node_name("node:cpu_ratio:mean5m"), "nodename"), "{{nodename}}"),
            target=CPU_TARGET,
        ),
        panels.timeseries_panel(
            "GPU power draw by model",
            "Sum over the selected GPUs of a model.",
            "watt",
            (f"sum by (name) (host:gpu_power_watts:sum{SELECTED_GPUS})", "{{name}}"),
        ),
        panels.add_target_line(
            panels.timeseries_panel(
                "Hottest GPUs",
                f"Core temperature; the ten highest in the time range. Dashed: {HOT_CELSIUS} °C, where the alert "
                "GpuTooHot fires.",
                "celsius",
                (with_gpu_identity(HOTTEST), GPU_LEGEND),
            ),
            HOT_CELSIUS,
            panels.BAD,
        ),
    ]


def checks() -> Table:
    # Two queries, because a check with status unknown has no value.
    panel = panels.table_panel(
        "Checks against their targets",
        f"Checks of fleet, pools and nodes. Default targets: GPU {GPU_TARGET:.0%}, memory {MEMORY_TARGET:.0%}, CPU "
        f"{CPU_TARGET:.0%}. Unknown means insufficient data, not zero.",
        [
            CHECK.format(", status", 'gpu_advisor_check_status{scope_kind!="gpu"} == 1'),
            CHECK.format("", 'gpu_advisor_check_value_ratio{scope_kind!="gpu"}'),
        ],
        {"item": "Check", "scope_kind": "Scope", "scope": "Name", "status": "Status", "Value #B": "Measured"},
        wanted="status",
    ).span(12)
    panel = panels.override_column(panel, "Measured", unit="percentunit", decimals=1)
    return panels.format_state_column(panel, "Status", STATUSES)


def abstentions() -> Table:
    return panels.table_panel(
        "Abstentions",
        "Evaluations without a result, because data is missing or insufficient.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "Subject", "scope_kind": "Scope", "scope": "Name", "reason": "Reason"},
    ).span(12)
