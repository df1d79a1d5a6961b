"""GpuCollector in a prometheus_client registry exposes what /metrics exposes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_exporter import metrics
from gpu_exporter.client_collector import GpuCollector
from gpu_exporter.config import ExporterSettings, SettingsError
from gpu_exporter.devices.simulated import SimulatedDriver, parse_fleet
from gpu_exporter.wiring import build_sampler
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

FLEET = "1xH100-80GB:failing,2xT4-16GB:throttled,1xA100-80GB:lost"
SETTINGS = ExporterSettings(simulate=FLEET, compat_dcgm=True, node_name="node-1", disabled=frozenset({"host"}))
AT = 1.8e9

#: Differ between two runs, whatever is read.
HEALTH = {metrics.COLLECTOR_DURATION.name, metrics.COLLECTOR_LAST_SUCCESS.name}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def frozen_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """All simulated drivers read at the same time."""
    monkeypatch.setattr(
        "gpu_exporter.wiring.SimulatedDriver", lambda fleet: SimulatedDriver(fleet, clock=lambda: AT), raising=True
    )


@pytest.fixture
def collector() -> Iterator[GpuCollector]:
    collector = GpuCollector(SETTINGS)
    yield collector
    collector.close()


def exporter_page(settings: ExporterSettings) -> str:
    """What /metrics serves with these settings, but for process_*, which the registry has itself."""
    settings = replace(settings, disabled=settings.disabled | {"process"})
    driver = SimulatedDriver(parse_fleet(settings.simulate, settings.simulate_seed), clock=lambda: AT)
    sampler = build_sampler(settings, {"simulated": driver})
    sampler.start(10)
    try:
        return sampler.page().decode()
    finally:
        sampler.stop()


def families(text: str) -> dict[str, tuple[str, str, Series]]:
    """Type, HELP and series of each family."""
    return {
        family.name: (
            family.type,
            family.documentation,
            {(sample.name, frozenset(sample.labels.items())): sample.value for sample in family.samples},
        )
        for family in text_string_to_metric_families(text)
        if family.name not in HEALTH
    }


def test_registry_exposes_what_the_exporter_exposes(collector: GpuCollector) -> None:
    registry = CollectorRegistry()
    registry.register(collector)
    got, expected = families(generate_latest(registry).decode()), families(exporter_page(SETTINGS))
    assert got == expected
    assert {"gpu_up", "gpu_busy_seconds", "gpu_xid_errors", "DCGM_FI_DEV_GPU_UTIL", "gpu_exporter_build_info"} <= set(
        got
    )
    assert sorted(got["gpu_up"][2].values()) == [0, 1, 1, 1]


def test_textfiles_and_host_families_are_exposed_too(tmp_path: Path) -> None:
    (tmp_path / "job.prom").write_text("# TYPE training_steps_total counter\ntraining_steps_total 7\n")
    collector = GpuCollector(replace(SETTINGS, textfile_directory=str(tmp_path), disabled=frozenset()))
    try:
        found = {family.name: family for family in collector.collect()}
    finally:
        collector.close()
    assert [sample.value for sample in found["training_steps"].samples] == [7]
    assert found["node_load1"].samples


def test_every_gpu_family_is_described(collector: GpuCollector) -> None:
    described = {(family.name, family.type, family.documentation) for family in collector.describe()}
    assert {(family.name, family.type, family.documentation) for family in collector.collect()} <= described


def test_a_family_that_is_already_registered_is_refused(collector: GpuCollector) -> None:
    registry = CollectorRegistry()
    Gauge("gpu_up", "Ours.", registry=registry)
    with pytest.raises(ValueError, match="gpu_up"):
        registry.register(collector)


def test_registration_starts_no_thread(collector: GpuCollector) -> None:
    before = threading.active_count()
    CollectorRegistry().register(collector)
    assert threading.active_count() == before


def test_collect_starts_again_after_close(collector: GpuCollector) -> None:
    for _ in range(2):
        assert "gpu_up" in {family.name for family in collector.collect()}
        collector.close()
    collector.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExporterSettings(sampling_interval="1"), "--sampling.interval: '1' is not a duration"),
        (ExporterSettings(simulate="2xB7"), "simulate: unknown simulated model 'B7'"),
    ],
)
def test_invalid_settings(settings: ExporterSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        GpuCollector(settings)


def test_importing_it_needs_no_prometheus_client() -> None:
    code = "import sys, gpu_exporter.client_collector; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
