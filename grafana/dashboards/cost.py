"""Cost and waste: unused GPU-hours, where, and their cost."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.dashboard_frame import cell_value, dashboard_link, label_value, new_dashboard
from grafana.money_panels import cost_panel, savings_panel
from grafana.queries import GPU_TARGET, PRICE, extremes

MODEL = '{cluster=~"$cluster", name=~"$name"}'
BUSY, MEASURED = f"sum by (name) (model:gpus_busy:mean5m{MODEL})", f"sum by (name) (model:gpus_measured:count{MODEL})"
TEAM = 'team=~"$team", namespace=~"$namespace"'
WIDTHS = {
    "GPUs": 60, "Utilization": 130, "Unused GPU-hours": 145, "Price per hour": 115, "Cost of unused hours": 160,
    "Currency": 85,
}  # fmt: skip


def hours(expr: str, step_minutes: int = 5) -> str:
    """GPU-hours within the time range, from one sample a step. Unobserved time is in no term, so it is no waste."""
    return f"sum_over_time(({expr})[$__range:{step_minutes}m]) / {60 // step_minutes}"


def dashboard() -> Dashboard:
    board = new_dashboard(
        "cost", "GPU cost and waste", "How much GPU time is unused, where, and what does it cost?",
        "now-24h",
    )  # fmt: skip
    board = (
        board.with_variable(panels.cluster_variable())
        .with_variable(panels.multi_value_variable("name", "GPU model", "gpu:identity:info", '{cluster=~"$cluster"}'))
        .with_variable(panels.multi_value_variable("team", "Team", "gpu_advisor_team_gpus"))
        .with_variable(
            panels.multi_value_variable("namespace", "Namespace", "gpu_advisor_team_gpus", '{team=~"$team"}')
        )
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_row(Row("Teams")).with_panel(teams()).with_panel(teams_over_time())
    board = board.with_row(Row("Trends"))
    for graph in over_time():
        board = board.with_panel(graph)
    board = board.with_row(Row("By model and node")).with_panel(models()).with_panel(nodes())
    return board.with_row(Row("Idle GPUs and owners")).with_panel(idle()).with_panel(owners())


def overview() -> list[Stat]:
    return [
        panels.ratio_panel(
            "GPU utilization in the time range",
            "Busy time of the selected GPUs divided by their observed time, within the time range. Green from the "
            "target of 90 %.",
            f"sum(avg_over_time(model:gpus_busy:mean5m{MODEL}[$__range]))"
            f" / sum(avg_over_time(model:gpus_measured:count{MODEL}[$__range]))",
            GPU_TARGET,
        ),
        panels.stat_panel(
            "Unused GPU-hours",
            "Observed time in which no kernel ran, within the time range.",
            f"sum({hours(f'{MEASURED} - {BUSY}')})",
            panels.threshold_steps(panels.WARNING),
        ).decimals(1),
        panels.stat_panel(
            "GPU-hours idle, memory allocated",
            "GPUs that were idle for 30 minutes while processes held their memory, so nobody else could use them.",
            f"sum({hours(f'model:gpus_idle_holding:sum30m{MODEL}')})",
            panels.threshold_steps(panels.GOOD, (0.1, panels.BAD)),
        ).decimals(1),
        cost_panel(MODEL),
        panels.money_panel(
            "Cost of unused GPU-hours",
            "Unused GPU-hours of models that have a price, times the price, within the time range.",
            f"sum by (currency) ({hours(f'{MEASURED} - {BUSY}')} * on (name) group_left (currency) {PRICE})",
            panels.threshold_steps(panels.WARNING),
        ),
        savings_panel(),
    ]


def over_time() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "GPUs: total, busy, idle",
            "Busy: the sum of their utilization, so two GPUs that are busy half of the time count as one.",
            "short",
            (f"sum(model:gpus:count{MODEL})", "total"),
            (f"sum({BUSY})", "busy"),
            (f"sum(model:gpus_idle:sum30m{MODEL})", "idle for 30 minutes"),
            (f"sum(model:gpus_idle_holding:sum30m{MODEL})", "idle, memory allocated"),
        ),
        panels.timeseries_panel(
            "Unused GPUs by model",
            "Number of GPUs minus the sum of their utilization.",
            "short",
            (f"{MEASURED} - {BUSY}", "{{name}}"),
        ),
    ]


def models() -> Table:
    unused = f"{MEASURED} - {BUSY}"
    panel = panels.table_panel(
        "Use and cost by model",
        "Within the time range. Cost for models whose price is set, or estimated at list prices.",
        [
            f"sum by (name) (model:gpus:count{MODEL})",
            f"sum by (name) (avg_over_time(model:gpus_busy:mean5m{MODEL}[$__range]))"
            f" / sum by (name) (avg_over_time(model:gpus_measured:count{MODEL}[$__range]))",
            hours(unused),
            f"{PRICE} and on (name) model:gpus:count{MODEL}",
            f"{hours(unused)} * on (name) group_left (currency) {PRICE}",
        ],
        {
            "name": "Model",
            "Value #A": "GPUs",
            "Value #B": "Utilization",
            "Value #C": "Unused GPU-hours",
            "Value #D": "Price per hour",
            "Value #E": "Cost of unused hours",
            "currency": "Currency",
        },
        wanted="name",
    ).span(14)
    panel = panels.override_column(
        panels.format_ratio_column(panel, "Utilization", GPU_TARGET), "Unused GPU-hours", decimals=1
    )
    panel = panels.sort_table(panels.set_column_widths(panel, WIDTHS), "Unused GPU-hours", descending=True)
    return panels.override_column(
        panels.override_column(panel, "Price per hour", decimals=2), "Cost of unused hours", decimals=2
    )


def teams() -> Table:
    busy, measured = _of_teams("busy"), _of_teams("measured")
    unused_cost = f"gpu_advisor_team_unused_cost_per_hour{{{TEAM}}}"
    panel = panels.table_panel(
        "Use and cost by team and namespace",
        "Within the time range, for the GPUs that each had. Teams are those of the advisor's settings. Owners that "
        "share a GPU are one row.",
        [
            _of_teams("all"),
            f"avg_over_time(({busy})[$__range:1m]) / avg_over_time(({measured})[$__range:1m])",
            hours(f"{measured} - {busy}", 1),
            hours(f"max by (team, namespace, currency) ({unused_cost})", 1),
        ],
        {
            "team": "Team",
            "namespace": "Namespace",
            "Value #A": "GPUs",
            "Value #B": "Utilization",
            "Value #C": "Unused GPU-hours",
            "Value #D": "Cost of unused hours",
            "currency": "Currency",
        },
        wanted="team",
    ).span(14)
    panel = panels.override_column(
        panels.format_ratio_column(panel, "Utilization", GPU_TARGET), "Unused GPU-hours", decimals=1
    )
    panel = panels.override_column(panels.set_column_widths(panel, WIDTHS), "Cost of unused hours", decimals=2)
    return panels.sort_table(panel, "Unused GPU-hours", descending=True)


def teams_over_time() -> TimeSeries:
    unused = f"sum by (team) ({_of_teams('measured')}) - sum by (team) ({_of_teams('busy')})"
    return panels.timeseries_panel(
        "Unused GPUs by team",
        "Number of GPUs minus the sum of their utilization; the ten teams with the most now.",
        "short",
        (extremes(unused, "team"), "{{team}}"),
    ).span(10)


def _of_teams(state: str) -> str:
    """One series a team and namespace, whatever the number of advisors."""
    return f'max by (team, namespace) (gpu_advisor_team_gpus{{{TEAM}, state="{state}"}})'


def nodes() -> BarGauge:
    unused = f"host:gpus_measured:count{MODEL} - host:gpus_busy:mean5m{MODEL}"
    return (
        panels.bar_gauge_panel(
            "Nodes with the most unused GPUs",
            "Number of GPUs minus the sum of their utilization over the last 5 minutes; the top ten nodes.",
            "short",
            f"sort_desc(topk(10, sum by (nodename) ({unused})))",
            "{{nodename}}",
        )
        .decimals(1)
        .data_links([dashboard_link("node", "GPUs of this node", nodename=label_value("nodename"))])
        .span(10)
    )


def idle() -> Table:
    where = "* on (cluster, uuid) group_left (nodename, index, name) gpu:identity:info" + MODEL
    panel = panels.table_panel(
        "Idle GPUs",
        "Below 1 % utilization over the last 30 minutes, with data for at least 90 % of that time.",
        [
            f"(gpu:idle:mean30m == 1) {where}",
            "gpu:memory_used_ratio:last and on (cluster, uuid) (gpu:idle:mean30m == 1)",
            "gpu:power_watts:last and on (cluster, uuid) (gpu:idle:mean30m == 1)",
        ],
        {
            "nodename": "Node",
            "index": "GPU",
            "name": "Model",
            "Value #B": "Memory used",
            "Value #C": "Power",
            "uuid": "UUID",
        },
        wanted="nodename",
    ).span(14)
    panel = panels.override_column(panels.format_ratio_column(panel, "Memory used"), "Power", unit="watt", decimals=0)
    panel = panels.set_column_widths(panel, {"GPU": 60, "Power": 80, "UUID": 330})
    return panels.add_column_links(
        panel, "UUID", dashboard_link("gpu", "This GPU", nodename=cell_value("Node"), uuid=cell_value("UUID"))
    )


def owners() -> Table:
    panel = panels.table_panel(
        "Owners with the most unused GPUs",
        "Number of GPUs minus the sum of their utilization over the last 5 minutes, for owners found by gpu-exporter.",
        ['sort_desc(topk(50, owner:gpus_measured:count{cluster=~"$cluster"} - owner:gpus_busy:mean5m))'],
        {
            "owner_kind": "Kind",
            "owner_namespace": "Namespace",
            "owner_pod": "Pod",
            "owner_user": "User",
            "training_job": "Job",
            "Value #A": "Unused GPUs",
        },
    ).span(10)
    panel = panels.override_column(panel, "Unused GPUs", decimals=1)
    return panels.add_column_links(panel, "Job", dashboard_link("jobs", "This job", training_job=cell_value("Job")))
