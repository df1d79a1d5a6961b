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
CHOSEN = '{nodename=~"$nodename", name=~"$name"}'
#: The name that lines of a GPU have.
GPU = "{{nodename}} GPU {{index}}"


def identified(expr: str, matchers: str = CHOSEN) -> str:
    """Results by uuid of the GPUs that match, with the labels that tell a person which they are."""
    return f"{expr} * on (uuid) group_left (nodename, index, name) gpu:identity:info{matchers}"


def busy_share(matchers: str = CHOSEN, by: str = "") -> str:
    """Share of the time in which kernels ran, of all GPUs whose utilization is known."""
    grouping = f" by ({by}) " if by else ""
    return f"sum{grouping}(host:gpus_busy:mean5m{matchers}) / sum{grouping}(host:gpus_measured:count{matchers})"


def memory_share(matchers: str = CHOSEN, by: str = "") -> str:
    """Share of the GPUs' memory that processes hold."""
    grouping = f" by ({by}) " if by else ""
    used, total = f"host:gpu_memory_used_bytes:sum{matchers}", f"host:gpu_memory_total_bytes:sum{matchers}"
    return f"sum{grouping}({used}) / sum{grouping}({total})"


def of_nodes(series: str, matchers: str = '{nodename=~"$nodename"}') -> str:
    """A `node:` series, which goes by instance, with the node's name."""
    return f"{series} * on (instance) group_left (nodename) node:identity:info{matchers}"


#: What the advisor recommends now; one row each, however many advisors there are.
ADVICE = "max by (id, kind, scope_kind, scope, severity, alert) (gpu_advisor_recommendation_info)"
SINCE = "max by (id) (gpu_advisor_recommendation_since_timestamp_seconds) * 1000"
#: How many: 0 only if an advisor says so whose source answers.
ADVICE_COUNT = "count(max by (id) (gpu_advisor_recommendation_info)) or 0 * max(gpu_advisor_source_up == 1)"


def advice_on(gpus: str, advice: str = ADVICE) -> str:
    """The recommendations that are about one of these GPUs, which are any series with their uuid."""
    return f"{advice} and on (id) (gpu_advisor_recommendation_gpu_info and on (uuid) {gpus})"


def runs_of(job: str = "$training_job") -> str:
    """GPUs (uuid) of each training job; a GPU that two jobs share is there twice."""
    return f'max by (uuid, training_job) (gpu_owner_info{{training_job=~"{job}", training_job!=""}})'


def owned(record: str, job: str = "$training_job") -> str:
    """An `owner:` series, of training jobs."""
    return f'owner:{record}{{training_job=~"{job}", training_job!=""}}'


def busy_jobs(by: str = " by (training_job) ") -> str:
    """Share of the time in which kernels ran on the GPUs of each job."""
    return f"sum{by}({owned('gpus_busy:mean5m')}) / sum{by}({owned('gpus_measured:count')})"


def of_jobs(series: str) -> str:
    """A `gpu:` series of the GPUs of each job."""
    return f"{runs_of()} * on (uuid) group_left () {series}"
