"""The simulated NVML, loaded once into this process, and a control file for each test."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_exporter.devices.nvidia import NvidiaDriver
from gpu_exporter.devices.nvidia_xid import XidListener

from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build
from tests.simulated_nvml.control import Control, SimulatedGpu


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library, mapped: whoever asks for libnvidia-ml.so.1 now gets this one, real driver or not."""
    try:
        library = build(tmp_path_factory.mktemp("nvml"))
    except NoCompilerError as error:
        pytest.skip(str(error))
    ctypes.CDLL(str(library))
    return library


class SimulatedMachine:
    """A simulated machine, its NvidiaDriver, and one clock for both: nothing here waits for real time to pass."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.time = 1_700_000_000.0
        self.state_file: Path | None = None
        self.restart()

    def restart(self) -> None:
        """Another exporter on the same machine. Its thread for events stops quickly: tests close a lot."""
        xids = XidListener(poll_seconds=0.01, retry_seconds=0.01, wall=lambda: self.time)
        self.driver = NvidiaDriver(self.state_file, clock=lambda: self.time, wall=lambda: self.time, xids=xids)

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
    """A machine without GPUs yet: set `machine.gpus`, then call `machine.write()`."""
    control = Control(tmp_path / "control")
    monkeypatch.setenv(CONTROL_VARIABLE, str(control.path))
    machine = SimulatedMachine(control)
    yield machine
    machine.driver.close()
