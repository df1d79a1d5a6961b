"""The stack's own health: whether what the other dashboards show can be trusted."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import NO_ADVISOR, advice_freshness_panel
from grafana.dashboard_frame import cell_value, external_link, new_dashboard
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    format_state_column,
    override_column,
    stat_panel,
    steps,
    table_panel,
    timeseries_panel,
    value_mappings,
)
from grafana.queries import RUNBOOKS

STACK_JOBS = 'job=~"gpu-exporter|gpu-advisor|prometheus|alertmanager"'
UP_STATES = {"0": ("does not answer", BAD), "1": ("answers", GOOD)}


def dashboard() -> Dashboard:
    board = new_dashboard(
        "stack", "GPU advisor: the stack's own health", "Do exporters, advisor and Prometheus do what they should?"
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(alerts().span(12)).with_panel(targets().span(12))
    board = board.with_row(Row("Exporters")).with_panel(collectors()).with_panel(drivers())
    for graph in exporters():
        board = board.with_panel(graph)
    board = board.with_row(Row("Advisor")).with_panel(sources())
    for graph in advisor():
        board = board.with_panel(graph)
    board = board.with_row(Row("Prometheus"))
    for graph in prometheus():
        board = board.with_panel(graph)
    return board


def glance() -> list[Stat]:
    return [
        stat_panel(
            "Exporters that do not answer",
            "Targets of the job gpu-exporter whose last scrape failed. Nothing is known of their nodes. No data: "
            "Prometheus has no such target.",
            'count(up{job="gpu-exporter"}) - sum(up{job="gpu-exporter"})',
            steps(GOOD, (1, BAD)),
        ),
        stat_panel(
            "Does the advisor answer?",
            "The last scrape of the job gpu-advisor.",
            'max(up{job="gpu-advisor"})',
            steps(BAD, (1, GOOD)),
            no_value="no advisor",
        ).mappings(value_mappings(UP_STATES)),
        advice_freshness_panel(),
        stat_panel(
            "How old is the last evaluation?",
            "Seconds since the advisor last concluded anything. The alert GpuAdvisorSilent fires after a minute.",
            "time() - max(gpu_advisor_evaluation_last_success_timestamp_seconds)",
            steps(GOOD, (60, WARNING), (300, BAD)),
            "s",
            no_value=NO_ADVISOR,
        ).decimals(0),
        stat_panel(
            "Collectors that fail",
            "Parts of exporters whose last run failed or did not end in time. What they read is missing.",
            "count(gpu_exporter_collector_success) - sum(gpu_exporter_collector_success)",
            steps(GOOD, (1, BAD)),
        ),
        stat_panel(
            "Rules that fail",
            "Evaluations of rules that failed within the time range. Recorded series, which all dashboards read, are "
            "missing then.",
            "sum(increase(prometheus_rule_evaluation_failures_total[$__range]))",
            steps(GOOD, (1, BAD)),
        ).decimals(0),
    ]


def alerts() -> Table:
    panel = table_panel(
        "Which alerts fire?",
        "All alerts that Prometheus evaluates itself; those of recommendations are on their own dashboard. Empty if "
        "none fires.",
        ['max by (alertname, severity, nodename, instance) (ALERTS{alertstate="firing"})'],
        {"alertname": "Alert", "severity": "Severity", "nodename": "Node", "instance": "Instance"},
    )
    return add_column_links(panel, "Alert", external_link("Runbook", f"{RUNBOOKS}/{cell_value('Alert')}.md"))


def targets() -> Table:
    panel = table_panel(
        "Which targets answer Prometheus?",
        "The last scrape of each of the stack's own parts, how long it took, and how many samples it brought.",
        [
            f"max by (job, instance) (up{{{STACK_JOBS}}})",
            f"max by (job, instance) (scrape_duration_seconds{{{STACK_JOBS}}})",
            f"max by (job, instance) (scrape_samples_scraped{{{STACK_JOBS}}})",
        ],
        {"job": "Job", "instance": "Instance", "Value #A": "State", "Value #B": "Took", "Value #C": "Samples"},
    )
    return override_column(format_state_column(panel, "State", UP_STATES), "Took", unit="s")


def collectors() -> Table:
    panel = table_panel(
        "Which collectors work?",
        "Each part of each exporter: whether its last run succeeded in time, and how long it took.",
        [
            "max by (instance, collector) (gpu_exporter_collector_success)",
            "max by (instance, collector) (gpu_exporter_collector_duration_seconds)",
        ],
        {"instance": "Instance", "collector": "Collector", "Value #A": "State", "Value #B": "Took"},
    ).span(12)
    works = {"0": ("fails", BAD), "1": ("works", GOOD)}
    return override_column(format_state_column(panel, "State", works), "Took", unit="s")


def drivers() -> Table:
    panel = table_panel(
        "Which drivers do exporters reach?",
        "Absent is in order on a node without GPUs of that vendor.",
        ["max by (instance, driver, state) (gpu_exporter_driver_info)"],
        {"instance": "Instance", "driver": "Driver", "state": "State"},
    ).span(12)
    colors = {
        "ok": ("ok", GOOD),
        **{state: (state, BAD) for state in ("failed", "hung", "no_permission")},
    }
    return format_state_column(panel, "State", colors)


def exporters() -> list[TimeSeries]:
    return [
        timeseries_panel(
            "How long do scrapes take?",
            "Of each exporter. A scrape never waits for a driver: long ones are slow networks or busy nodes.",
            "s",
            ('scrape_duration_seconds{job="gpu-exporter"}', "{{instance}}"),
        ),
        timeseries_panel(
            "How long do collectors take?",
            "The longest run of each collector over all exporters.",
            "s",
            ("max by (collector) (gpu_exporter_collector_duration_seconds)", "{{collector}}"),
        ),
    ]


def sources() -> Table:
    panel = table_panel(
        "What does the advisor reach?",
        "The advisor's data source, and the Alertmanagers it sends to.",
        [
            'label_replace(max by (instance, source) (gpu_advisor_source_up), "what", "$1", "source", "(.*)")'
            ' or label_replace(max by (instance, alertmanager) (gpu_advisor_alertmanager_up), "what", "$1", '
            '"alertmanager", "(.*)")'
        ],
        {"instance": "Advisor", "what": "Talks to", "Value #A": "State"},
    ).span(8)
    return format_state_column(panel, "State", UP_STATES)


def advisor() -> list[TimeSeries]:
    return [
        timeseries_panel(
            "How long does an evaluation take?",
            "The last that succeeded.",
            "s",
            ("max by (instance) (gpu_advisor_evaluation_duration_seconds)", "{{instance}}"),
        ).span(8),
        timeseries_panel(
            "How many evaluations fail, and why?",
            "A minute, by kind of failure; beside those that succeed.",
            "cpm",
            ("60 * sum(rate(gpu_advisor_evaluations_total[$__rate_interval]))", "succeeded"),
            ("60 * sum by (kind) (rate(gpu_advisor_evaluation_failures_total[$__rate_interval]))", "{{kind}}"),
        ).span(8),
    ]


def prometheus() -> list[TimeSeries]:
    return [
        timeseries_panel(
            "How long do groups of rules take?",
            "The last evaluation of each group of this project's rules. Beyond the group's interval, rules are "
            "skipped.",
            "s",
            (
                "label_replace(max by (rule_group) "
                '(prometheus_rule_group_last_duration_seconds{rule_group=~".*;gpu-.*"}), '
                '"group", "$1", "rule_group", ".*/(.*)")',
                "{{group}}",
            ),
        ),
        timeseries_panel(
            "How many series does Prometheus hold?",
            "In memory: those of the last hours.",
            "short",
            ("prometheus_tsdb_head_series", "{{instance}}"),
        ),
    ]
