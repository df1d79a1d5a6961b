"""A collector for prometheus_client, for programs that already expose metrics of their own:

    from prometheus_client import REGISTRY, start_http_server
    from gpu_exporter.client_collector import GpuCollector

    REGISTRY.register(GpuCollector())
    start_http_server(8000)

prometheus_client is not a dependency of the exporter: it is imported when the registry calls the collector.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gpu_exporter import metrics
from gpu_exporter.config import ExporterSettings, SettingsError, validate
from gpu_exporter.devices.simulated import FleetError, parse_fleet
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.sampling.sampler import FIRST_READING_TIMEOUT_SECONDS, Sampler
from gpu_exporter.wiring import build_drivers, build_sampler

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
else:
    Collector = object  # prometheus_client only calls collect() and describe()


class GpuCollector(Collector):
    """The families of /metrics, with the same samples.

    The first `collect` starts the exporter's threads, in the process that serves the metrics: a web server may fork its
    workers after the registration. Later calls return the latest readings and never wait for a driver.
    """

    def __init__(self, settings: ExporterSettings | None = None) -> None:
        """Settings that concern the exporter's own HTTP server and log have no effect. Raises SettingsError."""
        settings = settings or ExporterSettings()
        # prometheus_client's own registry exposes process_* for the same process.
        self._settings = settings = replace(settings, disabled=settings.disabled | {"process"})
        validate(settings)
        try:
            fleet = parse_fleet(settings.simulate, settings.simulate_seed) if settings.simulate else ()
        except FleetError as error:
            raise SettingsError(f"simulate: {error}") from error
        self._drivers = build_drivers(settings, fleet)
        self._sampler: Sampler | None = None
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """The current families. The first call waits a few seconds at most for the first readings."""
        from prometheus_client.parser import text_string_to_metric_families

        return text_string_to_metric_families(self._started_sampler().page().decode())

    def describe(self) -> Iterable[Metric]:
        """The families of the catalogue, without samples: the registry checks their names for duplicates.

        Those of host collectors (node_*) and textfiles are not included: which there are depends on the host.
        """
        from prometheus_client.metrics_core import Metric

        for family in self._catalogue():
            name = family.name.removesuffix("_total") if family.type == "counter" else family.name
            yield Metric(name, family.help, family.type)

    def close(self) -> None:
        """Stop the threads and release the drivers. `collect` starts new ones."""
        with self._lock:
            sampler, self._sampler = self._sampler, None
        if sampler:
            sampler.release_drivers()
            sampler.stop()

    def _started_sampler(self) -> Sampler:
        with self._lock:
            if self._sampler is None:
                self._sampler = build_sampler(self._settings, self._drivers)
                self._sampler.start(FIRST_READING_TIMEOUT_SECONDS)
            return self._sampler

    def _catalogue(self) -> Iterator[MetricFamily]:
        yield from metrics.DEVICE_FAMILIES
        yield from metrics.VENDOR_FAMILIES
        yield from metrics.OWNER_FAMILIES
        yield from metrics.SELF_FAMILIES
        if self._settings.compat_dcgm:
            from gpu_exporter.compat.dcgm import DCGM_FAMILIES

            yield from DCGM_FAMILIES
        if self._settings.compat_nvidia_smi:
            from gpu_exporter.compat.nvidia_smi import NVIDIA_SMI_FAMILIES

            yield from NVIDIA_SMI_FAMILIES
