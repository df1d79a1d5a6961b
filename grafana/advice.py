"""Panels about what the advisor says, as several dashboards have them: advice, and whether it is current."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table

from grafana.board import address, cell, link
from grafana.panels import (
    BAD,
    GOOD,
    MIDDLING,
    PLAIN,
    column,
    link_column,
    listing,
    number,
    state_column,
    steps,
    texts,
    widths,
)
from grafana.series import ADVICE, ADVICE_COUNT, RUNBOOKS, SINCE

#: What is shown where there is no advisor to ask. Nothing recommended would be 0.
AWAY = "advisor away"
WIDTHS = {
    "Severity": 90, "For": 70, "GPUs": 70, "Cost per hour": 120, "Since": 140, "Runbook": 230, "Evidence": 170,
}  # fmt: skip
SEVERITIES = {"critical": ("critical", BAD), "warning": ("warning", MIDDLING), "info": ("info", PLAIN)}
STATUSES = {"met": ("met", GOOD), "missed": ("missed", BAD), "unknown": ("unknown", MIDDLING)}


def advisor_variable() -> build.TextBoxVariable:
    return (
        build.TextBoxVariable("advisor")
        .label("Advisor's address")
        .description("Where your browser reaches the advisor's page; links to evidence lead there.")
        .default_value("http://127.0.0.1:9817")
    )


def is_it_current() -> Stat:
    return number(
        "Is the advice current?",
        "Stale: the advisor's data source does not answer, and the last good answer is shown. Advisor away: Prometheus "
        "gets no answer from any advisor, so nothing is known of recommendations.",
        "max(gpu_advisor_stale)",
        steps(GOOD, (1, BAD)),
        no_value=AWAY,
    ).mappings(texts({"0": ("current", GOOD), "1": ("stale", BAD)}))


def how_many() -> Stat:
    return number(
        "Open recommendations",
        "What the advisor suggests now, for the whole fleet.",
        ADVICE_COUNT,
        steps(GOOD, (1, MIDDLING)),
        no_value=AWAY,
    )


def recommendations(title: str, description: str, advice: str = ADVICE) -> Table:
    """Open recommendations, with links to their evidence and their runbook. Needs the variable `advisor`."""
    panel = listing(
        title,
        f"{description} Empty if there are none: the panel beside it or on the fleet's dashboard tells whether the "
        "advice is current.",
        [
            advice,
            SINCE,
            "max by (id) (gpu_advisor_recommendation_gpus)",
            "max by (id) (gpu_advisor_recommendation_cost_change_per_hour)",
        ],
        {
            "severity": "Severity",
            "kind": "Recommendation",
            "scope_kind": "For",
            "scope": "Which",
            "Value #C": "GPUs",
            "Value #D": "Cost per hour",
            "Value #B": "Since",
            "alert": "Runbook",
            "id": "Evidence",
        },
        wanted="kind",
    )
    panel = widths(panel, WIDTHS)
    panel = state_column(panel, "Severity", SEVERITIES)
    panel = column(panel, "Since", unit="dateTimeFromNow")
    panel = column(panel, "Cost per hour", decimals=2)
    panel = link_column(
        panel, "Evidence", address("Evidence and how to apply it", f"${{advisor:raw}}/page/{cell('Evidence')}")
    )
    panel = link_column(panel, "Runbook", address("Runbook", f"{RUNBOOKS}/{cell('Runbook')}.md"))
    return link_column(panel, "Recommendation", link("recommendations", "All recommendations"))
