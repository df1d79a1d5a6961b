"""One node: its GPUs side by side, and what its CPUs, memory, disks and network do to them."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advice import advisor_variable, recommendations
from grafana.board import cell, frame, label, link, marks
from grafana.panels import (
    BAD,
    GOOD,
    MIDDLING,
    column,
    lines,
    link_column,
    listing,
    number,
    one_of,
    ratio_column,
    share,
    shares,
    sorted_by,
    steps,
    target_line,
    widths,
)
from grafana.series import (
    CPU_TARGET,
    GPU_TARGET,
    HOT_CELSIUS,
    MEMORY_TARGET,
    SINCE,
    advice_on,
    busy_share,
    identified,
    memory_share,
    of_nodes,
)

HERE = '{nodename="$nodename"}'
GPU = "GPU {{index}}"


def dashboard() -> Dashboard:
    own = advice_on(f"gpu:identity:info{HERE}")
    board = (
        frame("node", "GPU node", "How do the GPUs of one node fare, and does the node keep up with them?")
        .with_variable(one_of("nodename", "Node", "label_values(gpu:identity:info, nodename)"))
        .with_variable(advisor_variable())
        .annotation(marks(f"{SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"))
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(gpus()).with_panel(
        recommendations(
            "What is recommended for these GPUs?",
            "Open recommendations about at least one of this node's GPUs, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("How are the GPUs used?"))
    for graph in of_gpus():
        board = board.with_panel(graph)
    board = board.with_row(Row("Does the node keep up?"))
    for graph in of_host():
        board = board.with_panel(graph)
    return board


def glance() -> list[Stat]:
    return [
        number("GPUs", "All that the node's exporter tells of.", f"sum(host:gpus:count{HERE})"),
        number(
            "GPUs that are down",
            "GPUs that do not answer. The alert GpuDown tells which and why. No data where the exporter does not tell.",
            f"sum(host:gpus_down:sum{HERE})",
            steps(GOOD, (1, BAD)),
        ),
        share(
            "How busy are the GPUs?",
            "Mean utilization of the last 5 minutes. Green from the target of 90 % on.",
            busy_share(HERE),
            GPU_TARGET,
        ),
        share(
            "How full is their memory?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            memory_share(HERE),
            MEMORY_TARGET,
        ),
        number(
            "How busy are the CPUs?",
            "Share of CPU time that was not idle. Orange from the target of 80 % on: GPUs may wait for them.",
            f"max({of_nodes('node:cpu_ratio:mean5m', HERE)})",
            steps(GOOD, (CPU_TARGET, MIDDLING), (0.95, BAD)),
            "percentunit",
        ).decimals(0),
        number(
            "How full is the node's memory?",
            "Share of the memory that is in use. Where it runs out, the kernel ends processes.",
            f"max({of_nodes('node:memory_used_ratio:last', HERE)})",
            steps(GOOD, (MEMORY_TARGET, MIDDLING), (0.95, BAD)),
            "percentunit",
        ).decimals(0),
    ]


def gpus() -> Table:
    panel = listing(
        "What does each GPU do?",
        "Now, or over the last 5 minutes where it is a mean. A click on a GPU shows it alone.",
        [
            f"max by (uuid, index, name, nodename) (gpu:identity:info{HERE})",
            *(
                f"{series} and on (uuid) gpu:identity:info{HERE}"
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
    panel = ratio_column(panel, "Busy", GPU_TARGET)
    panel = ratio_column(panel, "SMs at work")
    panel = ratio_column(panel, "Memory", MEMORY_TARGET)
    panel = column(panel, "Temperature", unit="celsius")
    panel = sorted_by(column(panel, "Power", unit="watt", decimals=0), "GPU")
    panel = widths(panel, {"GPU": 60, "Model": 220, "UUID": 330})
    this = link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=cell("UUID"))
    panel = link_column(link_column(panel, "GPU", this), "UUID", this)
    return panel.height(10)


def of_gpus() -> list[TimeSeries]:
    this = link("gpu", "This GPU", nodename="${nodename:percentencode}", uuid=label("uuid"))
    return [
        shares(
            "How busy is each GPU?",
            "Share of the time in which a kernel ran, over 5 minutes; not how much of the GPU it used. Dashed: the "
            "target of 90 %. Marks: since when a recommendation is given.",
            (identified("gpu:utilization_ratio:mean5m", HERE), GPU),
            target=GPU_TARGET,
        ).data_links([this]),
        shares(
            "How full is each GPU's memory?",
            "Memory that processes hold, of all there is. Dashed: the target of 85 %.",
            (identified("gpu:memory_used_ratio:last", HERE), GPU),
            target=MEMORY_TARGET,
        ).data_links([this]),
        lines(
            "How much power does each GPU draw?",
            "Power of the whole board. A GPU that is busy and draws little works little.",
            "watt",
            (identified("gpu:power_watts:last", HERE), GPU),
        ).data_links([this]),
        target_line(
            lines(
                "How hot is each GPU?",
                f"Temperature of the core. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (identified("gpu:temperature_celsius:last", HERE), GPU),
            ),
            HOT_CELSIUS,
            BAD,
        ).data_links([this]),
    ]


def of_host() -> list[TimeSeries]:
    return [
        shares(
            "Do the GPUs wait for CPUs or memory?",
            "Share of CPU time that was not idle, and share of the memory in use. Dashed: the CPUs' target of 80 %.",
            (of_nodes("node:cpu_ratio:mean5m", HERE), "CPUs"),
            (of_nodes("node:memory_used_ratio:last", HERE), "memory"),
            target=CPU_TARGET,
        ),
        shares(
            "Do they wait for disks or the network?",
            "Share of the time in which the busiest disk had work and in which some task waited for storage; and of "
            "the fullest link's speed.",
            (of_nodes("node:disk_busy_ratio:rate5m", HERE), "busiest disk"),
            (of_nodes("node:io_pressure_ratio:rate5m", HERE), "waiting for storage"),
            (of_nodes("node:network_receive_ratio:rate5m", HERE), "network, received"),
            (of_nodes("node:network_transmit_ratio:rate5m", HERE), "network, sent"),
        ),
    ]
