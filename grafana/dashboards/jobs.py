"""Jobs: who uses the GPUs, how efficiently, and what training jobs wait for.

Only gpu-exporter publishes owners, and only jobs with the training monitor publish steps, so these queries use
their metric names instead of canonical series.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, dashboard_link, label_value, new_dashboard, recommendation_annotations
from grafana.queries import (
    GPU_TARGET,
    MEMORY_TARGET,
    RECOMMENDED_SINCE,
    extremes,
    gpu_series_of_jobs,
    gpus_of_jobs,
    job_utilization,
    owner_series,
    recommendations_for_gpus,
)

JOB = '{training_job=~"$training_job"}'
OWNERS = '{cluster=~"$cluster", owner_namespace=~"$owner_namespace"}'
LEGEND = "{{training_job}}"
#: Mean over each job's GPUs of the memory-used ratio.
MEMORY = (
    f"sum by (training_job) ({owner_series('gpu_memory_used_ratio:sum')})"
    f" / sum by (training_job) ({owner_series('gpu_memory_used_ratio:count')})"
)


def dashboard() -> Dashboard:
    board = (
        new_dashboard("jobs", "GPU jobs", "Who uses the GPUs, how efficiently, and what do training jobs wait for?")
        .with_variable(panels.cluster_variable("gpu_owner_info"))
        .with_variable(
            panels.multi_value_variable("owner_namespace", "Namespace", "gpu_owner_info", '{cluster=~"$cluster"}')
        )
        .with_variable(
            panels.multi_value_variable(
                "training_job", "Job", "gpu_owner_info", '{cluster=~"$cluster", owner_namespace=~"$owner_namespace"}'
            )
        )
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) "
                f"({recommendations_for_gpus(gpus_of_jobs())})"
            )
        )
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_panel(jobs())
    board = board.with_panel(
        recommendations_table(
            "Recommendations for these jobs",
            "Open recommendations that concern at least one of their GPUs, in fleets of up to 1,000 GPUs.",
            recommendations_for_gpus(gpus_of_jobs()),
        ).height(7)
    )
    board = board.with_row(Row("Utilization"))
    for graph in usage():
        board = board.with_panel(graph)
    board = board.with_row(Row("Training steps"))
    for graph in training_steps():
        board = board.with_panel(graph)
    return board.with_row(Row("All owners")).with_panel(owners())


def overview() -> list[Stat]:
    return [
        panels.stat_panel(
            "Training jobs",
            "Training jobs with known GPUs.",
            f"count(count by (training_job) ({owner_series('gpus:count')}))",
        ).span(6),
        panels.stat_panel(
            "GPUs in use", "A GPU shared by two jobs counts twice.", f"sum({owner_series('gpus:count')})"
        ).span(6),
        panels.stat_panel(
            "GPU utilization",
            "Mean over 5 minutes. Green from the target of 90 %.",
            job_utilization(by=""),
            panels.threshold_steps(panels.BAD, (0.6, panels.WARNING), (GPU_TARGET, panels.GOOD)),
            "percentunit",
        )
        .decimals(0)
        .span(6),
        panels.stat_panel(
            "Data wait",
            "Ratio of step time spent waiting for the next batch. No data if no job reports its steps "
            "(docs/training.md).",
            f"sum(rate(training_data_wait_seconds_total{JOB}[$__rate_interval]))"
            f" / sum(rate(training_step_seconds_total{JOB}[$__rate_interval]))",
            panels.threshold_steps(panels.GOOD, (0.1, panels.WARNING), (0.3, panels.BAD)),
            "percentunit",
        )
        .decimals(0)
        .span(6),
    ]


def jobs() -> Table:
    panel = panels.table_panel(
        "Jobs by utilization",
        "Means over the GPUs of each training job. SM activity far below utilization: see the recommendations.",
        [
            f"sum by (training_job) ({owner_series('gpus:count')})",
            job_utilization(),
            f"min by (training_job) ({gpu_series_of_jobs('gpu:utilization_ratio:mean5m')})",
            f"avg by (training_job) ({gpu_series_of_jobs('gpu:sm_activity_ratio:mean5m')})",
            MEMORY,
            f"sum by (training_job) ({gpu_series_of_jobs('gpu:power_watts:last')})",
        ],
        {
            "training_job": "Job",
            "Value #A": "GPUs",
            "Value #B": "Utilization",
            "Value #C": "Least busy GPU",
            "Value #D": "SM activity",
            "Value #E": "Memory",
            "Value #F": "Power",
        },
    )
    for heading in ("Utilization", "Least busy GPU"):
        panel = panels.format_ratio_column(panel, heading, GPU_TARGET)
    panel = panels.format_memory_column(panel, "Memory")
    panel = panels.override_column(panels.format_ratio_column(panel, "SM activity"), "Power", unit="watt", decimals=0)
    panel = panels.sort_table(panel, "Utilization")
    return panels.add_column_links(
        panel, "Job", dashboard_link("jobs", "This job alone", training_job=cell_value("Job"))
    ).height(9)


def usage() -> list[TimeSeries]:
    this = dashboard_link("jobs", "This job alone", training_job=label_value("training_job"))
    return [
        panels.ratio_timeseries_panel(
            "Jobs with the lowest GPU utilization",
            "Mean over the job's GPUs; the ten lowest now. Dashed: the target of 90 %. Annotations: "
            "starts of recommendations.",
            (extremes(job_utilization(), "training_job", "bottomk"), LEGEND),
            target=GPU_TARGET,
        ).data_links([this]),
        panels.ratio_timeseries_panel(
            "Jobs with the most GPU memory used",
            "Mean over the job's GPUs; the ten highest now. Dashed: the target of 85 %.",
            (extremes(MEMORY, "training_job"), LEGEND),
            target=MEMORY_TARGET,
        ).data_links([this]),
    ]


def _per_step(part: str, by: str = "training_job") -> str:
    whole = f"sum by ({by}) (rate(training_step_seconds_total{JOB}[$__rate_interval]))"
    return f"sum by ({by}) (rate({part}{JOB}[$__rate_interval])) / {whole}"


def training_steps() -> list[TimeSeries]:
    return [
        panels.ratio_timeseries_panel(
            "Data wait by job",
            "Ratio of step time spent waiting for the next batch; the ten highest now.",
            (extremes(_per_step("training_data_wait_seconds_total"), "training_job"), LEGEND),
        ),
        panels.ratio_timeseries_panel(
            "Communication by job",
            "Ratio of step time spent communicating with other ranks; the ten highest now.",
            (extremes(_per_step("training_communication_seconds_total"), "training_job"), LEGEND),
        ),
        panels.timeseries_panel(
            "Samples per second by job",
            "Training samples per second, summed over the ranks of a job.",
            "ops",
            (f"sum by (training_job) (rate(training_samples_total{JOB}[$__rate_interval]))", LEGEND),
        ),
        panels.timeseries_panel(
            "Training loss by job",
            "Last reported loss, averaged over the ranks.",
            "short",
            (f"avg by (training_job) (training_loss{JOB})", LEGEND),
        ),
    ]


def owners() -> Table:
    panel = panels.table_panel(
        "GPUs and utilization by owner",
        "All owners found by gpu-exporter, including other than training jobs. A shared GPU counts for each owner.",
        [
            f"owner:gpus:count{OWNERS}",
            f"owner:gpus_busy:mean5m{OWNERS} / owner:gpus_measured:count",
            f"owner:gpu_memory_used_ratio:sum{OWNERS} / owner:gpu_memory_used_ratio:count",
        ],
        {
            "owner_kind": "Kind",
            "owner_namespace": "Namespace",
            "owner_pod": "Pod",
            "owner_user": "User",
            "training_job": "Job",
            "Value #A": "GPUs",
            "Value #B": "Utilization",
            "Value #C": "Memory",
        },
    )
    return panels.format_memory_column(panels.format_ratio_column(panel, "Utilization", GPU_TARGET), "Memory")
