"""The fleet at a glance: is anything wrong, what is there to do, and where."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advice import STATUSES, advisor_variable, how_many, is_it_current, recommendations
from grafana.board import cell, frame, label, link, marks
from grafana.panels import (
    BAD,
    GOOD,
    MIDDLING,
    choice,
    column,
    lines,
    link_column,
    listing,
    number,
    ratio_column,
    share,
    shares,
    sorted_by,
    state_column,
    steps,
    target_line,
)
from grafana.series import (
    ADVICE,
    CHOSEN,
    CPU_TARGET,
    GPU_TARGET,
    HOT_CELSIUS,
    MEMORY_TARGET,
    SINCE,
    busy_share,
    identified,
    memory_share,
    of_nodes,
)

CHECK = "max by (item, scope_kind, scope{}) ({})"


def dashboard() -> Dashboard:
    board = (
        frame(
            "fleet", "GPU fleet", "Is anything wrong with the GPUs, are they used, and what does the advisor suggest?"
        )
        .with_variable(choice("nodename", "Node", "gpu:identity:info"))
        .with_variable(choice("name", "GPU model", "gpu:identity:info", '{nodename=~"$nodename"}'))
        .with_variable(advisor_variable())
        .annotation(marks(f"{SINCE} * on (id) group_left (kind, severity, scope, alert) ({ADVICE})"))
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
        number("GPUs", "All that an exporter tells of.", f"sum(host:gpus:count{CHOSEN})"),
        number(
            "GPUs that are down",
            "GPUs that their exporter knows and that do not answer. The alert GpuDown tells which and why. No data "
            "where the exporter does not tell.",
            f"sum(host:gpus_down:sum{CHOSEN})",
            steps(GOOD, (1, BAD)),
        ),
        share(
            "How busy is the fleet?",
            "Mean utilization of the last 5 minutes: the share of time in which kernels ran. Green from the target of "
            "90 % on.",
            busy_share(),
            GPU_TARGET,
        ),
        share(
            "How full is the memory?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            memory_share(),
            MEMORY_TARGET,
        ),
        number(
            "GPUs that do nothing",
            "GPUs below 1 % utilization over the last 30 minutes. Those that were seen for less than 90 % of that time "
            "are not counted.",
            f"sum(host:gpus_idle:sum30m{CHOSEN})",
            steps(GOOD, (1, MIDDLING)),
        ),
        number(
            "GPUs idle while holding memory",
            "Those of them with more than 5 % of their memory in use: nobody works on them, and nobody else can.",
            f"sum(host:gpus_idle_holding:sum30m{CHOSEN})",
            steps(GOOD, (1, BAD)),
        ),
        how_many(),
        is_it_current(),
    ]


def advice() -> Table:
    return recommendations("What does the advisor recommend?", "Open recommendations for the whole fleet.").height(10)


def nodes() -> Table:
    panel = listing(
        "Which nodes need a look?",
        "The GPUs of each node: how busy they are on average, how full, and how many of them are idle or down. A "
        "click on a node's name shows its GPUs.",
        [
            f"sum by (nodename) (host:gpus:count{CHOSEN})",
            busy_share(by="nodename"),
            memory_share(by="nodename"),
            f"sum by (nodename) (host:gpus_idle:sum30m{CHOSEN})",
            f"sum by (nodename) (host:gpus_idle_holding:sum30m{CHOSEN})",
            f"sum by (nodename) (host:gpus_down:sum{CHOSEN})",
            f"sum by (nodename) (host:gpu_power_watts:sum{CHOSEN})",
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
    panel = ratio_column(panel, "Busy", GPU_TARGET)
    panel = ratio_column(panel, "Memory", MEMORY_TARGET)
    panel = sorted_by(column(panel, "Power", unit="watt"), "Busy")
    return link_column(panel, "Node", link("node", "GPUs of this node", nodename=cell("Node"))).height(7)


def usage() -> list[TimeSeries]:
    node = link("node", "GPUs of this node", nodename=label("nodename"))
    return [
        shares(
            "How busy are the GPUs of each node?",
            "Mean utilization of a node's chosen GPUs over 5 minutes. Dashed: the target of 90 %. Marks: since when a "
            "recommendation is given.",
            (busy_share(by="nodename"), "{{nodename}}"),
            target=GPU_TARGET,
        ).data_links([node]),
        shares(
            "How busy are the GPUs of each model?",
            "Mean utilization of all chosen GPUs of a model over 5 minutes. Dashed: the target of 90 %.",
            (busy_share(by="name"), "{{name}}"),
            target=GPU_TARGET,
        ),
        shares(
            "How full is the memory of each node's GPUs?",
            "Memory that processes hold, of all that the node's chosen GPUs have. Dashed: the target of 85 %.",
            (memory_share(by="nodename"), "{{nodename}}"),
            target=MEMORY_TARGET,
        ).data_links([node]),
        shares(
            "How busy are the CPUs of each node?",
            "Share of CPU time that was not idle. Dashed: the target of 80 %. Full CPUs keep GPUs waiting for data.",
            (of_nodes("node:cpu_ratio:mean5m"), "{{nodename}}"),
            target=CPU_TARGET,
        ),
        lines(
            "How much power do the GPUs of each node draw?",
            "Power of all chosen boards of a node.",
            "watt",
            (f"sum by (nodename) (host:gpu_power_watts:sum{CHOSEN})", "{{nodename}}"),
        ),
        target_line(
            lines(
                "Which GPUs are the hottest?",
                f"Temperature of the cores of the five hottest GPUs at each moment. Dashed: {HOT_CELSIUS} °C, where "
                "the alert GpuTooHot fires.",
                "celsius",
                (f"topk(5, {identified('gpu:temperature_celsius:last')})", "{{nodename}} GPU {{index}}"),
            ),
            HOT_CELSIUS,
            BAD,
        ),
    ]


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
        wanted="status",
    ).span(12)
    panel = column(panel, "Measured", unit="percentunit", decimals=1)
    return state_column(panel, "Target", STATUSES)


def abstentions() -> Table:
    return listing(
        "Where does the advisor say nothing, and why?",
        "What it was asked to judge and could not, for want of good data.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "About", "scope_kind": "Of", "scope": "Which", "reason": "Reason"},
    ).span(12)
