"""Recording rules generated from a mapping: the canonical series that dashboards and long windows read.

Names follow Prometheus' convention level:metric:operations (https://prometheus.io/docs/practices/rules/). The level
names the label of a series: `gpu` has `uuid`, `node` has `instance`; aggregate_rules.py has `host`, `model`, `owner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    ConstantLabel,
    Expression,
    LabelReplace,
    Selector,
    any_of_values,
    union,
)
from gpu_advisor.promql.vocabulary import Reduction
from gpu_advisor.sources.exporters import aggregate_rules
from gpu_advisor.sources.exporters.aggregate_rules import GPU_INFO
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import IDENTITY_LABELS, ExporterMapping, mappings, own_mappings

FIVE_MINUTES, MINUTES_30, HOUR = 300, 1800, 3600

NODE_INFO = "node:identity:info"


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

#: From the hourly series, recorded more often than the lookback delta of 5 minutes.
DAILY_SERIES: Mapping[str, Expression] = {
    "gpu:utilization_ratio:max1d": Selector("gpu:utilization_ratio:mean1h", "max", 24 * HOUR),
}


def rules_document(dialects: Sequence[ExporterDialect]) -> dict[str, object]:
    """A rules file as a YAML document. If several dialects report a GPU, the first is recorded."""
    fine = [*_identity_rules(dialects), *_series_rules(EVALUATION_SERIES, dialects)]
    owners = [aggregate_rules.OWNER_INFO for dialect in dialects if dialect.name == "gpu-exporter"]
    fine += aggregate_rules.available_rules(aggregate_rules.EVALUATION_SERIES, [*_records(fine), *owners])
    slow = list(_series_rules(MINUTE_SERIES, dialects))
    slow += aggregate_rules.available_rules(aggregate_rules.MINUTE_SERIES, _records([*fine, *slow]))
    hourly = list(_series_rules(HOURLY_SERIES, dialects))
    groups: list[dict[str, object]] = [{"name": "gpu-advisor", "rules": fine}]
    if slow:
        groups.append({"name": "gpu-advisor-idle", "interval": "1m", "rules": slow})
    if hourly:
        daily = [{"record": record, "expr": to_promql(expression)} for record, expression in DAILY_SERIES.items()]
        groups.append({"name": "gpu-advisor-hourly", "interval": "1h", "rules": hourly})
        groups.append({"name": "gpu-advisor-daily", "interval": "2m", "rules": daily})
    return {"groups": groups}


def _series_rules(every: Sequence[RecordedSeries], dialects: Sequence[ExporterDialect]) -> Iterator[dict[str, str]]:
    for series in every:
        parts = [
            expression
            for dialect in dialects
            if (expression := dialect.expression(series.quantity, series.reduction, series.window_seconds)) is not None
        ]
        if parts:
            yield {"record": series.record, "expr": to_promql(union(*parts))}


def _records(rules: Iterable[dict[str, str]]) -> list[str]:
    return [rule["record"] for rule in rules]


def _identity_rules(dialects: Sequence[ExporterDialect]) -> Iterator[dict[str, str]]:
    """One identity row per GPU and node: two rows, as shortly after a driver update, would break joins."""
    gpus = [_identity_expression(dialect) for dialect in dialects if dialect.mapping.scope == "gpu"]
    if gpus:
        yield {"record": GPU_INFO, "expr": f"topk by (uuid) (1, {to_promql(union(*gpus))})"}
    nodes = [
        Affine(Aggregate("max", ("instance", "nodename"), Selector(metric, matchers=dialect.target_matchers)), 0.0, 1.0)
        for dialect in dialects
        if dialect.mapping.scope == "node"
        for metric in dialect.mapping.identity.metrics
    ]
    if nodes:
        yield {"record": NODE_INFO, "expr": f"topk by (instance) (1, {to_promql(union(*nodes))})"}


def _identity_expression(dialect: ExporterDialect) -> Expression:
    """Identity rows under canonical label names, with value 1."""
    mapping = dialect.mapping
    found: Expression = union(
        *(Selector(metric, matchers=dialect.target_matchers) for metric in mapping.identity.metrics)
    )
    if "nodename" not in mapping.labels and mapping not in own_mappings():
        found = LabelReplace(found, "nodename", "instance")  # no node label: use the scraped address
    for label in IDENTITY_LABELS:
        found = _rename_label(found, mapping, label)
    if mapping.vendor:
        found = ConstantLabel(found, "vendor", mapping.vendor)
    # Times 0, plus 1: an identity series may have other values, such as a temperature.
    return Affine(Aggregate("max", IDENTITY_LABELS, found), 0.0, 1.0)


def _rename_label(found: Expression, mapping: ExporterMapping, label: str) -> Expression:
    prefix = mapping.prefixes.get(label, "")
    for exporter_label in reversed(mapping.exporter_labels(label)):
        if exporter_label != label or prefix:
            found = LabelReplace(found, label, exporter_label, prefix)
    return found


def render_rules(names: Sequence[str] = (), jobs: Sequence[str] = (), scrape_interval_seconds: float = 15.0) -> str:
    """The rules file of these mappings, in this order; by default, of this project's own.

    `jobs` restricts the series to these Prometheus jobs. Raises KeyError for an unknown mapping.
    """
    every = {mapping.name: mapping for mapping in mappings()}
    chosen = [every[name] for name in names] or [mapping for mapping in own_mappings() if not mapping.companion]
    target_matchers = (any_of_values("job", tuple(jobs)),) if jobs else ()
    found = rules_document([ExporterDialect(mapping, target_matchers, scrape_interval_seconds) for mapping in chosen])
    titles = "; ".join(mapping.title or mapping.name for mapping in chosen)
    head = (
        f"# Recording rules generated from the mapping of {titles}.\n# Generated by `gpu-advisor rules`; do not edit.\n"
    )
    return head + yaml.safe_dump(found, sort_keys=False, width=1000, allow_unicode=True)
