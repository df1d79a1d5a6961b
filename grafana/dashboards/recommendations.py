"""Recommendations: what is open, since when and for what; what became of former ones; where nothing can be said."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import (
    NO_ADVISOR,
    advice_freshness_panel,
    advisor_variable,
    recommendation_count_panel,
    recommendations_table,
)
from grafana.dashboard_frame import cell_value, link, new_dashboard
from grafana.panels import (
    GOOD,
    WARNING,
    add_column_links,
    bar_gauge_panel,
    multi_value_variable,
    override_column,
    set_column_widths,
    sort_table,
    stat_panel,
    steps,
    table_panel,
    timeseries_panel,
)
from grafana.queries import OPEN_RECOMMENDATIONS

KIND = '{kind=~"$kind"}'
SELECTED_KINDS = OPEN_RECOMMENDATIONS.replace(
    "gpu_advisor_recommendation_info", f"gpu_advisor_recommendation_info{KIND}"
)


def dashboard() -> Dashboard:
    board = (
        new_dashboard(
            "recommendations",
            "GPU recommendations",
            "What does the advisor recommend, what became of what it recommended, and where does it say nothing?",
            "now-24h",
        )
        .with_variable(multi_value_variable("kind", "Kind", "gpu_advisor_recommendation_info"))
        .with_variable(advisor_variable())
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(
        recommendations_table(
            "What is there to do?", "Open recommendations of the chosen kinds.", SELECTED_KINDS
        ).height(10)
    )
    board = board.with_panel(by_kind()).with_panel(over_time()).with_panel(affected_scopes())
    board = board.with_row(Row("Which targets are met?")).with_panel(checks()).with_panel(missed_outcomes())
    board = board.with_row(Row("What became of former ones?"))
    return board.with_panel(outcomes()).with_panel(pools()).with_panel(abstentions())


def glance() -> list[Stat]:
    return [
        recommendation_count_panel(),
        advice_freshness_panel(),
        stat_panel(
            "GPUs that they are about",
            "Each GPU once, in fleets of up to 1,000 GPUs. No data if nothing is recommended.",
            "count(count by (uuid) (gpu_advisor_recommendation_gpu_info))",
        ),
        stat_panel(
            "What would they save an hour?",
            "In the currency of the advisor's settings. No data without prices (cost.gpu_price_per_hour), or if "
            "nothing that is recommended changes the cost.",
            "-sum(max by (id) (gpu_advisor_recommendation_cost_change_per_hour))",
            no_value="no prices",
        ).decimals(2),
        stat_panel(
            "Snoozed",
            "Recommendations that somebody put off for a while.",
            "count(max by (id) (gpu_advisor_recommendation_snoozed)) or 0 * max(gpu_advisor_source_up)",
            no_value=NO_ADVISOR,
        ),
        stat_panel(
            "Questions without an answer",
            "What the advisor was asked to judge and could not, for want of good data.",
            "count(max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info))"
            " or 0 * max(gpu_advisor_source_up)",
            steps(GOOD, (1, WARNING)),
            no_value=NO_ADVISOR,
        ),
    ]


def by_kind() -> BarGauge:
    expr = f"sort_desc(count by (kind) ({SELECTED_KINDS}))"
    return bar_gauge_panel("What kinds are open?", "Open recommendations by kind.", "short", expr, "{{kind}}").span(8)


def over_time() -> TimeSeries:
    return timeseries_panel(
        "How many have been open?",
        "Open recommendations by kind. A gap: no advisor answered.",
        "short",
        (f"count by (kind) ({SELECTED_KINDS})", "{{kind}}"),
    ).span(8)


def affected_scopes() -> Table:
    panel = table_panel(
        "Which GPUs are they about?",
        "The fifty GPUs with the most open recommendations about them, in fleets of up to 1,000 GPUs. A click shows "
        "the GPU.",
        [
            "topk(50, count by (uuid) (gpu_advisor_recommendation_gpu_info)) * on (uuid) "
            "group_left (nodename, index, name) gpu:identity:info"
        ],
        {"nodename": "Node", "index": "GPU", "name": "Model", "Value #A": "Open", "uuid": "UUID"},
    )
    panel = sort_table(set_column_widths(panel, {"GPU": 60, "Open": 70}), "Open", descending=True)
    return add_column_links(
        panel, "UUID", link("gpu", "This GPU", nodename=cell_value("Node"), uuid=cell_value("UUID"))
    ).span(8)


def checks() -> TimeSeries:
    return timeseries_panel(
        "How many checks are met, missed, unknown?",
        "The advisor's checklist over fleet, pools, nodes and GPUs. Unknown means too little data.",
        "short",
        ("sum by (status) (max by (item, scope_kind, status) (gpu_advisor_checks))", "{{status}}"),
    )


def missed_outcomes() -> Table:
    panel = table_panel(
        "Which kinds of checks are missed the most?",
        "Missed checks by what they look at. Those of each GPU alone are on the advisor's page.",
        ['max by (item, scope_kind) (gpu_advisor_checks{status="missed"})'],
        {"item": "What", "scope_kind": "Of", "Value #A": "Missed"},
    ).span(12)
    return sort_table(panel, "Missed", descending=True)


def outcomes() -> Table:
    panel = table_panel(
        "Were they followed?",
        "Recommendations that ended within the time range, by kind and by what became of them.",
        ["sum by (kind, outcome) (increase(gpu_advisor_outcomes_total[$__range]))"],
        {"kind": "Recommendation", "outcome": "What became of it", "Value #A": "How many"},
    ).span(8)
    return override_column(panel, "How many", decimals=0)


def pools() -> Table:
    return table_panel(
        "How many replicas should pools have?",
        "What is there, and what autoscalers are told. Only serving pools are told a number, and none while the "
        "advisor abstains.",
        ["max by (pool) (gpu_advisor_replicas)", "max by (pool) (gpu_advisor_desired_replicas)"],
        {"pool": "Pool", "Value #A": "Replicas", "Value #B": "Desired"},
    ).span(8)


def abstentions() -> Table:
    return table_panel(
        "Where does the advisor say nothing, and why?",
        "What it was asked to judge and could not, for want of good data.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "About", "scope_kind": "Of", "scope": "Which", "reason": "Reason"},
    ).span(8)
