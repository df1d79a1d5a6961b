"""Hot paths beside the least work that they need: `make bench-hot-paths`

Each path and its baseline alternate in one run, and the ratio of their best times is what counts: other work on the
machine only ever adds. A missed goal means that a slow path was taken by mistake.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Goal, missed_goals, table, write

ROUNDS = 20
GPUS = 8
IMPORTED_SAMPLES = 20_000
PROCESSES = 2000


@dataclass(frozen=True)
class HotPath:
    """max_ratio: how many times as long as its baseline the path may take."""

    title: str
    run: Callable[[], object]
    baseline_title: str
    baseline: Callable[[], object]
    max_ratio: float


@dataclass(frozen=True)
class PathTiming:
    path: HotPath
    seconds: float
    baseline_seconds: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.baseline_seconds


def measure(path: HotPath, rounds: int) -> PathTiming:
    path.run()
    path.baseline()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_time(path.run))
        theirs.append(_time(path.baseline))
    return PathTiming(path, min(ours), min(theirs))


def _time(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@contextmanager
def hot_paths(folder: Path) -> Iterator[list[HotPath]]:
    """All paths, over simulated devices below the folder. Raises NoCompilerError."""
    with _nvidia_paths(folder / "nvml") as nvidia:
        yield [*nvidia, _amd_path(folder / "amd"), _intel_path(folder / "intel"), _import_path(folder / "import")]


@contextmanager
def _nvidia_paths(folder: Path) -> Iterator[list[HotPath]]:
    """The library is chosen when pynvml is first used: only this process may do so, and only once."""
    from tests.simulated_nvml.build import CONTROL_VARIABLE, build
    from tests.simulated_nvml.control import Control, SimulatedGpu

    ctypes.CDLL(str(build(folder)))
    os.environ[CONTROL_VARIABLE] = str(folder / "control")
    control = Control(folder / "control", gpus=[SimulatedGpu(level=80, memory_used=30_000) for _ in range(GPUS)])
    control.gpus[0] = SimulatedGpu(processes=PROCESSES, memory_used=80_000)
    control.write()
    import pynvml
    from gpu_exporter.devices.nvidia import NvidiaDriver

    now = [time.time()]
    driver = NvidiaDriver(None, clock=lambda: now[0], wall=lambda: now[0])

    def read_all() -> None:
        now[0] += 0.25  # GPUs are read, process lists are not due yet
        driver.read()

    def read_with_processes() -> None:
        now[0] += 60
        driver.read()

    driver.read()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(GPUS)]

    def call_each_gpu() -> None:
        for handle in handles:
            pynvml.nvmlDeviceGetUtilizationRates(handle)

    def list_processes() -> None:
        pynvml.nvmlDeviceGetComputeRunningProcesses(handles[0])

    yield [
        HotPath(f"read {GPUS} NVIDIA GPUs", read_all, "one pynvml call for each", call_each_gpu, 200),
        HotPath(f"read {PROCESSES} processes", read_with_processes, "pynvml's list of them", list_processes, 0.5),
    ]
    driver.close()


def _read_files(folder: Path) -> Callable[[], None]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]

    def read() -> None:
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, 4096)
            os.close(descriptor)

    return read


def _amd_path(folder: Path) -> HotPath:
    from tests.unit.devices.fake_sysfs import FakeSysfs
    from tests.unit.devices.test_amd import driver, mi300x

    tree = FakeSysfs(folder)
    for number in range(GPUS):
        mi300x(tree, number)
    amd = driver(tree)
    return HotPath(f"read {GPUS} AMD GPUs", amd.read, "open and read their files", _read_files(tree.sysfs), 3)


def _intel_path(folder: Path) -> HotPath:
    from tests.unit.devices.fake_sysfs import FakeSysfs
    from tests.unit.devices.test_intel import FakePerfCounters, b580, driver

    tree = FakeSysfs(folder)
    counts: dict[int, int] = {}
    for number in range(GPUS):
        counts |= b580(tree, number)[1].counts
    intel = driver(tree, FakePerfCounters(tree, counts))
    return HotPath(f"read {GPUS} Intel GPUs", intel.read, "open and read their files", _read_files(tree.sysfs), 3)


def _import_path(folder: Path) -> HotPath:
    from gpu_advisor.sources.embedded.history import History
    from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    folder.mkdir()
    start = 1_700_000_000
    lines = [
        f'x{{uuid="GPU-{gpu}"}} {step} {start + step}\n' for gpu in range(20) for step in range(IMPORTED_SAMPLES // 20)
    ]
    text = "# TYPE x gauge\n" + "".join(lines) + "# EOF\n"
    number = iter(range(1_000_000))

    def run() -> None:
        path = folder / f"{next(number)}.db"
        history = History(path)
        if import_openmetrics(history, lines, "n:1") != IMPORTED_SAMPLES:
            raise RuntimeError("samples are missing")
        history.close()
        path.unlink()

    def parse() -> None:
        for _ in text_string_to_metric_families(text):
            pass

    return HotPath(f"import {IMPORTED_SAMPLES} samples", run, "prometheus_client's parser alone", parse, 0.5)


def goals(timings: list[PathTiming]) -> list[Goal]:
    return [
        Goal(
            f"{timing.path.title}: at most {timing.path.max_ratio:g}x of: {timing.path.baseline_title}",
            timing.ratio <= timing.path.max_ratio,
            f"{timing.ratio:.2f}x",
        )
        for timing in timings
    ]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, hot_paths(Path(folder)) as paths:
        timings = [measure(path, ROUNDS) for path in paths]
    rows = [("path", "ms", "baseline ms", "ratio")]
    for timing in timings:
        cells = (f"{timing.seconds * 1e3:.3f}", f"{timing.baseline_seconds * 1e3:.3f}", f"{timing.ratio:.2f}")
        rows.append((timing.path.title, *cells))
    print(table(rows))
    reached = goals(timings)
    print(*reached, sep="\n")
    figures = {
        timing.path.title: {
            "seconds": timing.seconds,
            "baseline_seconds": timing.baseline_seconds,
            "ratio": timing.ratio,
        }
        for timing in timings
    }
    print(f"written to {write('hot_paths', {'paths': figures})}")
    return 1 if missed_goals(reached) else 0


if __name__ == "__main__":
    sys.exit(main())
