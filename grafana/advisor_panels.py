"""Panels shared by several dashboards: open recommendations, and whether they are current."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table

from grafana import panels
from grafana.dashboard_frame import cell_value, dashboard_link, external_link
from grafana.queries import OPEN_RECOMMENDATION_COUNT, OPEN_RECOMMENDATIONS, RECOMMENDED_SINCE, RUNBOOKS, severity_rank

#: Shown while Prometheus has no metrics from an advisor. No recommendations would be 0.
NO_ADVISOR = "advisor down"
COLUMN_WIDTHS = {
    "Severity": 90, "Scope": 70, "GPUs": 70, "Saves per hour": 125, "Currency": 90, "Since": 140, "Runbook": 230,
    "Evidence": 170,
}  # fmt: skip
#: By severity_rank.
SEVERITIES = {
    "1": ("critical", panels.BAD),
    "2": ("warning", panels.WARNING),
    "3": ("info", panels.PLAIN),
    "4": ("other", panels.PLAIN),
}
STATUSES = {"met": ("met", panels.GOOD), "missed": ("missed", panels.BAD), "unknown": ("unknown", panels.WARNING)}


def advisor_variable() -> build.TextBoxVariable:
    return (
        build.TextBoxVariable("advisor")
        .label("Advisor URL")
        .description("URL of the advisor's page, as reached from your browser; links to evidence use it.")
        .default_value("http://127.0.0.1:9817")
    )


def advice_freshness_panel() -> Stat:
    return panels.stat_panel(
        "Recommendation freshness",
        "Stale: the advisor's data source is down, and the last recommendations are shown. Advisor down: Prometheus "
        "cannot scrape any advisor, so recommendations are unknown.",
        "max(gpu_advisor_stale)",
        panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        no_value=NO_ADVISOR,
    ).mappings(panels.value_mappings({"0": ("current", panels.GOOD), "1": ("stale", panels.BAD)}))


def recommendation_count_panel() -> Stat:
    return panels.stat_panel(
        "Open recommendations",
        "All open recommendations of the fleet.",
        OPEN_RECOMMENDATION_COUNT,
        panels.threshold_steps(panels.GOOD, (1, panels.WARNING)),
        no_value=NO_ADVISOR,
    )


def recommendations_table(title: str, description: str, advice: str = OPEN_RECOMMENDATIONS) -> Table:
    """Open recommendations, with links to their evidence and their runbook. Needs the variable `advisor`."""
    panel = panels.table_panel(
        title,
        f"{description} Empty if there are none; the panel Recommendation freshness shows whether they are current.",
        [
            advice,
            RECOMMENDED_SINCE,
            "max by (id) (gpu_advisor_recommendation_gpus)",
            "max by (id, currency) (gpu_advisor_recommendation_savings_per_hour)",
            severity_rank("gpu_advisor_recommendation_info", "id"),
        ],
        {
            "Value #E": "Severity",
            "kind": "Recommendation",
            "scope_kind": "Scope",
            "scope": "Name",
            "Value #C": "GPUs",
            "Value #D": "Saves per hour",
            "currency": "Currency",
            "Value #B": "Since",
            "alert": "Runbook",
            "id": "Evidence",
        },
        wanted="kind",
    )
    panel = panels.set_column_widths(panel, COLUMN_WIDTHS)
    panel = panels.format_state_column(panel, "Severity", SEVERITIES)
    panel = panels.override_column(panel, "Since", unit="dateTimeFromNow")
    panel = panels.override_column(panel, "Saves per hour", decimals=2)
    panel = panels.sort_table(panel, "Severity")
    panel = panels.add_column_links(
        panel,
        "Evidence",
        external_link("Evidence and how to apply it", f"${{advisor:raw}}/page/{cell_value('Evidence')}"),
    )
    panel = panels.add_column_links(
        panel, "Runbook", external_link("Runbook", f"{RUNBOOKS}/{cell_value('Runbook')}.md")
    )
    return panels.add_column_links(
        panel, "Recommendation", dashboard_link("recommendations", "All recommendations", keep_cluster=False)
    )
