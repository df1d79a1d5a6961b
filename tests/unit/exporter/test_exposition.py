"""The exposition text, checked by Prometheus' parser and promtool."""

from __future__ import annotations

import math
import subprocess
import time

import pytest
from gpu_exporter import metrics
from gpu_exporter.config import ExporterSettings
from gpu_exporter.devices.base import Driver
from gpu_exporter.devices.simulated import SCENARIOS, SimulatedDriver, generate_history, parse_fleet
from gpu_exporter.exposition import format_value, render, render_history
from gpu_exporter.metrics import FamilySamples, MetricFamily
from gpu_exporter.wiring import build_sampler
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import require_binary

FLEET = ",".join(f"2xH100-80GB:{name}" for name in SCENARIOS) + ",1xRTX4090-24GB:training"

#: promtool complains about many of node_exporter's names.
INHERITED = "node_"


@pytest.fixture(scope="module")
def page() -> bytes:
    drivers: dict[str, Driver] = {"simulated": SimulatedDriver(parse_fleet(FLEET))}
    sampler = build_sampler(ExporterSettings(simulate=FLEET), drivers)
    sampler.start(5.0)
    time.sleep(0.1)
    found = sampler.page()
    sampler.stop()
    return found


@pytest.mark.servers
def test_promtool_accepts_the_page(page: bytes) -> None:
    done = subprocess.run(
        [require_binary("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).decode().splitlines() if not line.startswith(INHERITED)]
    assert complaints == []


def test_every_family_is_in_the_catalogue_with_its_labels(page: bytes) -> None:
    catalogue = (
        *metrics.DEVICE_FAMILIES, *metrics.VENDOR_FAMILIES, *metrics.OWNER_FAMILIES, *metrics.SELF_FAMILIES,
    )  # fmt: skip
    known = {family.name: family for family in catalogue}
    seen = set()
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            if sample.name.startswith("gpu_"):
                seen.add(sample.name)
                assert set(sample.labels) == set(known[sample.name].labels), sample
                assert math.isfinite(sample.value)
    assert {"gpu_info", "gpu_up", "gpu_down_info", "gpu_family_absent_info", "gpu_busy_seconds_total"} <= seen


def test_device_series_have_no_labels_but_uuid_and_those_of_their_rows() -> None:
    for family in metrics.DEVICE_FAMILIES:
        assert family.labels[0] == "uuid"
        if family is not metrics.INFO:
            assert not {"instance", "job", "pod", "namespace", "name", "index", "gpu"} & set(family.labels)
        assert family.name.endswith("_total") == (family.type == "counter"), family.name


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_labels_and_numbers_round_trip(first: str, second: str, value: float) -> None:
    family = MetricFamily("a", "gauge", "help with \\ and\nnewline", ("x", "y"))
    [read] = text_string_to_metric_families(render([FamilySamples(family, (((first, second), value),))]).decode())
    [sample] = read.samples
    assert sample.value == value
    # The Python parser splits lines at any Unicode line end, so only texts without them can be compared.
    if first.isprintable() and second.isprintable():
        assert sample.labels == {"x": first, "y": second}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_have_their_shortest_form(value: float) -> None:
    assert float(format_value(value)) == value
    assert len(format_value(value)) <= len(repr(value))


def test_history_is_openmetrics_and_marked_as_simulated() -> None:
    end = time.time()
    lines = list(render_history(generate_history("2xH100-80GB:training", 0, "n", end - 60, end, 15)))
    parsed = openmetrics("\n".join(lines) + "\n")
    families = {family.name: family for family in parsed}
    assert len(families["gpu_exporter_simulated_info"].samples) == 4
    busy = families["gpu_busy_seconds"].samples
    assert len(busy) == 8
    assert all(sample.timestamp is not None and float(sample.timestamp) % 15 == 0 for sample in busy)
