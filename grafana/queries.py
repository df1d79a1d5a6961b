"""What the dashboards ask for: pieces of PromQL over the canonical recorded series (docs/mappings.md), and the targets.

Recorded series have the same names whatever exporter is there, so a dashboard serves all of them; what an exporter does
not tell is no series, and its panel says that there are no data. Sums are divided by the number of what was summed, so
that a GPU without a value does not count as one that does nothing.
"""

from __future__ import annotations

#: The advisor's default targets, as ratios.
GPU_TARGET, MEMORY_TARGET, CPU_TARGET = 0.90, 0.85, 0.80
#: Where the rule GpuTooHot fires, in degrees Celsius.
HOT_CELSIUS = 87

RUNBOOKS = "https://github.com/gpu-advisor/gpu-advisor/blob/main/docs/runbooks"

#: Labels of `host:` and `gpu:identity:info`: those that the reader chose.
SELECTED_GPUS = '{nodename=~"$nodename", name=~"$name"}'
#: The name that lines of a GPU have.
GPU_LEGEND = "{{nodename}} GPU {{index}}"


def with_gpu_identity(expr: str, matchers: str = SELECTED_GPUS) -> str:
    """Results by uuid of the GPUs that match, with the labels that tell a person which they are."""
    return f"{expr} * on (uuid) group_left (nodename, index, name) gpu:identity:info{matchers}"


def utilization(matchers: str = SELECTED_GPUS, by: str = "") -> str:
    """Share of the time in which kernels ran, of all GPUs whose utilization is known."""
    grouping = f" by ({by}) " if by else ""
    return f"sum{grouping}(host:gpus_busy:mean5m{matchers}) / sum{grouping}(host:gpus_measured:count{matchers})"


def memory_used_ratio(matchers: str = SELECTED_GPUS, by: str = "") -> str:
    """Share of the GPUs' memory that processes hold."""
    grouping = f" by ({by}) " if by else ""
    used, total = f"host:gpu_memory_used_bytes:sum{matchers}", f"host:gpu_memory_total_bytes:sum{matchers}"
    return f"sum{grouping}({used}) / sum{grouping}({total})"


def with_node_name(series: str, matchers: str = '{nodename=~"$nodename"}') -> str:
    """A `node:` series, which goes by instance, with the node's name."""
    return f"{series} * on (instance) group_left (nodename) node:identity:info{matchers}"


#: What the advisor recommends now; one row each, however many advisors there are.
OPEN_RECOMMENDATIONS = "max by (id, kind, scope_kind, scope, severity, alert) (gpu_advisor_recommendation_info)"
RECOMMENDED_SINCE = "max by (id) (gpu_advisor_recommendation_since_timestamp_seconds) * 1000"
#: How many: 0 only if an advisor says so whose source answers.
OPEN_RECOMMENDATION_COUNT = (
    "count(max by (id) (gpu_advisor_recommendation_info)) or 0 * max(gpu_advisor_source_up == 1)"
)


def recommendations_for_gpus(gpus: str, advice: str = OPEN_RECOMMENDATIONS) -> str:
    """The recommendations that are about one of these GPUs, which are any series with their uuid."""
    return f"{advice} and on (id) (gpu_advisor_recommendation_gpu_info and on (uuid) {gpus})"


def gpus_of_jobs(job: str = "$training_job") -> str:
    """GPUs (uuid) of each training job; a GPU that two jobs share is there twice."""
    return f'max by (uuid, training_job) (gpu_owner_info{{training_job=~"{job}", training_job!=""}})'


def owner_series(record: str, job: str = "$training_job") -> str:
    """An `owner:` series, of training jobs."""
    return f'owner:{record}{{training_job=~"{job}", training_job!=""}}'


def job_utilization(by: str = " by (training_job) ") -> str:
    """Share of the time in which kernels ran on the GPUs of each job."""
    return f"sum{by}({owner_series('gpus_busy:mean5m')}) / sum{by}({owner_series('gpus_measured:count')})"


def gpu_series_of_jobs(series: str) -> str:
    """A `gpu:` series of the GPUs of each job."""
    return f"{gpus_of_jobs()} * on (uuid) group_left () {series}"
