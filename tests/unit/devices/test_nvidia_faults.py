"""NVML faults, end to end: the page is served at once, parses, and has no wrong value."""

from __future__ import annotations

import threading
import time

import pytest
from gpu_exporter.devices import nvidia_calls
from gpu_exporter.devices.nvidia_gpu import PROCESS_INTERVAL_SECONDS
from gpu_exporter.sampling.drivers import DeviceCache, DriverTask
from gpu_exporter.sampling.sampler import Sampler
from prometheus_client.parser import text_string_to_metric_families

from tests.simulated_nvml.control import (
    ALL_ONES_32,
    ALL_ONES_64,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    SimulatedGpu,
    SimulatedMigInstance,
)
from tests.unit.devices.conftest import SimulatedMachine

NAN_BITS = 0x7FF8000000000000
LIMIT_SECONDS = 0.1

Rows = dict[str, dict[tuple[tuple[str, str], ...], float]]


class ExporterHarness:
    """The driver with the sampler, one collection at a time, and the parsed page."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self.machine = machine
        board = DeviceCache("node")
        self.task = DriverTask("nvidia", machine.driver, board, 1.0, LIMIT_SECONDS)
        self.sampler = Sampler(board, [self.task], [])

    def collect(self, seconds: float = 1.0) -> Rows:
        self.machine.wait(seconds)
        self.task.collect_once()
        return self.page()

    def page(self) -> Rows:
        page = self.sampler.page()
        rows: Rows = {}
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                assert sample.value == sample.value, f"{sample.name} is NaN"
                assert sample.value >= 0, sample
                key = tuple(sorted(sample.labels.items()))
                assert key not in rows.setdefault(sample.name, {}), f"twice: {sample}"
                rows[sample.name][key] = sample.value
        return rows


@pytest.fixture
def exporter(machine: SimulatedMachine) -> ExporterHarness:
    machine.control.gpus = [SimulatedGpu(level=60, processes=1, memory_used=1000) for _ in range(2)]
    return ExporterHarness(machine)


def one(rows: Rows, name: str) -> float:
    (value,) = rows[name].values()
    return value


def reasons(rows: Rows) -> list[str]:
    return sorted(dict(labels)["reason"] for labels in rows.get("gpu_down_info", {}))


def state(rows: Rows) -> str:
    ((labels, _),) = rows["gpu_exporter_driver_info"].items()
    return dict(labels)["state"]


def up_values(rows: Rows) -> list[float]:
    return list(rows.get("gpu_up", {}).values())


def absent_reasons(rows: Rows, family: str) -> set[str]:
    return {dict(k)["reason"] for k in rows.get("gpu_family_absent_info", {}) if dict(k)["family"] == family}


VALUES = ("gpu_utilization_ratio", "gpu_memory_used_bytes", "gpu_power_watts", "gpu_temperature_celsius")


def test_no_driver(exporter: ExporterHarness) -> None:
    exporter.machine.control.loaded = False
    rows = exporter.collect()
    assert (state(rows), up_values(rows)) == ("failed", [])


def test_no_permission(exporter: ExporterHarness) -> None:
    exporter.machine.control.errors = {"nvmlInitWithFlags": NO_PERMISSION}
    rows = exporter.collect()
    assert (state(rows), up_values(rows)) == ("no_permission", [])


@pytest.mark.parametrize("lost", [1, 2])
def test_lost(exporter: ExporterHarness, lost: int) -> None:
    exporter.collect()
    for gpu in exporter.machine.gpus[:lost]:
        gpu.lost = True
    rows = exporter.collect()
    assert up_values(rows) == [0.0] * lost + [1.0] * (2 - lost)
    assert reasons(rows) == ["lost"] * lost
    assert len(rows["gpu_info"]) == 2
    for family in VALUES:
        assert len(rows.get(family, {})) == 2 - lost


def test_driver_reloaded(exporter: ExporterHarness) -> None:
    before = exporter.collect()
    exporter.machine.control.loaded = False
    rows = exporter.collect()
    assert (up_values(rows), reasons(rows)) == ([0, 0], ["driver_gone"] * 2)
    assert not set(VALUES) & set(rows)
    exporter.machine.control.loaded, exporter.machine.control.loads = True, 2
    rows = exporter.collect()
    assert (up_values(rows), set(rows["gpu_up"])) == ([1, 1], set(before["gpu_up"]))


def test_one_call_hanging(exporter: ExporterHarness) -> None:
    exporter.collect()
    exporter.machine.gpus[0].hang = {"nvmlDeviceGetPowerUsage": 0.8}
    exporter.machine.write()
    thread = threading.Thread(target=exporter.task.collect_once, daemon=True)
    thread.start()
    time.sleep(2 * LIMIT_SECONDS)
    rows = exporter.page()
    assert (state(rows), up_values(rows), reasons(rows)) == ("hung", [0, 0], ["hung"] * 2)
    assert not set(VALUES) & set(rows)
    thread.join(60)
    exporter.machine.gpus[0].hang = {}
    rows = exporter.collect()
    assert (state(rows), up_values(rows)) == ("ok", [1, 1])


def test_everything_unsupported_but_memory(exporter: ExporterHarness) -> None:
    table = (*nvidia_calls.LIVE_METRICS, *nvidia_calls.SLOW_METRICS, *nvidia_calls.STATIC_METRICS)
    functions = {function for line in table for function in line.call.functions} | {
        "nvmlDeviceGetFieldValues", "nvmlDeviceGetSamples", "nvmlGpmSampleGet", "nvmlDeviceRegisterEvents",
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetMigMode",
    }  # fmt: skip
    errors = dict.fromkeys(functions - {"nvmlDeviceGetMemoryInfo_v2"}, NOT_SUPPORTED)
    exporter.machine.control.gpus = [SimulatedGpu(errors=errors, memory_used=5)]
    rows = exporter.collect()
    assert up_values(rows) == [1]
    assert one(rows, "gpu_memory_used_bytes") == 5 * 2**20
    for family in (
        "gpu_utilization_ratio",
        "gpu_busy_seconds_total",
        "gpu_throttle_seconds_total",
        "gpu_sm_activity_ratio",
    ):
        assert absent_reasons(rows, family) == {"unsupported"}
        assert family not in rows


def test_invalid_values(exporter: ExporterHarness) -> None:
    garbage = {
        "nvmlDeviceGetUtilizationRates": 101, "nvmlDeviceGetSamples": ALL_ONES_32,
        "nvmlDeviceGetTemperature": ALL_ONES_32 - 5, "nvmlDeviceGetPowerUsage": ALL_ONES_32,
        "nvmlDeviceGetTotalEnergyConsumption": ALL_ONES_64, "nvmlDeviceGetClockInfo": ALL_ONES_32,
        "nvmlDeviceGetRemappedRows": ALL_ONES_32, "field74": ALL_ONES_64, "field82": ALL_ONES_32,
        "field197": ALL_ONES_64, "gpm2": NAN_BITS, "gpm5": NAN_BITS | 1 << 63,
    }  # fmt: skip
    exporter.machine.control.gpus = [SimulatedGpu(raw=garbage)]
    exporter.collect()
    rows = exporter.collect()
    assert up_values(rows) == [1]
    for family in (
        "gpu_utilization_ratio", "gpu_temperature_celsius", "gpu_power_watts", "gpu_energy_joules_total",
        "gpu_sm_clock_hertz", "gpu_remapped_rows", "gpu_throttle_seconds_total", "gpu_memory_temperature_celsius",
        "gpu_pcie_transmit_bytes_total", "gpu_sm_activity_ratio", "gpu_tensor_activity_ratio",
    ):  # fmt: skip
        assert absent_reasons(rows, family) == {"error"}
        assert family not in rows
    assert one(rows, "gpu_observed_seconds_total") == 0
    assert "gpu_pcie_receive_bytes_total" in rows


@pytest.mark.parametrize("count", [0, 1, 8, 64])
def test_any_number(exporter: ExporterHarness, count: int) -> None:
    exporter.machine.control.gpus = [SimulatedGpu(level=count) for _ in range(count)]
    rows = exporter.collect()
    assert (state(rows), up_values(rows)) == ("ok", [1] * count)
    assert len(rows.get("gpu_memory_used_bytes", {})) == count


def test_gpus_added_while_running(exporter: ExporterHarness) -> None:
    for count in (1, 4, 2):
        exporter.machine.control.gpus = [SimulatedGpu() for _ in range(count)]
        rows = exporter.collect()
        assert sum(up_values(rows)) == count
    assert reasons(rows) == ["lost", "lost"]


def test_mig_enabled_changed_and_disabled(exporter: ExporterHarness) -> None:
    steps: list[tuple[SimulatedGpu, int]] = [
        (SimulatedGpu(level=40), 0),
        (SimulatedGpu(mig=True, instances=[SimulatedMigInstance("3g.40gb"), SimulatedMigInstance("3g.40gb")]), 2),
        (SimulatedGpu(mig=True, instances=[SimulatedMigInstance("1g.10gb", uuid=f"MIG-{i}") for i in range(7)]), 7),
        (SimulatedGpu(level=40), 0),
    ]
    for gpu, instances in steps:
        exporter.machine.control.gpus = [gpu]
        rows = exporter.collect(10)
        children = [labels for labels in rows["gpu_info"] if dict(labels)["parent_uuid"]]
        assert (len(children), len(rows["gpu_info"]), sum(up_values(rows))) == (instances, instances + 1, instances + 1)
        assert ("gpu_utilization_ratio" in rows) is (instances == 0)


def test_two_thousand_processes(exporter: ExporterHarness) -> None:
    exporter.machine.control.gpus = [SimulatedGpu(processes=2000, memory_used=70000)]
    assert one(exporter.collect(), "gpu_processes") == 2000


def test_pid_used_again(exporter: ExporterHarness) -> None:
    """Nothing of the earlier process remains."""
    exporter.machine.control.gpus = [SimulatedGpu(pids=[77], memory_used=900), SimulatedGpu()]
    exporter.collect()
    exporter.machine.control.gpus = [SimulatedGpu(), SimulatedGpu(pids=[77], memory_used=10)]
    rows = exporter.collect(PROCESS_INTERVAL_SECONDS)
    assert list(rows["gpu_processes"].values()) == [0, 1]
    assert [device.processes for device in exporter.machine.driver.read()] == [(), ((77, 10 * 2**20),)]


def test_released_and_opened_again(exporter: ExporterHarness) -> None:
    exporter.collect()
    exporter.machine.driver.close()
    rows = exporter.collect()
    assert up_values(rows) == [1, 1]


def test_random_errors_never_break_the_page(exporter: ExporterHarness) -> None:
    functions = [
        "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlSystemGetDriverVersion", "nvmlDeviceGetUUID",
        "nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMigMode", "nvmlGpmSampleGet", "nvmlGpmMetricsGet",
        "nvmlDeviceGetFieldValues", "nvmlDeviceGetSamples", "nvmlDeviceGetMemoryInfo_v2",
    ]  # fmt: skip
    exporter.collect()
    for function in functions:
        for code in (1, 2, 3, 4, 6, 7, 9, 10, 13, 15, UNKNOWN):
            exporter.machine.control.errors = {function: code}
            exporter.machine.control.gpus = [SimulatedGpu(errors={function: code}), SimulatedGpu()]
            exporter.machine.control.loads += 1
            for _ in range(3):
                rows = exporter.collect()
                assert len(up_values(rows)) + reasons(rows).count("no_permission") == len(rows.get("gpu_info", {}))
    exporter.machine.control.errors = {}
    exporter.machine.control.gpus = [SimulatedGpu(), SimulatedGpu()]
    for _ in range(3):
        rows = exporter.collect(61)
    assert up_values(rows) == [1, 1]
