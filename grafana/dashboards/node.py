"""One node: its GPUs, and whether CPUs, memory, disks and network keep up with them."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, dashboard_link, label_value, new_dashboard, recommendation_annotations
from grafana.queries import (
    CPU_TARGET,
    GPU_TARGET,
    HOT_CELSIUS,
    MEMORY_TARGET,
    NODES,
    RECOMMENDED_SINCE,
    memory_used_ratio,
    recommendations_for_gpus,
    utilization,
    with_gpu_identity,
    with_node_name,
)

THIS_NODE = '{cluster=~"$cluster", nodename="$nodename"}'
GPU = "GPU {{index}}"


def dashboard() -> Dashboard:
    own = recommendations_for_gpus(f"gpu:identity:info{THIS_NODE}")
    board = (
        new_dashboard("node", "GPU node", "How are the GPUs of one node used, and does the node keep up with them?")
        .with_variable(panels.cluster_variable())
        .with_variable(panels.single_value_variable("nodename", "Node", NODES))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"
            )
        )
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_panel(gpus()).with_panel(
        recommendations_table(
            "Recommendations for these GPUs",
            "Open recommendations that concern at least one GPU of this node, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("GPUs over time"))
    for graph in gpu_graphs():
        board = board.with_panel(graph)
    board = board.with_row(Row("Host resources"))
    for graph in host_graphs():
        board = board.with_panel(graph)
    return board


def overview() -> list[Stat]:
    return [
        panels.stat_panel("GPUs", "All GPUs that the node's exporter reports.", f"sum(host:gpus:count{THIS_NODE})"),
        panels.stat_panel(
            "GPUs down",
            "GPUs that do not respond; see the alert GpuDown. No data if the exporter does not report it.",
            f"sum(host:gpus_down:sum{THIS_NODE})",
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ),
        panels.ratio_panel(
            "GPU utilization",
            "Mean over the last 5 minutes. Green from the target of 90 %.",
            utilization(THIS_NODE),
            GPU_TARGET,
        ),
        panels.memory_panel(
            "GPU memory used",
            "Ratio of GPU memory in use. Green around the target: 80 to 90 %. Red from 95 %.",
            memory_used_ratio(THIS_NODE),
        ),
        panels.stat_panel(
            "CPU utilization",
            "Ratio of CPU time not idle. Orange from the target of 80 %: GPUs may wait for CPUs.",
            f"max({with_node_name('node:cpu_ratio:mean5m', THIS_NODE)})",
            panels.threshold_steps(panels.GOOD, (CPU_TARGET, panels.WARNING), (0.95, panels.BAD)),
            "percentunit",
        ).decimals(0),
        panels.stat_panel(
            "Host memory used",
            "Ratio of host memory in use. When it runs out, the OOM killer ends processes.",
            f"max({with_node_name('node:memory_used_ratio:last', THIS_NODE)})",
            panels.threshold_steps(panels.GOOD, (MEMORY_TARGET, panels.WARNING), (0.95, panels.BAD)),
            "percentunit",
        ).decimals(0),
    ]


def gpus() -> Table:
    panel = panels.table_panel(
        "GPUs",
        "Current values, or means over the last 5 minutes. Click a GPU for details.",
        [
            f"max by (cluster, uuid, index, name, nodename) (gpu:identity:info{THIS_NODE})",
            *(
                f"{series} and on (cluster, uuid) gpu:identity:info{THIS_NODE}"
                for series in (
                    "gpu:utilization_ratio:mean5m",
                    "gpu:sm_activity_ratio:mean5m",
                    "gpu:memory_used_ratio:last",
                    "gpu:temperature_celsius:last",
                    "gpu:power_watts:last",
                    "gpu:processes:last",
                )
            ),
        ],
        {
            "index": "GPU",
            "name": "Model",
            "Value #B": "Utilization",
            "Value #C": "SM activity",
            "Value #D": "Memory",
            "Value #E": "Temperature",
            "Value #F": "Power",
            "Value #G": "Processes",
            "uuid": "UUID",
        },
        wanted="index",
    )
    panel = panels.format_ratio_column(panel, "Utilization", GPU_TARGET)
    panel = panels.format_ratio_column(panel, "SM activity")
    panel = panels.format_memory_column(panel, "Memory")
    panel = panels.override_column(panel, "Temperature", unit="celsius")
    panel = panels.sort_table(panels.override_column(panel, "Power", unit="watt", decimals=0), "GPU")
    panel = panels.set_column_widths(panel, {"GPU": 60, "Model": 220, "UUID": 330})
    this = dashboard_link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=cell_value("UUID"))
    panel = panels.add_column_links(panels.add_column_links(panel, "GPU", this), "UUID", this)
    return panel.height(10)


def gpu_graphs() -> list[TimeSeries]:
    this = dashboard_link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=label_value("uuid"))
    return [
        panels.ratio_timeseries_panel(
            "GPU utilization by GPU",
            "Ratio of time in which a kernel ran, over 5 minutes; not how much of the GPU it used. Dashed: the "
            "target of 90 %. Annotations: starts of recommendations.",
            (with_gpu_identity("gpu:utilization_ratio:mean5m", THIS_NODE), GPU),
            target=GPU_TARGET,
        ).data_links([this]),
        panels.ratio_timeseries_panel(
            "GPU memory used by GPU",
            "Ratio of GPU memory in use. Dashed: the target of 85 %.",
            (with_gpu_identity("gpu:memory_used_ratio:last", THIS_NODE), GPU),
            target=MEMORY_TARGET,
        ).data_links([this]),
        panels.timeseries_panel(
            "Power draw by GPU",
            "Power draw of the board. High utilization with a low power draw means little work.",
            "watt",
            (with_gpu_identity("gpu:power_watts:last", THIS_NODE), GPU),
        ).data_links([this]),
        panels.add_target_line(
            panels.timeseries_panel(
                "Temperature by GPU",
                f"Core temperature. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (with_gpu_identity("gpu:temperature_celsius:last", THIS_NODE), GPU),
            ),
            HOT_CELSIUS,
            panels.BAD,
        ).data_links([this]),
    ]


def host_graphs() -> list[TimeSeries]:
    return [
        panels.ratio_timeseries_panel(
            "CPU utilization and host memory used",
            "Ratio of CPU time not idle, and ratio of host memory in use. Dashed: the CPU target of 80 %.",
            (with_node_name("node:cpu_ratio:mean5m", THIS_NODE), "CPUs"),
            (with_node_name("node:memory_used_ratio:last", THIS_NODE), "memory"),
            target=CPU_TARGET,
        ),
        panels.ratio_timeseries_panel(
            "Disk and network utilization",
            "Ratio of time in which the busiest disk was busy, and in which a task waited for storage; ratio of link "
            "speed used on the busiest link.",
            (with_node_name("node:disk_busy_ratio:rate5m", THIS_NODE), "busiest disk"),
            (with_node_name("node:io_pressure_ratio:rate5m", THIS_NODE), "waiting for storage"),
            (with_node_name("node:network_receive_ratio:rate5m", THIS_NODE), "network, received"),
            (with_node_name("node:network_transmit_ratio:rate5m", THIS_NODE), "network, sent"),
        ),
    ]
