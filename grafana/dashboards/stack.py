"""Stack health: whether the other dashboards can be trusted."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import NO_ADVISOR, SEVERITIES, advice_freshness_panel
from grafana.dashboard_frame import cell_value, external_link, new_dashboard
from grafana.queries import RUNBOOKS, severity_rank

STACK_JOBS = 'job=~"gpu-exporter|gpu-advisor|prometheus|alertmanager"'
UP_STATES = {"0": ("down", panels.BAD), "1": ("up", panels.GOOD)}


def dashboard() -> Dashboard:
    board = new_dashboard("stack", "GPU advisor: stack health", "Do exporters, advisor and Prometheus work?")
    for panel in overview():
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


def overview() -> list[Stat]:
    return [
        panels.stat_panel(
            "Exporters down",
            "Targets of the job gpu-exporter whose last scrape failed. No data: Prometheus has no such target.",
            'count(up{job="gpu-exporter"}) - sum(up{job="gpu-exporter"})',
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ),
        panels.stat_panel(
            "Advisor status",
            "The last scrape of the job gpu-advisor.",
            'max(up{job="gpu-advisor"})',
            panels.threshold_steps(panels.BAD, (1, panels.GOOD)),
            no_value="no advisor",
        ).mappings(panels.value_mappings(UP_STATES)),
        advice_freshness_panel(),
        panels.stat_panel(
            "Age of the last evaluation",
            "Since the last success, in intervals between evaluations. The alert GpuAdvisorSilent becomes pending "
            "after about four.",
            "min((time() - gpu_advisor_evaluation_last_success_timestamp_seconds)"
            " / gpu_advisor_evaluation_interval_seconds)",
            panels.threshold_steps(panels.GOOD, (4, panels.WARNING), (20, panels.BAD)),
            "short",
            no_value=NO_ADVISOR,
        ).decimals(0),
        panels.stat_panel(
            "Failing collectors",
            "Exporter collectors whose last run failed or timed out. Their metrics are missing.",
            "count(gpu_exporter_collector_success) - sum(gpu_exporter_collector_success)",
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ),
        panels.stat_panel(
            "Failed rule evaluations",
            "Within the time range. A failed rule leaves gaps in the recorded series, which all dashboards read.",
            "sum(increase(prometheus_rule_evaluation_failures_total[$__range]))",
            panels.threshold_steps(panels.GOOD, (1, panels.BAD)),
        ).decimals(0),
    ]


def alerts() -> Table:
    panel = panels.table_panel(
        "Firing alerts",
        "Alerts from Prometheus' rules; recommendations have their own dashboard. Empty if none is firing.",
        [severity_rank("ALERTS", "alertname, nodename, instance", ', alertstate="firing"')],
        {"Value #A": "Severity", "alertname": "Alert", "nodename": "Node", "instance": "Instance"},
    )
    panel = panels.sort_table(panels.format_state_column(panel, "Severity", SEVERITIES), "Severity")
    return panels.add_column_links(panel, "Alert", external_link("Runbook", f"{RUNBOOKS}/{cell_value('Alert')}.md"))


def targets() -> Table:
    panel = panels.table_panel(
        "Scrape targets",
        "Last scrape of each component: state, duration and number of samples.",
        [
            f"max by (job, instance) (up{{{STACK_JOBS}}})",
            f"max by (job, instance) (scrape_duration_seconds{{{STACK_JOBS}}})",
            f"max by (job, instance) (scrape_samples_scraped{{{STACK_JOBS}}})",
        ],
        {"job": "Job", "instance": "Instance", "Value #A": "State", "Value #B": "Duration", "Value #C": "Samples"},
    )
    return panels.override_column(panels.format_state_column(panel, "State", UP_STATES), "Duration", unit="s")


def collectors() -> Table:
    panel = panels.table_panel(
        "Collectors",
        "State and duration of the last run of each exporter collector.",
        [
            "max by (instance, collector) (gpu_exporter_collector_success)",
            "max by (instance, collector) (gpu_exporter_collector_duration_seconds)",
        ],
        {"instance": "Instance", "collector": "Collector", "Value #A": "State", "Value #B": "Duration"},
    ).span(12)
    states = {"0": ("failing", panels.BAD), "1": ("ok", panels.GOOD)}
    return panels.override_column(panels.format_state_column(panel, "State", states), "Duration", unit="s")


def drivers() -> Table:
    panel = panels.table_panel(
        "GPU drivers",
        "Absent is normal on a node without GPUs of that vendor.",
        ["max by (instance, driver, state) (gpu_exporter_driver_info)"],
        {"instance": "Instance", "driver": "Driver", "state": "State"},
    ).span(12)
    colors = {
        "ok": ("ok", panels.GOOD),
        **{state: (state, panels.BAD) for state in ("failed", "hung", "no_permission")},
    }
    return panels.format_state_column(panel, "State", colors)


def exporters() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "Scrape duration",
            "By exporter. A scrape never waits for a driver: slow scrapes point to the network or a busy node.",
            "s",
            ('scrape_duration_seconds{job="gpu-exporter"}', "{{instance}}"),
        ),
        panels.timeseries_panel(
            "Collector duration",
            "The longest run of each collector over all exporters.",
            "s",
            ("max by (collector) (gpu_exporter_collector_duration_seconds)", "{{collector}}"),
        ),
    ]


def sources() -> Table:
    panel = panels.table_panel(
        "Advisor connections",
        "The advisor's data source, and the Alertmanagers it sends to.",
        [
            'label_replace(max by (instance, source) (gpu_advisor_source_up), "what", "$1", "source", "(.*)")'
            ' or label_replace(max by (instance, alertmanager) (gpu_advisor_alertmanager_up), "what", "$1", '
            '"alertmanager", "(.*)")'
        ],
        {"instance": "Advisor", "what": "Peer", "Value #A": "State"},
    ).span(8)
    return panels.format_state_column(panel, "State", UP_STATES)


def advisor() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "Evaluation duration",
            "Of the last successful evaluation.",
            "s",
            ("max by (instance) (gpu_advisor_evaluation_duration_seconds)", "{{instance}}"),
        ).span(8),
        panels.timeseries_panel(
            "Evaluations per minute by result",
            "Successful evaluations, and failed ones by kind of failure.",
            "cpm",
            ("60 * sum(rate(gpu_advisor_evaluations_total[$__rate_interval]))", "succeeded"),
            ("60 * sum by (kind) (rate(gpu_advisor_evaluation_failures_total[$__rate_interval]))", "{{kind}}"),
        ).span(8),
    ]


def prometheus() -> list[TimeSeries]:
    return [
        panels.timeseries_panel(
            "Rule group duration",
            "Last evaluation of each rule group of this project. Above the group's interval, evaluations are skipped.",
            "s",
            (
                "label_replace(max by (rule_group) "
                '(prometheus_rule_group_last_duration_seconds{rule_group=~".*;gpu-.*"}), '
                '"group", "$1", "rule_group", ".*/(.*)")',
                "{{group}}",
            ),
        ),
        panels.timeseries_panel(
            "Head series in Prometheus",
            "In memory: series of the last hours.",
            "short",
            ("prometheus_tsdb_head_series", "{{instance}}"),
        ),
    ]
