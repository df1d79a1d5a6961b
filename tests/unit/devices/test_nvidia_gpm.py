"""GPM: activity between two samples, and freeing of samples."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pynvml
import pytest
from gpu_exporter.devices import nvidia_gpm

from tests.simulated_nvml.control import NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, SimulatedGpu
from tests.simulated_nvml.device_values import absent, values
from tests.unit.devices.conftest import SimulatedMachine

RATIOS = [family.name for family, _ in nvidia_gpm.RATIO_METRICS]
NAN = struct.unpack("=Q", struct.pack("=d", float("nan")))[0]


def live_samples(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).simulated_nvml_live_samples())


def read_twice(machine: SimulatedMachine, gpu: SimulatedGpu) -> tuple[dict[object, float], dict[str, str]]:
    machine.control.gpus = [gpu]
    machine.write()
    machine.driver.read()
    machine.wait(1.0)
    (device,) = machine.driver.read()
    return values(device), absent(device)


def test_metric_numbers_and_structures_match_pynvml() -> None:
    numbers = {family.name: number for family, number in nvidia_gpm._ALL_METRICS}
    assert numbers == {
        "gpu_engine_activity_ratio": pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL,
        "gpu_sm_activity_ratio": pynvml.NVML_GPM_METRIC_SM_UTIL,
        "gpu_sm_occupancy_ratio": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
        "gpu_tensor_activity_ratio": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
        "gpu_dram_bandwidth_ratio": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
        "gpu_fp64_activity_ratio": pynvml.NVML_GPM_METRIC_FP64_UTIL,
        "gpu_fp32_activity_ratio": pynvml.NVML_GPM_METRIC_FP32_UTIL,
        "gpu_fp16_activity_ratio": pynvml.NVML_GPM_METRIC_FP16_UTIL,
        "gpu_pcie_transmit_bytes_total": pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC,
        "gpu_pcie_receive_bytes_total": pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC,
        "gpu_nvlink_receive_bytes_total": pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC,
        "gpu_nvlink_transmit_bytes_total": pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC,
    }
    assert (
        ctypes.sizeof(nvidia_gpm._Metric)
        == ctypes.sizeof(pynvml.c_nvmlGpmMetric_t)
        == nvidia_gpm._ANSWERS.size / len(numbers)
    )
    assert nvidia_gpm._MetricsGet.metrics.offset == pynvml.c_nvmlGpmMetricsGet_t.metrics.offset
    assert pynvml.NVML_GPM_METRICS_GET_VERSION == pynvml.NVML_GPM_SUPPORT_VERSION == nvidia_gpm._VERSION


def test_activity_between_two_readings(machine: SimulatedMachine) -> None:
    observed, why = read_twice(
        machine,
        SimulatedGpu(level=50, sm_activity=90, sm_occupancy=40, tensor=70, dram=60, fp64=2, fp32=20, fp16=10),
    )
    assert {name: observed[name] for name in RATIOS} == {
        "gpu_engine_activity_ratio": 0.5,
        "gpu_sm_activity_ratio": 0.45,
        "gpu_sm_occupancy_ratio": 0.2,
        "gpu_tensor_activity_ratio": 0.35,
        "gpu_dram_bandwidth_ratio": 0.3,
        "gpu_fp64_activity_ratio": 0.01,
        "gpu_fp32_activity_ratio": 0.1,
        "gpu_fp16_activity_ratio": 0.05,
    }
    assert not set(RATIOS) & set(why)


def test_samples_cover_the_whole_time_between_readings(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=100, period=10, duty=0.3)]
    machine.write()
    machine.driver.read()
    machine.wait(10.0)
    assert values(machine.driver.read()[0])["gpu_engine_activity_ratio"] == pytest.approx(0.3)


def test_first_reading_has_no_activity_yet(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=50)]
    machine.write()
    (device,) = machine.driver.read()
    assert {absent(device)[name] for name in RATIOS} == {"not_yet"}
    assert not set(RATIOS) & set(values(device))


def test_readings_in_quick_succession_repeat_the_values(machine: SimulatedMachine) -> None:
    read_twice(machine, SimulatedGpu(level=50))
    machine.gpus[0].level = 100
    machine.wait(0.01)
    assert values(machine.driver.read()[0])["gpu_engine_activity_ratio"] == 0.5
    machine.wait(1.0)
    assert values(machine.driver.read()[0])["gpu_engine_activity_ratio"] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    "gpu", [SimulatedGpu(gpm=0), SimulatedGpu(errors={"nvmlGpmSampleGet": NOT_SUPPORTED}), SimulatedGpu(mig=True)]
)
def test_a_gpu_without_gpm(machine: SimulatedMachine, gpu: SimulatedGpu) -> None:
    observed, why = read_twice(machine, gpu)
    assert {why[name] for name in RATIOS} == {"unsupported"}
    assert not set(RATIOS) & set(observed)


@pytest.mark.parametrize("function", ["nvmlGpmSampleGet", "nvmlGpmMetricsGet", "nvmlGpmQueryDeviceSupport"])
@pytest.mark.parametrize(("code", "reason"), [(NO_PERMISSION, "no_permission"), (UNKNOWN, "error")])
def test_failed_gpm_is_absent_and_recovers(machine: SimulatedMachine, function: str, code: int, reason: str) -> None:
    observed, why = read_twice(machine, SimulatedGpu(level=50, errors={function: code}))
    assert {why[name] for name in RATIOS} == {reason}
    assert not set(RATIOS) & set(observed)
    machine.gpus[0].errors = {}
    for _ in range(2):
        machine.wait(1.0)
        (device,) = machine.driver.read()
    assert values(device)["gpu_engine_activity_ratio"] == 0.5


@pytest.mark.parametrize(
    "bits", [NAN, struct.unpack("=Q", struct.pack("=d", -3.0))[0], struct.unpack("=Q", struct.pack("=d", 4e9))[0]]
)
def test_invalid_metric_is_an_error_of_its_family_only(machine: SimulatedMachine, bits: int) -> None:
    observed, why = read_twice(
        machine, SimulatedGpu(level=50, sm_activity=80, raw={"gpm2": bits, "gpm20": bits}, pcie_bits=32, pcie_rate=1)
    )
    assert why["gpu_sm_activity_ratio"] == "error"
    assert "gpu_sm_activity_ratio" not in observed
    assert "gpu_pcie_transmit_bytes_total" not in observed
    assert observed["gpu_engine_activity_ratio"] == 0.5


def test_slight_overshoot_is_clamped(machine: SimulatedMachine) -> None:
    bits = struct.unpack("=Q", struct.pack("=d", 100.4))[0]
    assert read_twice(machine, SimulatedGpu(raw={"gpm2": bits}))[0]["gpu_sm_activity_ratio"] == 1.0


def test_traffic_is_accumulated_only_without_driver_counter(machine: SimulatedMachine) -> None:
    observed, _ = read_twice(machine, SimulatedGpu(level=100, pcie_sent=10**12, pcie_rate=2**20, nvlink_rate=2**30))
    assert observed["gpu_pcie_transmit_bytes_total"] == 10**12
    assert observed["gpu_nvlink_transmit_bytes_total"] == 0  # the driver's counter, constant here
    machine.driver.close()
    observed, why = read_twice(machine, SimulatedGpu(level=100, pcie_bits=32, pcie_rate=2**20))
    assert observed["gpu_pcie_transmit_bytes_total"] == pytest.approx(2**20)
    assert "gpu_pcie_transmit_bytes_total" not in why
    machine.wait(2.0)
    assert values(machine.driver.read()[0])["gpu_pcie_transmit_bytes_total"] == pytest.approx(3 * 2**20)


def test_samples_are_freed(machine: SimulatedMachine, nvml_library: Path) -> None:
    before = live_samples(nvml_library)
    machine.control.gpus = [SimulatedGpu() for _ in range(8)]
    machine.write()
    for _ in range(5):
        machine.driver.read()
        machine.wait(1.0)
    assert live_samples(nvml_library) == before + 16
    machine.driver.close()
    assert live_samples(nvml_library) == before
