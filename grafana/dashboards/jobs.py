"""Jobs: who uses the GPUs, how well, and what each training job waits for.

Owners are told by gpu-exporter alone, and steps by jobs that use the training monitor: both are read as they are
published, since no other exporter has anything to be mapped to them.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, label_value, link, new_dashboard, recommendation_annotations
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    format_ratio_column,
    multi_value_variable,
    override_column,
    ratio_timeseries_panel,
    sort_table,
    stat_panel,
    table_panel,
    timeseries_panel,
)
from grafana.panels import steps as thresholds
from grafana.queries import (
    GPU_TARGET,
    MEMORY_TARGET,
    RECOMMENDED_SINCE,
    gpu_series_of_jobs,
    gpus_of_jobs,
    job_utilization,
    owner_series,
    recommendations_for_gpus,
)

JOB = '{training_job=~"$training_job"}'
LEGEND = "{{training_job}}"
#: Share of the memory of each job's GPUs that is held, each GPU counting alike.
MEMORY = (
    f"sum by (training_job) ({owner_series('gpu_memory_used_ratio:sum')})"
    f" / sum by (training_job) ({owner_series('gpu_memory_used_ratio:count')})"
)


def dashboard() -> Dashboard:
    board = (
        new_dashboard("jobs", "GPU jobs", "Who uses the GPUs, how well, and what do training jobs wait for?")
        .with_variable(multi_value_variable("training_job", "Job", "gpu_owner_info"))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) "
                f"({recommendations_for_gpus(gpus_of_jobs())})"
            )
        )
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(jobs())
    board = board.with_panel(
        recommendations_table(
            "What is recommended for these jobs?",
            "Open recommendations about at least one of their GPUs, in fleets of up to 1,000 GPUs.",
            recommendations_for_gpus(gpus_of_jobs()),
        ).height(7)
    )
    board = board.with_row(Row("How well do they use their GPUs?"))
    for graph in usage():
        board = board.with_panel(graph)
    board = board.with_row(Row("What do their steps wait for?"))
    for graph in steps():
        board = board.with_panel(graph)
    return board.with_row(Row("Who else uses GPUs?")).with_panel(owners())


def glance() -> list[Stat]:
    return [
        stat_panel(
            "Training jobs",
            "Jobs whose GPUs are known.",
            f"count(count by (training_job) ({owner_series('gpus:count')}))",
        ).span(6),
        stat_panel(
            "GPUs that they use", "A GPU that two jobs share counts twice.", f"sum({owner_series('gpus:count')})"
        ).span(6),
        stat_panel(
            "How busy are these GPUs?",
            "Mean utilization over 5 minutes. Green from the target of 90 % on.",
            job_utilization(by=""),
            thresholds(BAD, (0.6, WARNING), (GPU_TARGET, GOOD)),
            "percentunit",
        )
        .decimals(0)
        .span(6),
        stat_panel(
            "How much of their steps waits for data?",
            "Time in which training loops waited for the next batch, of all time in steps. No data where no job "
            "reports its steps (docs/training.md).",
            f"sum(rate(training_data_wait_seconds_total{JOB}[$__rate_interval]))"
            f" / sum(rate(training_step_seconds_total{JOB}[$__rate_interval]))",
            thresholds(GOOD, (0.1, WARNING), (0.3, BAD)),
            "percentunit",
        )
        .decimals(0)
        .span(6),
    ]


def jobs() -> Table:
    panel = table_panel(
        "How well does each job use its GPUs?",
        "Means over the GPUs of each training job. Far fewer multiprocessors at work than time busy: look at what is "
        "recommended.",
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
            "Value #B": "Busy",
            "Value #C": "Least busy GPU",
            "Value #D": "SMs at work",
            "Value #E": "Memory",
            "Value #F": "Power",
        },
    )
    for heading, target in {"Busy": GPU_TARGET, "Least busy GPU": GPU_TARGET, "Memory": MEMORY_TARGET}.items():
        panel = format_ratio_column(panel, heading, target)
    panel = override_column(format_ratio_column(panel, "SMs at work"), "Power", unit="watt", decimals=0)
    panel = sort_table(panel, "Busy")
    return add_column_links(panel, "Job", link("jobs", "This job alone", training_job=cell_value("Job"))).height(9)


def usage() -> list[TimeSeries]:
    this = link("jobs", "This job alone", training_job=label_value("training_job"))
    return [
        ratio_timeseries_panel(
            "How busy are the GPUs of each job?",
            "Mean utilization over the job's GPUs. Dashed: the target of 90 %. Marks: since when a recommendation is "
            "given.",
            (job_utilization(), LEGEND),
            target=GPU_TARGET,
        ).data_links([this]),
        ratio_timeseries_panel(
            "How full is their memory?",
            "Mean over the job's GPUs. Dashed: the target of 85 %.",
            (MEMORY, LEGEND),
            target=MEMORY_TARGET,
        ).data_links([this]),
    ]


def _per_step(part: str, by: str = "training_job") -> str:
    whole = f"sum by ({by}) (rate(training_step_seconds_total{JOB}[$__rate_interval]))"
    return f"sum by ({by}) (rate({part}{JOB}[$__rate_interval])) / {whole}"


def steps() -> list[TimeSeries]:
    return [
        ratio_timeseries_panel(
            "How much of each step waits for data?",
            "Time in which the loop waited for its next batch, of all time in steps.",
            (_per_step("training_data_wait_seconds_total"), LEGEND),
        ),
        ratio_timeseries_panel(
            "How much of each step waits for other ranks?",
            "Time that the job spent in the exchange with other ranks, of all time in steps.",
            (_per_step("training_communication_seconds_total"), LEGEND),
        ),
        timeseries_panel(
            "How many samples a second?",
            "Samples that all ranks of a job trained on.",
            "ops",
            (f"sum by (training_job) (rate(training_samples_total{JOB}[$__rate_interval]))", LEGEND),
        ),
        timeseries_panel(
            "What is the loss?",
            "As each rank last told it: the mean over the ranks.",
            "short",
            (f"avg by (training_job) (training_loss{JOB})", LEGEND),
        ),
    ]


def owners() -> Table:
    panel = table_panel(
        "Who holds how many GPUs, and how busy are they?",
        "All owners that gpu-exporter tells of, of training jobs or not. A GPU of two owners counts for both.",
        [
            "owner:gpus:count",
            "owner:gpus_busy:mean5m / owner:gpus_measured:count",
            "owner:gpu_memory_used_ratio:sum / owner:gpu_memory_used_ratio:count",
        ],
        {
            "owner_kind": "Kind",
            "owner_namespace": "Namespace",
            "owner_pod": "Pod",
            "owner_user": "User",
            "training_job": "Job",
            "Value #A": "GPUs",
            "Value #B": "Busy",
            "Value #C": "Memory",
        },
    )
    return format_ratio_column(format_ratio_column(panel, "Busy", GPU_TARGET), "Memory", MEMORY_TARGET)
