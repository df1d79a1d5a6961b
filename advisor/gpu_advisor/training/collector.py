"""TrainingCollector: a monitor's metrics in a `prometheus_client` registry of the job's own.

    with TrainingMonitor(job="resnet50") as monitor:
        REGISTRY.register(monitor.collector())

Imported only on request: prometheus_client is no dependency of the extra `train`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_advisor.training.metrics import FAMILIES, MetricSample, TrainingMetricFamily, group_by_family


class MetricSource(Protocol):
    """A TrainingMonitor."""

    @property
    def closed(self) -> bool: ...

    def labels(self) -> dict[str, str]: ...
    def samples(self) -> list[MetricSample]: ...


class TrainingCollector(Collector):
    """Yields the families of `TrainingMonitor.page()`, and none once the monitor is closed."""

    def __init__(self, monitor: MetricSource) -> None:
        self._monitor = monitor

    def describe(self) -> Iterator[Metric]:
        """Families without samples: the registry refuses a second collector with the same names."""
        return map(_metric, FAMILIES)

    def collect(self) -> Iterator[Metric]:
        # A closed monitor's metrics would look like those of a job that makes no progress.
        samples = [] if self._monitor.closed else self._monitor.samples()
        for family, series in group_by_family(self._monitor.labels(), samples):
            metric = _metric(family)
            for labels, value in series:
                metric.add_sample(family.name, labels, value)
            yield metric


def _metric(family: TrainingMetricFamily) -> Metric:
    # CounterMetricFamily keeps the name without its suffix _total; the exposition adds it.
    kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    return kind(family.name, family.help)
