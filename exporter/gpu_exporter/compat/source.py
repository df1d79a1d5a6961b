"""What the families of other exporters are computed from: our own readings of NVIDIA GPUs, and their owners."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily

VENDOR = "nvidia"
"""The tools whose names we serve support no other vendor."""

KUBERNETES = "kubernetes"
"""The owner_kind of pods."""

ValuesByLabels = Mapping[tuple[str, ...], float]


class Gpu(NamedTuple):
    """A GPU or MIG instance from gpu_info. `parent` is the uuid of the whole GPU for an instance, else empty."""

    uuid: str
    nvml_index: str
    name: str
    pci_bus_id: str
    driver_version: str
    parent: str
    mig_profile: str
    gpu_instance_id: str
    nodename: str

    @property
    def number(self) -> str:
        """The index of the whole GPU."""
        return self.nvml_index.partition(":")[0]

    @property
    def whole_uuid(self) -> str:
        return self.parent or self.uuid


class PodLabels(NamedTuple):
    namespace: str
    pod: str
    container: str


def parse_gpu_info(values: Mapping[MetricFamily, ValuesByLabels]) -> list[Gpu]:
    """NVIDIA's GPUs that are up, in the order of gpu_info."""
    up = values.get(metrics.UP, {})
    found = []
    for labels in values.get(metrics.INFO, {}):
        of = dict(zip(metrics.INFO.labels, labels, strict=True))
        if of["vendor"] == VENDOR and up.get((of["uuid"],), 0.0):
            found.append(
                Gpu(
                    of["uuid"], of["index"], of["name"], of["pci_bus_id"], of["driver_version"], of["parent_uuid"],
                    of["mig_profile"], of["gpu_instance_id"], of["nodename"],
                )
            )  # fmt: skip
    return found


def values_by_family(samples: Iterable[FamilySamples]) -> dict[MetricFamily, ValuesByLabels]:
    return {each.family: dict(each.rows) for each in samples}


def pods_by_uuid(owners: Sequence[FamilySamples]) -> dict[str, PodLabels]:
    """The pod and container that each GPU or MIG instance belongs to, from gpu_owner_info.

    Of several that share a GPU, the first by name: a value that was repeated for each would be counted twice in a sum.
    """
    found: dict[str, PodLabels] = {}
    rows = next((each.rows for each in owners if each.family is metrics.OWNER_INFO), ())
    for labels, _ in rows:
        of = dict(zip(metrics.OWNER_INFO.labels, labels, strict=True))
        if of["owner_kind"] == KUBERNETES and of["owner_pod"]:
            pod = PodLabels(of["owner_namespace"], of["owner_pod"], of["owner_container"])
            found[of["uuid"]] = min(pod, found.get(of["uuid"], pod))
    return found


class CounterRates:
    """Rates per second of counters between two calls: other exporters have gauges where we have counters."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: dict[tuple[MetricFamily, str], tuple[float, float, float | None]] = {}

    def rates(self, family: MetricFamily, counters: ValuesByLabels) -> dict[str, float]:
        """By uuid over at least MIN_RATE_SECONDS; none for a counter that is new or was reset."""
        now = self._clock()
        found = {}
        for (uuid, *_), value in counters.items():
            at, old, rate = self._before.get((family, uuid), (now, value, None))
            if now - at >= MIN_RATE_SECONDS:
                rate = (value - old) / (now - at) if value >= old else None
                at, old = now, value
            self._before[family, uuid] = (at, old, rate)
            if rate is not None:
                found[uuid] = rate
        return found


MIN_RATE_SECONDS = 1.0
"""Scrapes that follow each other more closely get the same rate."""
