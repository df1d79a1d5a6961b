"""One node: its GPUs side by side, and what its CPUs, memory, disks and network do to them."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, label_value, link, new_dashboard, recommendation_annotations
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    add_target_line,
    format_ratio_column,
    override_column,
    ratio_panel,
    ratio_timeseries_panel,
    set_column_widths,
    single_value_variable,
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
    RECOMMENDED_SINCE,
    memory_used_ratio,
    recommendations_for_gpus,
    utilization,
    with_gpu_identity,
    with_node_name,
)

THIS_NODE = '{nodename="$nodename"}'
GPU = "GPU {{index}}"


def dashboard() -> Dashboard:
    own = recommendations_for_gpus(f"gpu:identity:info{THIS_NODE}")
    board = (
        new_dashboard("node", "GPU node", "How do the GPUs of one node fare, and does the node keep up with them?")
        .with_variable(single_value_variable("nodename", "Node", "label_values(gpu:identity:info, nodename)"))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"
            )
        )
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(gpus()).with_panel(
        recommendations_table(
            "What is recommended for these GPUs?",
            "Open recommendations about at least one of this node's GPUs, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("How are the GPUs used?"))
    for graph in gpu_graphs():
        board = board.with_panel(graph)
    board = board.with_row(Row("Does the node keep up?"))
    for graph in host_graphs():
        board = board.with_panel(graph)
    return board


def glance() -> list[Stat]:
    return [
        stat_panel("GPUs", "All that the node's exporter tells of.", f"sum(host:gpus:count{THIS_NODE})"),
        stat_panel(
            "GPUs that are down",
            "GPUs that do not answer. The alert GpuDown tells which and why. No data where the exporter does not tell.",
            f"sum(host:gpus_down:sum{THIS_NODE})",
            steps(GOOD, (1, BAD)),
        ),
        ratio_panel(
            "How busy are the GPUs?",
            "Mean utilization of the last 5 minutes. Green from the target of 90 % on.",
            utilization(THIS_NODE),
            GPU_TARGET,
        ),
        ratio_panel(
            "How full is their memory?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            memory_used_ratio(THIS_NODE),
            MEMORY_TARGET,
        ),
        stat_panel(
            "How busy are the CPUs?",
            "Share of CPU time that was not idle. Orange from the target of 80 % on: GPUs may wait for them.",
            f"max({with_node_name('node:cpu_ratio:mean5m', THIS_NODE)})",
            steps(GOOD, (CPU_TARGET, WARNING), (0.95, BAD)),
            "percentunit",
        ).decimals(0),
        stat_panel(
            "How full is the node's memory?",
            "Share of the memory that is in use. Where it runs out, the kernel ends processes.",
            f"max({with_node_name('node:memory_used_ratio:last', THIS_NODE)})",
            steps(GOOD, (MEMORY_TARGET, WARNING), (0.95, BAD)),
            "percentunit",
        ).decimals(0),
    ]


def gpus() -> Table:
    panel = table_panel(
        "What does each GPU do?",
        "Now, or over the last 5 minutes where it is a mean. A click on a GPU shows it alone.",
        [
            f"max by (uuid, index, name, nodename) (gpu:identity:info{THIS_NODE})",
            *(
                f"{series} and on (uuid) gpu:identity:info{THIS_NODE}"
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
            "Value #B": "Busy",
            "Value #C": "SMs at work",
            "Value #D": "Memory",
            "Value #E": "Temperature",
            "Value #F": "Power",
            "Value #G": "Processes",
            "uuid": "UUID",
        },
        wanted="index",
    )
    panel = format_ratio_column(panel, "Busy", GPU_TARGET)
    panel = format_ratio_column(panel, "SMs at work")
    panel = format_ratio_column(panel, "Memory", MEMORY_TARGET)
    panel = override_column(panel, "Temperature", unit="celsius")
    panel = sort_table(override_column(panel, "Power", unit="watt", decimals=0), "GPU")
    panel = set_column_widths(panel, {"GPU": 60, "Model": 220, "UUID": 330})
    this = link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=cell_value("UUID"))
    panel = add_column_links(add_column_links(panel, "GPU", this), "UUID", this)
    return panel.height(10)


def gpu_graphs() -> list[TimeSeries]:
    this = link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=label_value("uuid"))
    return [
        ratio_timeseries_panel(
            "How busy is each GPU?",
            "Share of the time in which a kernel ran, over 5 minutes; not how much of the GPU it used. Dashed: the "
            "target of 90 %. Marks: since when a recommendation is given.",
            (with_gpu_identity("gpu:utilization_ratio:mean5m", THIS_NODE), GPU),
            target=GPU_TARGET,
        ).data_links([this]),
        ratio_timeseries_panel(
            "How full is each GPU's memory?",
            "Memory that processes hold, of all there is. Dashed: the target of 85 %.",
            (with_gpu_identity("gpu:memory_used_ratio:last", THIS_NODE), GPU),
            target=MEMORY_TARGET,
        ).data_links([this]),
        timeseries_panel(
            "How much power does each GPU draw?",
            "Power of the whole board. A GPU that is busy and draws little works little.",
            "watt",
            (with_gpu_identity("gpu:power_watts:last", THIS_NODE), GPU),
        ).data_links([this]),
        add_target_line(
            timeseries_panel(
                "How hot is each GPU?",
                f"Temperature of the core. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (with_gpu_identity("gpu:temperature_celsius:last", THIS_NODE), GPU),
            ),
            HOT_CELSIUS,
            BAD,
        ).data_links([this]),
    ]


def host_graphs() -> list[TimeSeries]:
    return [
        ratio_timeseries_panel(
            "Do the GPUs wait for CPUs or memory?",
            "Share of CPU time that was not idle, and share of the memory in use. Dashed: the CPUs' target of 80 %.",
            (with_node_name("node:cpu_ratio:mean5m", THIS_NODE), "CPUs"),
            (with_node_name("node:memory_used_ratio:last", THIS_NODE), "memory"),
            target=CPU_TARGET,
        ),
        ratio_timeseries_panel(
            "Do they wait for disks or the network?",
            "Share of the time in which the busiest disk had work and in which some task waited for storage; and of "
            "the fullest link's speed.",
            (with_node_name("node:disk_busy_ratio:rate5m", THIS_NODE), "busiest disk"),
            (with_node_name("node:io_pressure_ratio:rate5m", THIS_NODE), "waiting for storage"),
            (with_node_name("node:network_receive_ratio:rate5m", THIS_NODE), "network, received"),
            (with_node_name("node:network_transmit_ratio:rate5m", THIS_NODE), "network, sent"),
        ),
    ]
