"""The metrics catalogue and docs/metrics.md: the page is current, and names follow Prometheus conventions."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices.simulated import parse_fleet
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import device_samples
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"


def _builder() -> ModuleType:
    sys.path.append(str(ROOT / "docs"))
    return importlib.import_module("build_metrics")


BUILDER = _builder()
GROUPS: dict[str, list[MetricFamily]] = BUILDER.groups()
ALL = [family for families in GROUPS.values() for family in families]
OURS = [family for family in ALL if not family.name.startswith(("node_", "process_", "DCGM_FI_", "nvidia_smi_"))]
by_name = pytest.mark.parametrize("family", OURS, ids=[family.name for family in OURS])


def test_page_is_current() -> None:
    assert BUILDER.PAGE.read_text(encoding="utf-8").splitlines() == BUILDER.text().splitlines(), BUILDER.COMMAND
    assert BUILDER.main(["--check"]) == 0


def test_stale_page_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "metrics.md"
    monkeypatch.setattr(BUILDER, "PAGE", page)
    assert BUILDER.main(["--check"]) == 1
    assert BUILDER.main([]) == 0
    assert BUILDER.main(["--check"]) == 0
    page.write_text(page.read_text() + "\n")
    assert BUILDER.main(["--check"]) == 1
    assert BUILDER.COMMAND in capsys.readouterr().err


def test_each_family_is_listed_once_and_no_group_is_empty() -> None:
    names = [family.name for family in ALL]
    assert sorted(set(names)) == sorted(names)
    assert all(GROUPS.values()), [title for title, families in GROUPS.items() if not families]


def test_every_declared_family_is_listed() -> None:
    declared = {value.name for value in vars(metrics).values() if isinstance(value, MetricFamily)}
    assert declared <= {family.name for family in ALL}


def test_exposed_families_are_documented() -> None:
    """Also families created at run time, which are no constant of a module."""
    documented = {family.name: family for family in ALL}
    served = [s.family for s in device_samples((gpu.read(1.8e9) for gpu in parse_fleet("1xT4-16GB")), "n")]
    for name, make in COLLECTORS.items():
        try:
            served += [samples.family for samples in make(HostSettings()).collect()]
        except (OSError, ValueError):
            assert name == "pressure", f"{name} reads what every kernel has"
    for family in served:
        if not family.name.startswith(("node_memory_", "node_hwmon_")):
            assert documented.get(family.name) == family


@pytest.mark.parametrize("family", ALL, ids=[family.name for family in ALL])
def test_each_family_has_a_description(family: MetricFamily) -> None:
    page = BUILDER.PAGE.read_text(encoding="utf-8")
    assert f"| `{family.name}` | {family.type} |" in page
    assert family.help.endswith(".")
    assert len(family.help) > 10
    assert len(set(family.labels)) == len(family.labels)


#: Quantity -> the unit in which names must end.
UNITS = {
    r"temperature": "celsius",
    r"clock": "hertz",
    r"power": "watts",
    r"energy": "joules",
    r"utilization|activity|occupancy|bandwidth|speed": "ratio",
    r"memory_(total|used|reserved)": "bytes",
    r"transmit|receive": "bytes",
    r"busy|observed|held|throttle_seconds|duration|timestamp": "seconds",
}
NOT_BASE = (
    "percent", "percentage", "pct", "ms", "us", "ns", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours",
    "kb", "mb", "gb", "kib", "mib", "gib", "kilobytes", "megabytes", "gigabytes", "mhz", "ghz", "megahertz", "mw",
    "milliwatts", "mj", "millijoules", "kelvin", "fahrenheit", "c", "w", "j",
)  # fmt: skip


@by_name
def test_names_end_in_a_base_unit(family: MetricFamily) -> None:
    words = family.name.lower().split("_")
    assert not set(words) & set(NOT_BASE), "not a base unit"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
    assert family.name.startswith("gpu_")
    stem = family.name.removesuffix("_total")
    for what, unit in UNITS.items():
        if re.search(what, stem) and not family.name.endswith("_info"):
            assert stem.endswith(f"_{unit}"), f"{what} is measured in {unit}"
            break


@by_name
def test_only_counters_end_in_total(family: MetricFamily) -> None:
    assert family.name.endswith("_total") == (family.type == "counter")
    for suffix in ("_count", "_sum", "_bucket"):
        assert not family.name.endswith(suffix), "the suffix of a histogram's series"


@by_name
def test_no_label_is_reserved_by_prometheus(family: MetricFamily) -> None:
    assert not set(family.labels) & {"job", "instance", "pod", "namespace", "container", "le", "quantile"}
    assert not [label for label in family.labels if label.startswith("__")]


#: Plausible values on any machine. Percent, MiB and MHz would be outside.
PLAUSIBLE = {
    "ratio": (0, 1.0),
    "celsius": (1, 130),
    "watts": (1, 2000),
    "hertz": (50e6, 20e9),
    "bytes": (0, 1e13),
}


def test_golden_values_are_plausible_in_the_unit_of_the_name() -> None:
    seen = set()
    for path in GOLDEN.glob("*.txt"):
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            unit = family.name.removesuffix("_total").rpartition("_")[2]
            low, high = PLAUSIBLE.get(unit, (float("-inf"), float("inf")))
            if family.type == "counter":  # months of traffic
                high = float("inf")
            for sample in family.samples:
                assert low <= sample.value <= high, f"{path.name}: {sample}"
            seen.add(unit)
            if family.name.endswith("memory_total_bytes"):
                assert all(sample.value > 1e9 for sample in family.samples)
    assert set(PLAUSIBLE) <= seen
