"""Generations of drivers x situations, each with the page that the exporter serves, on the real pynvml.

The pages are in driver_pages, by GPU: the healthy one in full, the others as what differs from it.
After an intended change, update them and review the diff:

    python -m pytest tests/unit/devices/test_driver_matrix.py --update-golden
"""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pynvml
import pytest
from gpu_exporter import metrics
from gpu_exporter.devices import nvidia_xid
from gpu_exporter.devices.base import DriverSettings
from gpu_exporter.devices.nvidia import NvidiaDriver
from gpu_exporter.devices.nvidia_drivers import BRANCHES, MINIMUM_VERSION, parse_version
from gpu_exporter.devices.nvidia_gpm import RATIO_METRICS
from gpu_exporter.devices.nvidia_gpu import PROCESS_INTERVAL_SECONDS
from gpu_exporter.devices.nvidia_xid import XidListener
from gpu_exporter.exposition import render
from gpu_exporter.snapshot import AbsenceReason, DeviceReading, device_samples
from prometheus_client.parser import text_string_to_metric_families

from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build, compile_source
from tests.simulated_nvml.control import NOT_SUPPORTED, Control
from tests.simulated_nvml.device_values import absent, values
from tests.unit.devices.driver_matrix import GENERATIONS, MIB, PIDS, SITUATIONS, VERSIONS, Generation

PAGES = Path(__file__).with_name("driver_pages")
CELLS = [(generation, situation) for generation in GENERATIONS for situation in SITUATIONS]
START = 1_700_000_000.0

Read = Callable[[str, str], tuple[DeviceReading, ...]]


class _NoXids(XidListener):
    """Events come from another thread, at no certain time."""

    def start(self) -> None:
        """Listen to nothing."""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Reads a cell three times, and returns the last readings. Each generation has a library of its own."""
    folder = tmp_path_factory.mktemp("drivers")
    for name, content in (
        ("proc/sys/kernel/hostname", "node-1\n"),
        ("proc/meminfo", "MemTotal: 131072000 kB\nMemFree: 1024 kB\nMemAvailable: 98304000 kB\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    try:
        compiled = compile_source(folder)
    except NoCompilerError as error:
        pytest.skip(str(error))

    @cache
    def library(generation: str) -> Path:
        return build(folder / generation, GENERATIONS[generation].branch.missing, compiled)

    with pytest.MonkeyPatch.context() as patch:

        @cache
        def read_cell(generation: str, situation: str) -> tuple[DeviceReading, ...]:
            path = str(library(generation))
            patch.setattr(pynvml, "CDLL", lambda _: ctypes.CDLL(path))
            patch.setattr(nvidia_xid, "CDLL", lambda _: ctypes.CDLL(path))
            control = _control(folder / f"{generation} {situation}", GENERATIONS[generation], situation)
            patch.setenv(CONTROL_VARIABLE, str(control.path))
            settings = DriverSettings(folder / "sys", folder / "proc")
            driver = NvidiaDriver(
                clock=lambda: control.now or 0, wall=lambda: control.now or 0, xids=_NoXids(), settings=settings
            )
            for seconds in (0.0, 1.0, PROCESS_INTERVAL_SECONDS):
                control.now = (control.now or START) + seconds
                control.write()
                devices = driver.read()
            driver.close()
            return devices

        yield read_cell


def _control(path: Path, generation: Generation, situation: str) -> Control:
    gpus = SITUATIONS[situation].gpus()
    for gpu in gpus:
        gpu.errors = {**generation.refused, **gpu.errors}
        gpu.name = generation.gpu_name
    return Control(path, gpus, driver=generation.version, branch=generation.branch)


def pages_of_gpus(devices: tuple[DeviceReading, ...]) -> list[list[str]]:
    """The lines of the page by GPU: its labels first, then what it has, and what it has not."""
    found: dict[str, list[str]] = {}
    for family in text_string_to_metric_families(render(device_samples(devices, "node-1")).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            lines = found.setdefault(labels.pop("uuid"), [])
            if sample.name == "gpu_family_absent_info":
                lines.append(f"absent: {labels['family']} {labels['reason']}")
            elif sample.name == "gpu_info":
                lines.append(" ".join(f"{name}={value}" for name, value in sample.labels.items() if value))
            else:
                lines.append(" ".join((sample.name, *labels.values(), f"{sample.value:.9g}")))
    return list(found.values())


def changes(before: list[str], after: list[str]) -> list[str]:
    """What differs, or all if that is shorter."""
    lines = [line for line in list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:] if line[:2] != "@@"]
    return lines if len(lines) < len(after) else after


# ---- the pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
def test_pages_are_as_recorded(read: Read, generation: str, request: pytest.FixtureRequest) -> None:
    path = PAGES / f"{generation}.txt"
    [healthy] = pages_of_gpus(read(generation, "healthy"))
    text = [f"# {generation}, driver {GENERATIONS[generation].version}: healthy", *healthy]
    for situation in list(SITUATIONS)[1:]:
        for number, gpu in enumerate(pages_of_gpus(read(generation, situation))):
            text += ["", f"# {situation}, GPU {number}", *changes(healthy, gpu)]
    if request.config.getoption("--update-golden"):
        PAGES.mkdir(exist_ok=True)
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
    assert path.exists(), f"{path} is missing: run with --update-golden"
    assert text == path.read_text(encoding="utf-8").splitlines(), "if meant: --update-golden"


# ---- what must hold in each cell, whatever is recorded -----------------------------------------------------------


@pytest.mark.parametrize(("generation", "situation"), CELLS)
def test_each_cell(read: Read, generation: str, situation: str) -> None:
    devices = read(generation, situation)
    rows: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(render(device_samples(devices, "node-1")).decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in rows, f"twice: {sample}"
            assert 0 <= sample.value < float("inf"), sample
            rows[key] = sample.value
    up = {dict(labels)["uuid"]: value for (name, labels), value in rows.items() if name == "gpu_up"}
    expected = SITUATIONS[situation]
    assert up == (expected.tegra_up if generation == "tegra" and expected.tegra_up else expected.up)
    for device in devices:
        present = {reading.family for reading in device.readings}
        assert not present & {absence.family for absence in device.absences}
        for absence in device.absences:
            assert isinstance(absence.reason, AbsenceReason)


def _refuses(generation: str, function: str) -> bool:
    return GENERATIONS[generation].refused.get(function) == NOT_SUPPORTED


@pytest.mark.parametrize("generation", GENERATIONS)
def test_processes_and_memory_of_each_generation(read: Read, generation: str) -> None:
    (device,) = read(generation, "healthy")
    if generation == "tegra":
        assert absent(device)["gpu_processes"] == "unsupported"
        assert (device.identity.unified, device.identity.pci_bus_id) == ("true", "")
        assert values(device)["gpu_memory_total_bytes"] == 131072000 * 1024
        assert values(device)["gpu_memory_used_bytes"] == (131072000 - 98304000) * 1024
        return
    assert [process.pid for process in device.processes] == list(PIDS)
    assert {process.used_bytes for process in device.processes} == {1000 * MIB}
    has_reserved = generation != "470"
    assert values(device)["gpu_memory_used_bytes"] == (40_000 if has_reserved else 40_479) * MIB
    assert ("gpu_memory_reserved_bytes" in values(device)) is has_reserved


@pytest.mark.parametrize("generation", [name for name in GENERATIONS if name not in ("tegra",)])
def test_compute_instances_are_counted_once(read: Read, generation: str) -> None:
    parent, first, second, other = read(generation, "MIG")
    assert [device.identity.gpu_instance_id for device in (parent, first, second, other)] == ["", "2", "2", "9"]
    assert [device.identity.mig_profile for device in (first, second, other)] == ["1c.3g.40gb", "2c.3g.40gb", "1g.10gb"]
    used = [values(device).get("gpu_memory_used_bytes") for device in (first, second, other)]
    assert used == [600 * MIB, None, 300 * MIB]
    assert absent(second)["gpu_memory_used_bytes"] == "shared"
    assert [[process.pid for process in device.processes] for device in (first, second, other)] == [[301], [302], [303]]
    has_gpm = parse_version(GENERATIONS[generation].version) >= (520,) and not _refuses(
        generation, "nvmlGpmQueryDeviceSupport"
    )
    assert values(first).get("gpu_sm_activity_ratio") == (0.75 if has_gpm else None)
    assert absent(second)["gpu_sm_activity_ratio"] == "shared"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_activity_of_each_generation(read: Read, generation: str) -> None:
    (device,) = read(generation, "healthy")
    old = parse_version(GENERATIONS[generation].version) < (520,)
    for family, _ in RATIO_METRICS:
        if old or _refuses(generation, "nvmlGpmQueryDeviceSupport"):
            assert absent(device)[family.name] == "unsupported"
        else:
            assert family.name in values(device)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_throttle_reasons_of_each_generation(read: Read, generation: str) -> None:
    """The call has another name since 535."""
    (device,) = read(generation, "healthy")
    reported = any(reading.family is metrics.THROTTLE_ACTIVE for reading in device.readings)
    assert reported is not _refuses(generation, "nvmlDeviceGetCurrentClocksThrottleReasons")


def test_each_branch_is_in_the_matrix_with_a_version_of_its_own() -> None:
    assert len(CELLS) >= 60
    assert set(VERSIONS) == {branch.name for branch in BRANCHES}
    assert BRANCHES[0].since == MINIMUM_VERSION
    assert [branch.since for branch in BRANCHES] == sorted(branch.since for branch in BRANCHES)
    for name, generation in GENERATIONS.items():
        assert generation.branch.name == name or name not in VERSIONS
    assert {path.stem for path in PAGES.iterdir()} == set(GENERATIONS)
