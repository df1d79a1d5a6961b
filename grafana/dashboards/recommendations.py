"""Recommendations: open ones, since when and for what; outcomes of former ones; insufficient data."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import (
    NO_ADVISOR,
    advice_freshness_panel,
    advisor_variable,
    recommendation_count_panel,
    recommendations_table,
)
from grafana.dashboard_frame import cell_value, dashboard_link, new_dashboard
from grafana.money_panels import savings_panel
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
            "What does the advisor recommend, how did earlier recommendations turn out, and where does it abstain?",
            "now-24h",
        )
        .with_variable(panels.multi_value_variable("kind", "Kind", "gpu_advisor_recommendation_info"))
        .with_variable(advisor_variable())
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_panel(
        recommendations_table(
            "Open recommendations by GPU, job, node and pool",
            "Open recommendations of the selected kinds.",
            SELECTED_KINDS,
        ).height(10)
    )
    board = board.with_panel(by_kind()).with_panel(over_time()).with_panel(affected_scopes())
    board = board.with_row(Row("Checklist")).with_panel(checks()).with_panel(missed_outcomes())
    board = board.with_row(Row("Outcomes, pools and abstentions"))
    return board.with_panel(outcomes()).with_panel(pools()).with_panel(abstentions())


def overview() -> list[Stat]:
    return [
        recommendation_count_panel(),
        advice_freshness_panel(),
        panels.stat_panel(
            "GPUs concerned",
            "Distinct GPUs, in fleets of up to 1,000 GPUs. No data if there are no recommendations.",
            "count(count by (uuid) (gpu_advisor_recommendation_gpu_info))",
        ),
        savings_panel(),
        panels.stat_panel(
            "Snoozed",
            "Recommendations whose alerts are snoozed.",
            "count(max by (id) (gpu_advisor_recommendation_snoozed)) or 0 * max(gpu_advisor_source_up)",
            no_value=NO_ADVISOR,
        ),
        panels.stat_panel(
            "Abstentions",
            "Evaluations without a result, because data is missing or insufficient.",
            "count(max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info))"
            " or 0 * max(gpu_advisor_source_up)",
            panels.threshold_steps(panels.GOOD, (1, panels.WARNING)),
            no_value=NO_ADVISOR,
        ),
    ]


def by_kind() -> BarGauge:
    expr = f"sort_desc(count by (kind) ({SELECTED_KINDS}))"
    return panels.bar_gauge_panel(
        "Open recommendations by kind", "Current number of each kind.", "short", expr, "{{kind}}"
    ).span(8)


def over_time() -> TimeSeries:
    return panels.timeseries_panel(
        "Open recommendations over time",
        "By kind. Gaps: Prometheus could not scrape any advisor.",
        "short",
        (f"count by (kind) ({SELECTED_KINDS})", "{{kind}}"),
    ).span(8)


def affected_scopes() -> Table:
    panel = panels.table_panel(
        "GPUs with the most recommendations",
        "The top 50 GPUs by open recommendations, in fleets of up to 1,000 GPUs. Click a UUID for the GPU.",
        [
            "topk(50, count by (uuid) (gpu_advisor_recommendation_gpu_info)) * on (uuid) "
            "group_left (nodename, index, name) gpu:identity:info"
        ],
        {"nodename": "Node", "index": "GPU", "name": "Model", "Value #A": "Open", "uuid": "UUID"},
    )
    panel = panels.sort_table(panels.set_column_widths(panel, {"GPU": 60, "Open": 70}), "Open", descending=True)
    return panels.add_column_links(
        panel,
        "UUID",
        dashboard_link("gpu", "This GPU", keep_cluster=False, nodename=cell_value("Node"), uuid=cell_value("UUID")),
    ).span(8)


def checks() -> TimeSeries:
    return panels.timeseries_panel(
        "Checks by status",
        "Checks of fleet, pools, nodes and GPUs. Unknown means insufficient data.",
        "short",
        ("sum by (status) (max by (item, scope_kind, status) (gpu_advisor_checks))", "{{status}}"),
    )


def missed_outcomes() -> Table:
    panel = panels.table_panel(
        "Missed checks by kind",
        "The advisor's page lists the checks of individual GPUs.",
        ['max by (item, scope_kind) (gpu_advisor_checks{status="missed"})'],
        {"item": "Check", "scope_kind": "Scope", "Value #A": "Missed"},
    ).span(12)
    return panels.sort_table(panel, "Missed", descending=True)


def outcomes() -> Table:
    panel = panels.table_panel(
        "Outcomes",
        "Recommendations resolved within the time range, by kind and outcome.",
        ["sum by (kind, outcome) (increase(gpu_advisor_outcomes_total[$__range]))"],
        {"kind": "Recommendation", "outcome": "Outcome", "Value #A": "Count"},
    ).span(8)
    return panels.override_column(panel, "Count", decimals=0)


def pools() -> Table:
    return panels.table_panel(
        "Replicas of pools",
        "Current replicas, and desired replicas as published for autoscalers: only for serving pools, not while "
        "the advisor abstains.",
        ["max by (pool) (gpu_advisor_replicas)", "max by (pool) (gpu_advisor_desired_replicas)"],
        {"pool": "Pool", "Value #A": "Replicas", "Value #B": "Desired"},
    ).span(8)


def abstentions() -> Table:
    return panels.table_panel(
        "Abstentions by reason",
        "Evaluations without a result, because data is missing or insufficient.",
        ["max by (subject, scope_kind, scope, reason) (gpu_advisor_abstention_info)"],
        {"subject": "Subject", "scope_kind": "Scope", "scope": "Name", "reason": "Reason"},
    ).span(8)
