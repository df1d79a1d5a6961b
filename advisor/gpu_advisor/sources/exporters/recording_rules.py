"""Recording rules generated from mappings: the canonical series that dashboards and long windows read.

They do not depend on the scrape interval: a mean is over the samples, and data coverage is their number over that of
the scrapes, which `up` counts. All series keep the label of the cluster.

Names follow Prometheus' convention level:metric:operations (https://prometheus.io/docs/practices/rules/). The level
names the label of a series: `gpu` has `uuid`, `node` has `instance`, `job` has `job`; aggregate_rules.py has `host`,
`model`, `owner`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from gpu_advisor.promql.compiler import format_duration, to_promql
from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    ConstantLabel,
    Expression,
    LabelReplace,
    Matcher,
    Reduction,
    Selector,
    any_of_values,
    union,
)
from gpu_advisor.sources.exporters import aggregate_rules
from gpu_advisor.sources.exporters.aggregate_rules import GPU_INFO
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import IDENTITY_LABELS, ExporterMapping, QuantityOf
from gpu_advisor.sources.exporters.mapping_files import mappings, own_mappings

FIVE_MINUTES, MINUTES_30, HOUR = 300, 1800, 3600

NODE_INFO = "node:identity:info"

#: The quantity whose samples count as data coverage, and the windows (seconds) in which scrapes are expected.
_COVERED_QUANTITY = "gpu_utilization"
EXPECTED_SCRAPES: Mapping[int, str] = {MINUTES_30: "job:scrapes:expected30m", HOUR: "job:scrapes:expected1h"}
#: Shorter windows, which show the scrape interval while Prometheus itself has less than a whole window.
_SHORT_WINDOWS = (600, FIVE_MINUTES)


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """A canonical series: a quantity, reduced over a window (seconds; None for an instant value)."""

    record: str
    quantity: str
    reduction: Reduction
    window_seconds: int | None
    about: str


def _now(record: str, quantity: str, about: str) -> RecordedSeries:
    return RecordedSeries(f"{record}:last", quantity, "last", None, about)


def _mean(record: str, quantity: str, about: str) -> RecordedSeries:
    return RecordedSeries(f"{record}:mean5m", quantity, "mean", FIVE_MINUTES, about)


def _rate(record: str, quantity: str, about: str) -> RecordedSeries:
    return RecordedSeries(f"{record}:rate5m", quantity, "rate", FIVE_MINUTES, about)


#: Recorded at each rule evaluation.
EVALUATION_SERIES: tuple[RecordedSeries, ...] = (
    _now("gpu:up", "gpu_up", "1 if the GPU is up, 0 if it is lost"),
    _mean("gpu:utilization_ratio", "gpu_utilization", "share of time a kernel ran"),
    _now("gpu:memory_used_ratio", "gpu_memory_used", "share of memory used"),
    _now("gpu:memory_total_bytes", "gpu_memory_total", "memory size"),
    _now("gpu:processes", "gpu_processes", "processes"),
    _now("gpu:temperature_celsius", "gpu_temperature", "core temperature"),
    _now("gpu:power_watts", "gpu_power", "power draw"),
    _now("gpu:power_limit_watts", "gpu_power_limit", "power limit"),
    _now("gpu:sm_clock_hertz", "gpu_sm_clock", "SM clock"),
    _now("gpu:sm_clock_max_hertz", "gpu_sm_clock_max", "maximum SM clock"),
    _mean("gpu:sm_activity_ratio", "gpu_sm_activity", "share of SMs busy"),
    _mean("gpu:tensor_activity_ratio", "gpu_tensor_activity", "tensor core activity"),
    _mean("gpu:dram_activity_ratio", "gpu_dram_activity", "memory bandwidth used, of the maximum"),
    _rate(
        "gpu:throttle_hw_thermal_ratio", "gpu_throttle_hw_thermal", "share of time thermally throttled by the hardware"
    ),
    _rate(
        "gpu:throttle_sw_thermal_ratio", "gpu_throttle_sw_thermal", "share of time thermally throttled by the driver"
    ),
    _rate("gpu:throttle_power_brake_ratio", "gpu_throttle_power_brake", "share of time throttled by the power brake"),
    _rate("gpu:throttle_power_cap_ratio", "gpu_throttle_power_cap", "share of time throttled by the power limit"),
    _rate("gpu:pcie_receive_bytes_per_second", "gpu_pcie_receive", "PCIe receive rate"),
    _rate("gpu:pcie_transmit_bytes_per_second", "gpu_pcie_transmit", "PCIe transmit rate"),
    _rate("gpu:nvlink_receive_bytes_per_second", "gpu_nvlink_receive", "NVLink receive rate"),
    _now("gpu:row_remap_failed", "gpu_row_remap_failed", "1 if remapping a faulty memory row failed"),
    _now("gpu:row_remap_pending", "gpu_row_remap_pending", "1 if faulty memory rows need a reset to be remapped"),
    _mean("node:cpu_ratio", "node_cpu", "CPU utilization"),
    _now("node:memory_used_ratio", "node_memory_used", "share of memory used"),
    _rate("node:io_pressure_ratio", "node_io_pressure", "share of time a task waited for storage"),
    _rate("node:disk_busy_ratio", "node_disk_busy", "utilization of the busiest disk"),
    _rate("node:network_receive_ratio", "node_network_receive", "inbound utilization of the busiest link"),
    _rate("node:network_transmit_ratio", "node_network_transmit", "outbound utilization of the busiest link"),
)

#: Recorded once a minute, as they read half an hour.
MINUTE_SERIES: tuple[RecordedSeries, ...] = (
    RecordedSeries("gpu:utilization_ratio:mean30m", "gpu_utilization", "mean", MINUTES_30, "mean of 30 minutes"),
    RecordedSeries(
        "gpu:utilization_coverage_ratio:mean30m", "gpu_utilization", "coverage", MINUTES_30, "data coverage"
    ),
    RecordedSeries("gpu:fatal_errors:increase1h", "gpu_fatal_errors", "increase", HOUR, "errors that require a reset"),
)

#: Recorded once an hour, over that hour.
HOURLY_SERIES: tuple[RecordedSeries, ...] = (
    RecordedSeries("gpu:utilization_ratio:mean1h", "gpu_utilization", "mean", HOUR, "mean of the hour"),
    RecordedSeries(
        "gpu:utilization_coverage_ratio:mean1h", "gpu_utilization", "coverage", HOUR, "data coverage of the hour"
    ),
    RecordedSeries("gpu:memory_used_ratio:mean1h", "gpu_memory_used", "mean", HOUR, "mean of the hour"),
    RecordedSeries("gpu:power_watts:mean1h", "gpu_power", "mean", HOUR, "mean of the hour"),
)

_DAY_COVERAGE = "gpu:utilization_coverage_ratio:mean1d"

#: From the hourly series, recorded more often than the lookback delta of 5 minutes. {gpu} stands for the labels that
#: identify a GPU. A day of which less than 90 % has data has no highest hour: the busiest may be missing.
DAILY_SERIES: Mapping[str, str] = {
    _DAY_COVERAGE: "clamp_max(sum_over_time(gpu:utilization_coverage_ratio:mean1h[1d]) / 24, 1)",
    "gpu:utilization_ratio:max1d": f"max_over_time(gpu:utilization_ratio:mean1h[1d]) and on ({{gpu}}) "
    f"({_DAY_COVERAGE} >= 0.9)",
}


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """`jobs` restricts all series to these jobs of Prometheus; `cluster_label` distinguishes clusters, unless empty."""

    jobs: tuple[str, ...] = ()
    cluster_label: str = "cluster"

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        return (any_of_values("job", self.jobs),) if self.jobs else ()

    def by(self, *labels: str) -> str:
        """A list of labels, with the cluster's."""
        return ", ".join((self.cluster_label, *labels) if self.cluster_label else labels)


def rules_document(mappings: Sequence[ExporterMapping], options: RuleOptions) -> dict[str, object]:
    """A rules file as a YAML document. If several exporters report a GPU, the first is recorded."""
    dialects = [ExporterDialect(each, options.matchers, cluster_label=options.cluster_label) for each in mappings]
    aggregates = aggregate_rules.available_rules
    fine = [*_identity_rules(dialects, options), *_series_rules(EVALUATION_SERIES, dialects, options)]
    owners = [aggregate_rules.OWNER_INFO for mapping in mappings if mapping.name == "gpu-exporter"]
    fine += aggregates(aggregate_rules.EVALUATION_SERIES, [*_records(fine), *owners], options.cluster_label)
    slow = [*_expected_scrapes(MINUTES_30, dialects, options), *_series_rules(MINUTE_SERIES, dialects, options)]
    slow += aggregates(aggregate_rules.MINUTE_SERIES, _records([*fine, *slow]), options.cluster_label)
    hourly = [*_expected_scrapes(HOUR, dialects, options), *_series_rules(HOURLY_SERIES, dialects, options)]
    groups: list[dict[str, object]] = [{"name": "gpu-advisor", "rules": fine}]
    if slow:
        groups.append({"name": "gpu-advisor-idle", "interval": "1m", "rules": slow})
    if hourly:
        daily = [{"record": name, "expr": expr.format(gpu=options.by("uuid"))} for name, expr in DAILY_SERIES.items()]
        groups.append({"name": "gpu-advisor-hourly", "interval": "1h", "rules": hourly})
        groups.append({"name": "gpu-advisor-daily", "interval": "2m", "rules": daily})
    return {"groups": groups}


def _series_rules(
    every: Sequence[RecordedSeries], dialects: Sequence[ExporterDialect], options: RuleOptions
) -> Iterator[dict[str, str]]:
    for series in every:
        if series.reduction == "coverage":
            parts = [_coverage(dialect, series, options) for dialect in dialects if _samples(dialect, series)]
        else:
            found = (
                dialect.expression(series.quantity, series.reduction, series.window_seconds) for dialect in dialects
            )
            parts = [to_promql(union(*expressions))] if (expressions := [each for each in found if each]) else []
        if parts:
            yield {"record": series.record, "expr": " or ".join(parts)}


def _samples(dialect: ExporterDialect, series: RecordedSeries) -> Expression | None:
    """The number of samples of each GPU, per job."""
    mapping = dialect.mapping.model_copy(update={"by": (*dialect.mapping.by, "job")})
    return replace(dialect, mapping=mapping).expression(series.quantity, "samples", series.window_seconds)


def _coverage(dialect: ExporterDialect, series: RecordedSeries, options: RuleOptions) -> str:
    """Samples over the scrapes of their job. At most 1: series of one GPU may overlap, as after a restart."""
    samples = _samples(dialect, series)
    assert samples is not None
    assert series.window_seconds is not None
    expected = f"/ on ({options.by('job')}) group_left () {EXPECTED_SCRAPES[series.window_seconds]}"
    return f"clamp_max(max by ({options.by('uuid')}) (({to_promql(samples)}) {expected}), 1)"


def _expected_scrapes(
    window: int, dialects: Sequence[ExporterDialect], options: RuleOptions
) -> Iterator[dict[str, str]]:
    """The scrapes of each job in a window: those of its most scraped target, were it scraped all the time.

    n scrapes are n - 1 intervals apart, so a short window bounds the number in the long one from below, while
    Prometheus was down in between or has just started. Without `up`, as after remote write: most samples of any GPU.
    """
    up = Selector("up", "count", window, matchers=options.matchers)
    counts = [to_promql(up)]
    for short in _SHORT_WINDOWS:
        count = Affine(replace(up, window_seconds=short), window / short, -window / short)
        counts.append(to_promql(ConstantLabel(count, "window", format_duration(short))))
    series = RecordedSeries("", _COVERED_QUANTITY, "samples", window, "")
    own = [to_promql(found) for dialect in dialects if (found := _samples(dialect, series)) is not None]
    if own:
        by = f"max by ({options.by('job')})"
        expr = f"{by} ({' or '.join(counts)}) or on ({options.by('job')}) {by} ({' or '.join(own)})"
        yield {"record": EXPECTED_SCRAPES[window], "expr": expr}


def _records(rules: Iterable[dict[str, str]]) -> list[str]:
    return [rule["record"] for rule in rules]


def _identity_rules(dialects: Sequence[ExporterDialect], options: RuleOptions) -> Iterator[dict[str, str]]:
    """One identity row per GPU and node: two rows, as shortly after a driver update, would break joins."""
    gpus = [
        expression
        for dialect in dialects
        if dialect.mapping.scope == "gpu"
        for expression in _identity_expressions(dialect, options)
    ]
    if gpus:
        yield {"record": GPU_INFO, "expr": f"topk by ({options.by('uuid')}) (1, {to_promql(union(*gpus))})"}
    labels = (*((options.cluster_label,) if options.cluster_label else ()), "instance", "nodename")
    nodes = [
        Affine(Aggregate("max", labels, Selector(metric, matchers=dialect.target_matchers)), 0.0, 1.0)
        for dialect in dialects
        if dialect.mapping.scope == "node"
        for metric in dialect.mapping.identity.metrics
    ]
    if nodes:
        yield {"record": NODE_INFO, "expr": f"topk by ({options.by('instance')}) (1, {to_promql(union(*nodes))})"}


def _identity_expressions(dialect: ExporterDialect, options: RuleOptions) -> Iterator[Expression]:
    """Identity rows under canonical label names, with value 1: of GPUs, and of their MIG slices."""
    mapping = dialect.mapping
    kinds: tuple[QuantityOf, ...] = ("gpu", "slice") if mapping.slice_labels else ("gpu",)
    for of in kinds:
        rows = [
            mapping.relabel(Selector(metric, matchers=dialect.target_matchers), mapping.by, of)
            for metric in mapping.identity.metrics
        ]
        found: Expression = union(*rows)
        if "nodename" not in mapping.labels and mapping not in own_mappings():
            found = LabelReplace(found, "nodename", "instance")  # no node label: use the scraped address
        for label in IDENTITY_LABELS:
            if label not in mapping.by:
                found = mapping.rename(found, label, of)
        if mapping.vendor:
            found = ConstantLabel(found, "vendor", mapping.vendor)
        labels = (*((options.cluster_label,) if options.cluster_label else ()), *IDENTITY_LABELS)
        # Times 0, plus 1: an identity series may have other values, such as a temperature.
        yield Affine(Aggregate("max", labels, found), 0.0, 1.0)


def render_rules(
    names: Sequence[str] = (), jobs: Sequence[str] = (), cluster_label: str = "cluster", mappings_dir: str = ""
) -> str:
    """The rules file of these mappings, in this order; by default, of this project's own.

    `jobs` restricts the series to these Prometheus jobs. Raises KeyError for an unknown mapping, MappingError.
    """
    every = {mapping.name: mapping for mapping in mappings(mappings_dir)}
    chosen = [every[name] for name in names] or [mapping for mapping in own_mappings() if not mapping.companion]
    found = rules_document(chosen, RuleOptions(tuple(jobs), cluster_label))
    titles = "; ".join(mapping.title or mapping.name for mapping in chosen)
    head = (
        f"# Recording rules generated from the mapping of {titles}.\n# Generated by `gpu-advisor rules`; do not edit.\n"
    )
    return head + yaml.safe_dump(found, sort_keys=False, width=math.inf, allow_unicode=True)
