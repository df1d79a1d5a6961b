"""The dashboards' PromQL, over the canonical recorded series (docs/mappings.md), and the targets.

Names of recorded series do not depend on the exporter, so the dashboards work with all of them. A metric that an
exporter lacks is a missing series, and its panel shows "no data". Sums are divided by the number of summed values, so
that a GPU without a value does not count as idle.
"""

from __future__ import annotations

#: The advisor's default targets, as ratios.
GPU_TARGET, MEMORY_TARGET, CPU_TARGET = 0.90, 0.85, 0.80
#: Memory meets its target within this band; from the last value on, the next allocation may fail.
MEMORY_BAND, MEMORY_FULL = (0.80, 0.90), 0.95
#: Threshold of the alert GpuTooHot, in degrees Celsius.
HOT_CELSIUS = 87

RUNBOOKS = "https://github.com/gpu-advisor/gpu-advisor/blob/main/docs/runbooks"

#: Matchers for `host:` series and `gpu:identity:info` from the dashboard's variables.
SELECTED_GPUS = '{cluster=~"$cluster", nodename=~"$nodename", name=~"$name"}'
#: Names of the selected clusters' nodes, for a variable.
NODES = 'label_values(gpu:identity:info{cluster=~"$cluster"}, nodename)'
#: Prices per hour by model and currency.
PRICE = "max by (name, currency) (gpu_advisor_gpu_price_per_hour)"
#: Legend of a GPU.
GPU_LEGEND = "{{nodename}} GPU {{index}}"


def with_gpu_identity(expr: str, matchers: str = SELECTED_GPUS) -> str:
    """Per-UUID results of the matching GPUs, with the labels that identify them to a person."""
    return f"{expr} * on (cluster, uuid) group_left (nodename, index, name) gpu:identity:info{matchers}"


def utilization(matchers: str = SELECTED_GPUS, by: str = "") -> str:
    """Ratio of time in which kernels ran, over all GPUs with known utilization."""
    grouping = f" by ({by}) " if by else ""
    return f"sum{grouping}(host:gpus_busy:mean5m{matchers}) / sum{grouping}(host:gpus_measured:count{matchers})"


def memory_used_ratio(matchers: str = SELECTED_GPUS, by: str = "") -> str:
    """Ratio of GPU memory used."""
    grouping = f" by ({by}) " if by else ""
    used, total = f"host:gpu_memory_used_bytes:sum{matchers}", f"host:gpu_memory_total_bytes:sum{matchers}"
    return f"sum{grouping}({used}) / sum{grouping}({total})"


def with_node_name(series: str, matchers: str = '{cluster=~"$cluster", nodename=~"$nodename"}') -> str:
    """A `node:` series, which is identified by instance, with the node's name."""
    return f"{series} * on (cluster, instance) group_left (nodename) node:identity:info{matchers}"


def extremes(expr: str, label: str, choose: str = "topk") -> str:
    """The ten results that are highest (`topk`) or lowest (`bottomk`) at the end of the time range, by `label`.

    Chosen once, so that a large fleet has ten curves, none of which ends within the range.
    """
    return f"({expr}) and on (cluster, {label}) {choose}(10, last_over_time(({expr})[5m:1m] @ end()))"


#: Open recommendations; one row each, whatever the number of advisors.
OPEN_RECOMMENDATIONS = "max by (id, kind, scope_kind, scope, severity, alert) (gpu_advisor_recommendation_info)"


def severity_rank(metric: str, by: str, matchers: str = "") -> str:
    """1 for critical, 2 for warning, 3 for info, 4 for any other: names of severities do not sort by urgency."""
    known = ("critical", "warning", "info")
    selected = [f'="{severity}"' for severity in known] + [f'!~"{"|".join(known)}"']
    return " or ".join(
        f"{rank} * max by ({by}) ({metric}{{severity{matcher}{matchers}}})" for rank, matcher in enumerate(selected, 1)
    )


RECOMMENDED_SINCE = "max by (id) (gpu_advisor_recommendation_since_timestamp_seconds) * 1000"
#: Their number: 0 only if an advisor with a working data source reports none.
OPEN_RECOMMENDATION_COUNT = (
    "count(max by (id) (gpu_advisor_recommendation_info)) or 0 * max(gpu_advisor_source_up == 1)"
)


def recommendations_for_gpus(gpus: str, advice: str = OPEN_RECOMMENDATIONS) -> str:
    """The recommendations for any of these GPUs; `gpus` is any expression with their UUIDs."""
    return f"{advice} and on (id) (gpu_advisor_recommendation_gpu_info and on (uuid) {gpus})"


def _of_jobs(job: str) -> str:
    """Matchers of the training jobs of the selected clusters and namespaces."""
    selected = 'cluster=~"$cluster", owner_namespace=~"$owner_namespace"'
    return f'{{{selected}, training_job=~"{job}", training_job!=""}}'


def gpus_of_jobs(job: str = "$training_job") -> str:
    """GPUs (UUIDs) of each training job; a GPU shared by two jobs appears twice."""
    return f"max by (cluster, uuid, training_job) (gpu_owner_info{_of_jobs(job)})"


def owner_series(record: str, job: str = "$training_job") -> str:
    """An `owner:` series, restricted to training jobs."""
    return f"owner:{record}{_of_jobs(job)}"


def job_utilization(by: str = " by (training_job) ") -> str:
    """Ratio of time in which kernels ran on the GPUs of each job."""
    return f"sum{by}({owner_series('gpus_busy:mean5m')}) / sum{by}({owner_series('gpus_measured:count')})"


def gpu_series_of_jobs(series: str) -> str:
    """A `gpu:` series of the GPUs of each job."""
    return f"{gpus_of_jobs()} * on (cluster, uuid) group_left () {series}"
