"""Recording rules that aggregate canonical series by host, model and owner, so that dashboards need not sum over GPUs.

The levels are `host` (labels `nodename` and `name`, the GPU's model: a node with two models has two series), `model`
(`name` only), and `owner`, if gpu-exporter reports who uses a GPU: a GPU of two owners counts for both. Even a fleet of
thousands of GPUs has only some hundred hosts and a few models, so a query may span a week.

All keep the label of the cluster (`cluster`, where the series have one): two clusters may use one node name.

Each sum comes with the number of GPUs it is over: a GPU without a value is in neither, and does not count as idle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

GPU_INFO = "gpu:identity:info"
MEAN_UTILIZATION, COVERAGE = "gpu:utilization_ratio:mean30m", "gpu:utilization_coverage_ratio:mean30m"
IDLE = "gpu:idle:mean30m"
IDLE_WITH_MEMORY = f"({IDLE} * on ({{gpu}}) (gpu:memory_used_ratio:last > bool 0.05))"
MEMORY_BYTES = "gpu:memory_total_bytes:last"
#: The owners of a GPU, from gpu-exporter: no other exporter has metrics that map to it.
OWNER_INFO = "gpu_owner_info"
_OWNER_LABELS = "owner_kind, owner_namespace, owner_pod, owner_user, training_job"
_OWNER_EXPRESSION = f"max by ({{gpu}}, {_OWNER_LABELS}) ({OWNER_INFO})"
#: Whole GPUs: a MIG slice is not a GPU of its host.
_GPUS = f'{GPU_INFO}{{{{mig_profile=""}}}}'
_WHERE = f"* on ({{gpu}}) group_left (nodename, name) {_GPUS}"


@dataclass(frozen=True, slots=True)
class AggregateSeries:
    """The series `record`, computed by `expr` from the canonical series in `inputs`.

    In `expr`, {gpu} stands for the labels that identify a GPU, {cluster} for the cluster's label and a comma.
    """

    record: str
    expr: str
    inputs: tuple[str, ...]
    about: str


def _hosts(op: str, record: str, of: str, about: str, *needs: str) -> AggregateSeries:
    expr = f"{op} by ({{cluster}}nodename, name) ({of} {_WHERE})"
    return AggregateSeries(f"host:{record}", expr, (*(needs or (of,)), GPU_INFO), about)


def _owners(op: str, record: str, of: str, about: str) -> AggregateSeries:
    expr = f"{op} by ({{cluster}}{_OWNER_LABELS}) ({_OWNER_EXPRESSION} * on ({{gpu}}) group_left () {of})"
    return AggregateSeries(f"owner:{record}", expr, (of, OWNER_INFO), about)


def _models(of_hosts: AggregateSeries) -> AggregateSeries:
    """The sum of a host series over all hosts, by model."""
    record = of_hosts.record.replace("host:", "model:", 1)
    return AggregateSeries(record, f"sum by ({{cluster}}name) ({of_hosts.record})", (of_hosts.record,), of_hosts.about)


_COUNT = AggregateSeries("host:gpus:count", f"count by ({{cluster}}nodename, name) ({_GPUS})", (GPU_INFO,), "GPUs")
_MEASURED = _hosts("count", "gpus_measured:count", "gpu:utilization_ratio:mean5m", "GPUs whose utilization is known")
_BUSY = _hosts("sum", "gpus_busy:mean5m", "gpu:utilization_ratio:mean5m", "sum of the utilization of these")
_POWER = _hosts("sum", "gpu_power_watts:sum", "gpu:power_watts:last", "power draw of all GPUs")

#: Recorded at each rule evaluation, in this order, after their inputs.
EVALUATION_SERIES: tuple[AggregateSeries, ...] = (
    _COUNT,
    _hosts("sum", "gpus_down:sum", "(gpu:up:last == bool 0)", "GPUs that are down", "gpu:up:last"),
    _MEASURED,
    _BUSY,
    *(
        _hosts(
            "sum", f"gpus_below_{percent}_percent:sum", f"(gpu:utilization_ratio:mean5m < bool {percent / 100:g})",
            f"GPUs below {percent} % utilization", "gpu:utilization_ratio:mean5m",
        )
        for percent in (1, 60, 90)
    ),
    _hosts(
        "sum", "gpu_memory_used_bytes:sum", f"(gpu:memory_used_ratio:last * {MEMORY_BYTES})", "memory used",
        "gpu:memory_used_ratio:last", MEMORY_BYTES,
    ),
    _hosts("sum", "gpu_memory_total_bytes:sum", MEMORY_BYTES, "memory of all GPUs"),
    _POWER,
    *map(_models, (_COUNT, _MEASURED, _BUSY, _POWER)),
    AggregateSeries("owner:gpus:count", f"count by ({{cluster}}{_OWNER_LABELS}) ({_OWNER_EXPRESSION})", (OWNER_INFO,),
                    "GPUs of an owner"),
    _owners("count", "gpus_measured:count", "gpu:utilization_ratio:mean5m", "those whose utilization is known"),
    _owners("sum", "gpus_busy:mean5m", "gpu:utilization_ratio:mean5m", "sum of the utilization of these"),
    _owners("sum", "gpu_memory_used_ratio:sum", "gpu:memory_used_ratio:last", "sum of their memory ratios"),
    _owners("count", "gpu_memory_used_ratio:count", "gpu:memory_used_ratio:last", "those whose memory is known"),
)  # fmt: skip

_IDLE = _hosts("sum", "gpus_idle:sum30m", IDLE, "GPUs idle for 30 minutes")
_HOLDING = _hosts(
    "sum", "gpus_idle_holding:sum30m", IDLE_WITH_MEMORY, "those of them with more than 5 % of memory allocated",
    IDLE, "gpu:memory_used_ratio:last",
)  # fmt: skip

#: Recorded once a minute, as they read half an hour of each GPU.
MINUTE_SERIES: tuple[AggregateSeries, ...] = (
    # Missing data is not idleness: no value for a GPU with less than 90 % data coverage.
    AggregateSeries(IDLE, f"({MEAN_UTILIZATION} < bool 0.01) and on ({{gpu}}) ({COVERAGE} >= 0.9)",
                    (MEAN_UTILIZATION, COVERAGE),
                    "1 if the GPU was busy for less than 1 % of 30 minutes, 0 if not"),
    _IDLE,
    _HOLDING,
    *map(_models, (_IDLE, _HOLDING)),
)  # fmt: skip


def available_rules(
    every: tuple[AggregateSeries, ...], recorded: Collection[str], cluster_label: str = ""
) -> Iterator[dict[str, str]]:
    """The rules of the series whose inputs are recorded, by name or by an earlier rule."""
    cluster = f"{cluster_label}, " if cluster_label else ""
    available = set(recorded)
    for series in every:
        if available.issuperset(series.inputs):
            available.add(series.record)
            expr = series.expr.format(cluster=cluster, gpu=f"{cluster}uuid")
            yield {"record": series.record, "expr": expr}
