"""Cost and waste: how many GPUs' worth of time nobody used, where, and what it costs."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.dashboard_frame import cell_value, label_value, link, new_dashboard
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    bar_gauge_panel,
    format_ratio_column,
    multi_value_variable,
    override_column,
    ratio_panel,
    set_column_widths,
    sort_table,
    stat_panel,
    steps,
    table_panel,
    timeseries_panel,
)
from grafana.queries import GPU_TARGET

MODEL = '{name=~"$name"}'
BUSY, MEASURED = f"model:gpus_busy:mean5m{MODEL}", f"model:gpus_measured:count{MODEL}"
PRICE = "max by (name) (gpu_advisor_gpu_price_per_hour)"
#: GPU-hours within the time range: read at every fifth minute, each of which stands for a twelfth of an hour. What was
#: not seen is in neither, so it is not taken for waste.
HOURS = "sum_over_time({}[$__range:5m]) / 12"
WIDTHS = {"GPUs": 60, "Used": 130, "Unused GPU-hours": 145, "Price per hour": 115, "Cost of the unused time": 190}
NO_PRICES = "no prices"


def hours(expr: str) -> str:
    return HOURS.format(f"({expr})")


def dashboard() -> Dashboard:
    board = new_dashboard(
        "cost", "GPU cost and waste", "How many GPUs' worth of time does nobody use, where, and what does it cost?",
        "now-24h",
    ).with_variable(multi_value_variable("name", "GPU model", "gpu:identity:info"))  # fmt: skip
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_row(Row("Since when, and how much?"))
    for graph in over_time():
        board = board.with_panel(graph)
    board = board.with_row(Row("Where?")).with_panel(models()).with_panel(nodes())
    return board.with_row(Row("Who holds GPUs and does nothing?")).with_panel(idle()).with_panel(owners())


def glance() -> list[Stat]:
    return [
        ratio_panel(
            "How much of the time was used?",
            "Busy time of all chosen GPUs over the time in which they were seen, within the time range. Green from the "
            "target of 90 % on.",
            f"sum(avg_over_time({BUSY}[$__range])) / sum(avg_over_time({MEASURED}[$__range]))",
            GPU_TARGET,
        ),
        stat_panel(
            "GPU-hours that nobody used",
            "Time in which GPUs were seen and no kernel ran, within the time range.",
            f"sum({hours(f'{MEASURED} - {BUSY}')})",
            steps(WARNING),
        ).decimals(1),
        stat_panel(
            "Of them, held by idle processes",
            "GPU-hours of GPUs that did nothing for half an hour while processes held their memory: nobody else could "
            "use them.",
            f"sum({hours(f'model:gpus_idle_holding:sum30m{MODEL}')})",
            steps(GOOD, (0.1, BAD)),
        ).decimals(1),
        stat_panel(
            "What do these GPUs cost an hour?",
            "All GPUs of models that have a price in the advisor's settings (cost.gpu_price_per_hour), in their "
            "currency.",
            f"sum(model:gpus:count{MODEL} * on (name) {PRICE})",
            no_value=NO_PRICES,
        ).decimals(2),
        stat_panel(
            "What did the unused time cost?",
            "Unused GPU-hours of models that have a price, times the price, within the time range.",
            f"sum({hours(f'{MEASURED} - {BUSY}')} * on (name) {PRICE})",
            steps(WARNING),
            no_value=NO_PRICES,
        ).decimals(2),
        stat_panel(
            "What would the advice save an hour?",
            "All open recommendations together. No data without prices, or if nothing that is recommended changes the "
            "cost.",
            "-sum(max by (id) (gpu_advisor_recommendation_cost_change_per_hour))",
            steps(GOOD),
            no_value=NO_PRICES,
        ).decimals(2),
    ]


def over_time() -> list[TimeSeries]:
    return [
        timeseries_panel(
            "How many GPUs are there, and how many are at work?",
            "At work: the sum of their utilization, so two GPUs that are busy half of the time count as one.",
            "short",
            (f"sum(model:gpus:count{MODEL})", "there"),
            (f"sum({BUSY})", "at work"),
            (f"sum(model:gpus_idle:sum30m{MODEL})", "did nothing for 30 minutes"),
            (f"sum(model:gpus_idle_holding:sum30m{MODEL})", "and hold memory"),
        ),
        timeseries_panel(
            "How many GPUs of each model go unused?",
            "GPUs' worth of time in which no kernel ran.",
            "short",
            (f"{MEASURED} - on (name) {BUSY}", "{{name}}"),
        ),
    ]


def models() -> Table:
    unused = f"{MEASURED} - {BUSY}"
    panel = table_panel(
        "Which models go unused?",
        "Within the time range. Money for models that have a price in the advisor's settings.",
        [
            f"model:gpus:count{MODEL}",
            f"avg_over_time({BUSY}[$__range]) / avg_over_time({MEASURED}[$__range])",
            hours(unused),
            f"{PRICE} and on (name) model:gpus:count{MODEL}",
            f"{hours(unused)} * on (name) {PRICE}",
        ],
        {
            "name": "Model",
            "Value #A": "GPUs",
            "Value #B": "Used",
            "Value #C": "Unused GPU-hours",
            "Value #D": "Price per hour",
            "Value #E": "Cost of the unused time",
        },
        wanted="name",
    ).span(14)
    panel = override_column(format_ratio_column(panel, "Used", GPU_TARGET), "Unused GPU-hours", decimals=1)
    panel = sort_table(set_column_widths(panel, WIDTHS), "Unused GPU-hours", descending=True)
    return override_column(override_column(panel, "Price per hour", decimals=2), "Cost of the unused time", decimals=2)


def nodes() -> BarGauge:
    unused = f"host:gpus_measured:count{MODEL} - host:gpus_busy:mean5m{MODEL}"
    return (
        bar_gauge_panel(
            "Which nodes have the most unused GPUs?",
            "GPUs' worth of time in which no kernel ran in the last 5 minutes, of the ten nodes that have the most.",
            "short",
            f"sort_desc(topk(10, sum by (nodename) ({unused})))",
            "{{nodename}}",
        )
        .decimals(1)
        .data_links([link("node", "GPUs of this node", nodename=label_value("nodename"))])
        .span(10)
    )


def idle() -> Table:
    where = "* on (uuid) group_left (nodename, index, name) gpu:identity:info" + MODEL
    panel = table_panel(
        "Which GPUs do nothing?",
        "Below 1 % utilization over the last 30 minutes, and seen for 90 % of that time.",
        [
            f"(gpu:idle:mean30m == 1) {where}",
            "gpu:memory_used_ratio:last and on (uuid) (gpu:idle:mean30m == 1)",
            "gpu:power_watts:last and on (uuid) (gpu:idle:mean30m == 1)",
        ],
        {
            "nodename": "Node",
            "index": "GPU",
            "name": "Model",
            "Value #B": "Memory held",
            "Value #C": "Power",
            "uuid": "UUID",
        },
        wanted="nodename",
    ).span(14)
    panel = override_column(format_ratio_column(panel, "Memory held"), "Power", unit="watt", decimals=0)
    panel = set_column_widths(panel, {"GPU": 60, "Power": 80, "UUID": 330})
    return add_column_links(
        panel, "UUID", link("gpu", "This GPU", nodename=cell_value("Node"), uuid=cell_value("UUID"))
    )


def owners() -> Table:
    panel = table_panel(
        "Who leaves the most unused?",
        "GPUs' worth of time in which no kernel ran in the last 5 minutes, of each owner that gpu-exporter tells of.",
        ["sort_desc(topk(50, owner:gpus_measured:count - owner:gpus_busy:mean5m))"],
        {
            "owner_kind": "Kind",
            "owner_namespace": "Namespace",
            "owner_pod": "Pod",
            "owner_user": "User",
            "training_job": "Job",
            "Value #A": "Unused GPUs",
        },
    ).span(10)
    panel = override_column(panel, "Unused GPUs", decimals=1)
    return add_column_links(panel, "Job", link("jobs", "This job", training_job=cell_value("Job")))
