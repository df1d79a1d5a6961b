"""The simulated NVML: loaded once per process, with a control file for each test."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_exporter.devices.base import DriverSettings
from gpu_exporter.devices.nvidia import NvidiaDriver
from gpu_exporter.devices.nvidia_xid import XidListener

from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build
from tests.simulated_nvml.control import Control, SimulatedGpu


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library, mapped: from now on libnvidia-ml.so.1 is this one, with or without a real driver."""
    try:
        library = build(tmp_path_factory.mktemp("nvml"))
    except NoCompilerError as error:
        pytest.skip(str(error))
    ctypes.CDLL(str(library))
    return library


class SimulatedMachine:
    """A simulated machine and its NvidiaDriver with a common fake clock: no test waits for real time."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.time = 1_700_000_000.0
        self.state_file: Path | None = None
        self.xid_file: Path | None = None
        self.paths = DriverSettings(control.path.parent / "sys", control.path.parent / "proc")
        (self.paths.procfs / "sys/kernel").mkdir(parents=True)
        (self.paths.procfs / "sys/kernel/hostname").write_text("node-1\n")
        self.set_host_memory(total_kib=128 * 1024**2, available_kib=96 * 1024**2)
        self.restart()

    def restart(self) -> None:
        """Restart the exporter on the same machine. Its event thread polls often, so that closing is fast."""
        xids = XidListener(poll_seconds=0.01, retry_seconds=0.01, wall=lambda: self.time, state_file=self.xid_file)
        self.driver = NvidiaDriver(
            self.state_file, clock=lambda: self.time, wall=lambda: self.time, xids=xids, settings=self.paths
        )

    def set_host_memory(self, total_kib: int, available_kib: int) -> None:
        """What /proc/meminfo has."""
        lines = f"MemTotal: {total_kib} kB\nMemFree: 1024 kB\nMemAvailable: {available_kib} kB\n"
        (self.paths.procfs / "meminfo").write_text(lines)

    @property
    def gpus(self) -> list[SimulatedGpu]:
        return self.control.gpus

    def write(self) -> None:
        self.control.now = self.time
        self.control.write()

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.write()


@pytest.fixture
def machine(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedMachine]:
    """A machine without GPUs: set `machine.gpus` and call `machine.write()`."""
    control = Control(tmp_path / "control")
    monkeypatch.setenv(CONTROL_VARIABLE, str(control.path))
    machine = SimulatedMachine(control)
    yield machine
    machine.driver.close()
