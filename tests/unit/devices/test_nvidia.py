"""NvidiaDriver with the real pynvml on the simulated NVML."""

from __future__ import annotations

import _ctypes
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pynvml
import pytest
from gpu_exporter import metrics
from gpu_exporter.devices import nvidia_calls, nvidia_gpm
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.meters import BusySource
from gpu_exporter.devices.nvidia import LOST_GPU_RETRY_SECONDS, NvidiaDriver
from gpu_exporter.devices.nvidia_drivers import PROCESS_ENTRY_BYTES
from gpu_exporter.devices.nvidia_gpu import PROCESS_INTERVAL_SECONDS, SLOW_INTERVAL_SECONDS
from gpu_exporter.devices.nvml import INVALID_ARGUMENT
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity, DeviceReading, DownReason, DriverState, GpuProcess

from tests.simulated_nvml.build import CONTROL_VARIABLE
from tests.simulated_nvml.control import (
    ALL_ONES_32,
    ALL_ONES_64,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    Control,
    SimulatedGpu,
)
from tests.simulated_nvml.device_values import absent, down_reasons, values
from tests.unit.devices.conftest import SimulatedMachine

MIB = 1024 * 1024
RATES = "nvmlDeviceGetUtilizationRates"


def uuid(index: int) -> str:
    return f"GPU-5e000000-0000-4000-8000-{index:012x}"


def every_call_fails(code: int) -> dict[str, int]:
    """The live calls of a GPU, each with this error."""
    return {
        function: code
        for line in nvidia_calls.LIVE_METRICS + nvidia_calls.SLOW_METRICS
        for function in line.call.functions
    }


def read_single_gpu(machine: SimulatedMachine, gpu: SimulatedGpu) -> DeviceReading:
    machine.control.gpus = [gpu]
    machine.write()
    (device,) = machine.driver.read()
    return device


def test_healthy_gpu_in_base_units(machine: SimulatedMachine) -> None:
    device = read_single_gpu(
        machine,
        SimulatedGpu(
            level=73, memory_activity=21, memory_used=19818, temperature=59, power=631.95, fan=40, pstate=2, encoder=60,
            decoder=5, sm_clock=1755, pcie_generation=4, pcie_width=8, pcie_replays=9, throttle=0x4 | 0x80,
            ecc_corrected=12, ecc_uncorrected=1, rows_correctable=3, rows_uncorrectable=2, processes=3, rows_pending=1,
            memory_temperature=66, throttled_power=12.5, throttled_hw_thermal=0.25, pcie_sent=10**12, pcie_received=7,
            nvlink_sent=4096, nvlink_received=2048, nvlink_replay=5, nvlinks_inactive=2,
        ),
    )  # fmt: skip
    energy = values(device)["gpu_energy_joules_total"]
    observed = {key: value for key, value in values(device).items() if "xid" not in key[0]}
    assert observed == {
        "gpu_utilization_ratio": 0.73,
        "gpu_busy_seconds_total": 0,
        "gpu_observed_seconds_total": 0,
        "gpu_memory_total_bytes": 81559 * MIB,
        "gpu_memory_used_bytes": 19818 * MIB,
        "gpu_memory_reserved_bytes": 479 * MIB,
        "gpu_memory_activity_ratio": 0.21,
        "gpu_temperature_celsius": 59,
        "gpu_power_watts": 631.95,
        "gpu_power_limit_watts": 700,
        "gpu_energy_joules_total": energy,
        "gpu_sm_clock_hertz": 1_755_000_000,
        "gpu_sm_clock_max_hertz": 1_980_000_000,
        "gpu_memory_clock_hertz": 2_619_000_000,
        "gpu_fan_speed_ratio": 0.4,
        "gpu_performance_state": 2,
        "gpu_encoder_utilization_ratio": 0.6,
        "gpu_decoder_utilization_ratio": 0.05,
        "gpu_pcie_link_generation": 4,
        "gpu_pcie_link_width": 8,
        "gpu_pcie_replays_total": 9,
        ("gpu_throttle_active", "application_clocks"): 0,
        ("gpu_throttle_active", "sw_power_cap"): 1,
        ("gpu_throttle_active", "hw_slowdown"): 0,
        ("gpu_throttle_active", "sync_boost"): 0,
        ("gpu_throttle_active", "sw_thermal"): 0,
        ("gpu_throttle_active", "hw_thermal"): 0,
        ("gpu_throttle_active", "hw_power_brake"): 1,
        ("gpu_throttle_active", "display_clocks"): 0,
        ("gpu_ecc_errors_total", "corrected"): 12,
        ("gpu_ecc_errors_total", "uncorrected"): 1,
        ("gpu_remapped_rows", "correctable"): 3,
        ("gpu_remapped_rows", "uncorrectable"): 2,
        "gpu_row_remap_pending": 1,
        "gpu_row_remap_failed": 0,
        "gpu_processes": 3,
        "gpu_memory_clock_max_hertz": 2_619_000_000,
        "gpu_memory_temperature_celsius": 66,
        ("gpu_throttle_seconds_total", "sw_power_cap"): 12.5,
        ("gpu_throttle_seconds_total", "sync_boost"): 0,
        ("gpu_throttle_seconds_total", "board_limit"): 0,
        ("gpu_throttle_seconds_total", "reliability"): 0,
        ("gpu_throttle_seconds_total", "sw_thermal"): 0,
        ("gpu_throttle_seconds_total", "hw_thermal"): 0.25,
        ("gpu_throttle_seconds_total", "hw_power_brake"): 0,
        "gpu_pcie_transmit_bytes_total": 10**12,
        "gpu_pcie_receive_bytes_total": 7,
        "gpu_nvlink_transmit_bytes_total": 4096,
        "gpu_nvlink_receive_bytes_total": 2048,
        ("gpu_nvlink_errors_total", "crc_flit"): 0,
        ("gpu_nvlink_errors_total", "crc_data"): 0,
        ("gpu_nvlink_errors_total", "replay"): 5,
        ("gpu_nvlink_errors_total", "recovery"): 0,
        ("gpu_nvlink_links", "active"): 16,
        ("gpu_nvlink_links", "inactive"): 2,
        ("gpu_busy_source_info", "buffer"): 1,
        "gpu_idle_held_seconds_total": 0,
        "gpu_power_limit_max_watts": 700,
        "gpu_video_clock_hertz": 1545e6,
        "gpu_compute_mode": 0,
        "gpu_idle_reason_active": 0,
        "gpu_recovery_action": 0,
        "gpu_fabric_state": 3,
        "gpu_window_seconds": 60,
        "gpu_window_end_timestamp_seconds": 1_699_999_980,
    }
    not_yet = {name for name, reason in absent(device).items() if reason == "not_yet"} - {"gpu_xid_errors_total"}
    assert not_yet == {f.name for f, _ in nvidia_gpm.RATIO_METRICS} | {
        "gpu_utilization_window_ratio",
        "gpu_power_window_watts",
    }
    unsupported = {name for name, reason in absent(device).items() if reason == "unsupported"}
    assert unsupported == {"gpu_retired_pages", "gpu_retired_pages_pending"}
    assert set(absent(device).values()) == {"not_yet", "unsupported"}
    assert device.down is None
    assert device.identity == DeviceIdentity(
        uuid(0), "0", "NVIDIA H100 80GB HBM3", "nvidia", "00000000:10:00.0", "590.48.01"
    )
    machine.wait(10)
    (device,) = machine.driver.read()
    assert values(device)["gpu_energy_joules_total"] - energy == pytest.approx(6319.5, abs=0.1)


def test_every_device_family_is_read_or_declared_absent(machine: SimulatedMachine) -> None:
    device = read_single_gpu(machine, SimulatedGpu())
    reported = {reading.family for reading in device.readings} | {absence.family for absence in device.absences}
    reported_elsewhere = {metrics.INFO, metrics.UP, metrics.DOWN_INFO, metrics.FAMILY_ABSENT_INFO}
    without_events = {metrics.XID_LAST_TIMESTAMP, metrics.XID_INFO}
    assert reported == set(metrics.DEVICE_FAMILIES) - reported_elsewhere - without_events


def test_constants_match_pynvml() -> None:
    assert nvidia_calls.CORE == pynvml.NVML_TEMPERATURE_GPU
    assert (nvidia_calls.SM, nvidia_calls.MEMORY) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    assert nvidia_calls.CORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    assert nvidia_calls.UNCORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    assert nvidia_calls.LIFETIME == pynvml.NVML_AGGREGATE_ECC
    assert pynvml.nvmlMemory_v2 == nvidia_calls.MEMORY_V2
    bits = set(nvidia_calls.THROTTLE_REASONS.values())
    assert sum(bits) | pynvml.nvmlClocksEventReasonGpuIdle == pynvml.nvmlClocksEventReasonAll


def test_changing_values_are_read_again(machine: SimulatedMachine) -> None:
    for power, throttle in ((100, 0), (100, 0x8), (250, 0)):
        observed = values(read_single_gpu(machine, SimulatedGpu(power=power, throttle=throttle)))
        assert observed["gpu_power_watts"] == power
        assert observed["gpu_throttle_active", "hw_slowdown"] == bool(throttle)


def test_an_idle_gpu_is_not_throttled(machine: SimulatedMachine) -> None:
    observed = values(read_single_gpu(machine, SimulatedGpu(level=0)))
    assert {key: value for key, value in observed.items() if key[0] == "gpu_throttle_active" and value} == {}


@pytest.mark.parametrize("count", [0, 1, 8, 64])
def test_any_number_of_gpus(machine: SimulatedMachine, count: int) -> None:
    machine.control.gpus = [SimulatedGpu(level=index) for index in range(count)]
    machine.write()
    devices = machine.driver.read()
    assert [device.identity.uuid for device in devices] == [uuid(index) for index in range(count)]
    assert [values(device)["gpu_utilization_ratio"] for device in devices] == [index / 100 for index in range(count)]


# ---- processes --------------------------------------------------------------------------------------------------


def test_processes_and_their_memory(machine: SimulatedMachine) -> None:
    device = read_single_gpu(machine, SimulatedGpu(pids=[4711, 12], memory_used=300))
    assert device.processes == (GpuProcess(4711, 150 * MIB), GpuProcess(12, 150 * MIB))
    assert values(device)["gpu_processes"] == 2


def test_exited_processes_and_reused_pids(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu(pids=[1, 2], memory_used=200))
    machine.gpus[0] = SimulatedGpu(pids=[2], memory_used=500)
    machine.wait(PROCESS_INTERVAL_SECONDS)
    (device,) = machine.driver.read()
    assert device.processes == (GpuProcess(2, 500 * MIB),)
    machine.gpus[0] = SimulatedGpu()
    machine.wait(PROCESS_INTERVAL_SECONDS)
    (device,) = machine.driver.read()
    assert (device.processes, values(device)["gpu_processes"]) == ((), 0)


def test_two_thousand_processes(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(processes=2000, memory_used=80000)]
    machine.write()
    machine.driver.read()
    machine.wait(PROCESS_INTERVAL_SECONDS)
    (device,) = machine.driver.read()
    assert values(device)["gpu_processes"] == len(device.processes) == 2000
    assert device.processes[-1] == GpuProcess(4_100_000 + 1999, 40 * MIB)


def test_a_lost_gpu_has_no_processes(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu(pids=[1]))
    device = read_single_gpu(machine, SimulatedGpu(pids=[1], lost=True))
    assert (device.down, device.processes) == (DownReason.LOST, ())


@pytest.mark.parametrize(("code", "reason"), [(NOT_SUPPORTED, "unsupported"), (NO_PERMISSION, "no_permission")])
def test_unsupported_process_list(machine: SimulatedMachine, code: int, reason: str) -> None:
    device = read_single_gpu(machine, SimulatedGpu(pids=[1], errors=dict.fromkeys(PROCESS_ENTRY_BYTES, code)))
    assert absent(device)["gpu_processes"] == reason
    assert device.processes == ()


# ---- busy time --------------------------------------------------------------------------------------------------


def test_busy_time_from_the_buffer_is_the_true_mean_of_a_square_wave(machine: SimulatedMachine) -> None:
    """At one reading per second, the gauge only shows one phase of a 1 s wave."""
    machine.control.gpus = [SimulatedGpu(level=100, period=1.0, duty=0.35)]
    machine.write()
    for _ in range(120):
        machine.wait(1.0)
        (device,) = machine.driver.read()
    observed = values(device)
    assert observed["gpu_observed_seconds_total"] == pytest.approx(119, abs=0.4)
    assert observed["gpu_busy_seconds_total"] / observed["gpu_observed_seconds_total"] == pytest.approx(0.35, abs=0.01)
    assert machine.driver.busy_sources == {uuid(0): BusySource.BUFFER}


def test_gauge_is_sampled_between_readings_without_a_buffer(machine: SimulatedMachine) -> None:
    """At one reading per second, the gauge only shows a few phases."""
    gpu = SimulatedGpu(level=100, period=1.07, duty=0.5, errors={"nvmlDeviceGetSamples": NOT_SUPPORTED})
    machine.gpus.append(gpu)
    machine.write()
    machine.driver.read()
    for _ in range(40):
        every = machine.driver.sampling_interval_seconds()
        for _ in range(12):
            machine.wait(0.08)
            if every:
                machine.driver.sample()
        machine.wait(0.04)
        [device] = machine.driver.read()
    assert machine.driver.sampling_interval_seconds() == 0.08
    values = {each.family.name: each.value for each in device.readings}
    assert values["gpu_busy_seconds_total"] / values["gpu_observed_seconds_total"] == pytest.approx(0.5, abs=0.04)
    gpu.errors = {}
    machine.wait(1)
    machine.driver.close()
    for _ in range(3):
        machine.wait(1)
        machine.driver.read()
    assert machine.driver.sampling_interval_seconds() is None  # the buffer is complete


def test_busy_time_without_a_sample_buffer_comes_from_the_gauge(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=40, errors={"nvmlDeviceGetSamples": NOT_SUPPORTED})]
    machine.write()
    machine.driver.read()
    machine.wait(2.0)
    (device,) = machine.driver.read()
    assert values(device)["gpu_busy_seconds_total"] == pytest.approx(0.8)
    assert machine.driver.busy_sources == {uuid(0): BusySource.GAUGE}


@pytest.mark.parametrize(
    ("gpu", "idle_held"),
    [
        (SimulatedGpu(level=40, processes=1, memory_used=10), 6.0),  # any process counts
        (SimulatedGpu(level=40, memory_used=2000), 6.0),  # in a container: memory used, no process listed
        (SimulatedGpu(level=40, memory_used=500), 0.0),  # memory use of an unused GPU
        (SimulatedGpu(level=100, processes=1, memory_used=2000), 0.0),
    ],
)
def test_idle_time_with_memory_held(machine: SimulatedMachine, gpu: SimulatedGpu, idle_held: float) -> None:
    read_single_gpu(machine, gpu)
    for _ in range(10):
        machine.wait(1.0)
        (device,) = machine.driver.read()
    observed = values(device)
    assert observed["gpu_idle_held_seconds_total"] == pytest.approx(idle_held, abs=0.2)
    assert (
        observed["gpu_idle_held_seconds_total"]
        <= observed["gpu_observed_seconds_total"] - observed["gpu_busy_seconds_total"] + 1e-9
    )


def test_window_statistics_of_the_last_minute(machine: SimulatedMachine) -> None:
    machine.time = 1_699_999_970.0
    end = 1_700_000_040.0
    machine.control.gpus = [SimulatedGpu(level=20, power=100)]
    machine.write()
    for second in range(1, 75):
        (device,) = machine.driver.read()
        not_yet = None if machine.time >= end else "not_yet"
        assert absent(device).get("gpu_utilization_window_ratio") == not_yet
        assert absent(device).get("gpu_power_window_watts") == not_yet
        if second == 40:
            machine.gpus[0] = SimulatedGpu(level=80, power=400)
        machine.wait(1.0)
    (device,) = machine.driver.read()
    observed = values(device)
    assert observed["gpu_window_end_timestamp_seconds"] == end
    assert observed["gpu_utilization_window_ratio", "min"] == 0.2
    assert observed["gpu_utilization_window_ratio", "mean"] == pytest.approx(0.5, abs=0.02)
    assert observed["gpu_utilization_window_ratio", "max"] == 0.8
    assert observed["gpu_power_window_watts", "min"] == 100
    assert observed["gpu_power_window_watts", "mean"] == pytest.approx(250, abs=8)
    assert observed["gpu_power_window_watts", "max"] == 400
    again = values(machine.driver.read()[0])
    assert again["gpu_utilization_window_ratio", "mean"] == observed["gpu_utilization_window_ratio", "mean"]


def test_a_window_in_which_the_gpu_was_lost_is_not_reported(machine: SimulatedMachine) -> None:
    machine.time = 1_699_999_980.0
    machine.control.gpus = [SimulatedGpu(level=20, errors={"nvmlDeviceGetSamples": NOT_SUPPORTED})]
    machine.write()
    for second in range(130):
        if second in (20, 50):
            lost = every_call_fails(15) if second == 20 else {}
            machine.gpus[0].errors = {"nvmlDeviceGetSamples": NOT_SUPPORTED} | lost
        (device,) = machine.driver.read()
        if 60 <= second < 120:
            assert absent(device)["gpu_utilization_window_ratio"] == "not_yet"
            assert absent(device)["gpu_power_window_watts"] == "not_yet"
        machine.wait(1.0)
    assert values(device)["gpu_utilization_window_ratio", "mean"] == pytest.approx(0.2)


def test_idle_time_counts_without_idle_samples(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=0, dry_when_idle=True)]
    machine.write()
    for _ in range(20):
        (device,) = machine.driver.read()
        machine.wait(1.0)
    assert values(device)["gpu_busy_seconds_total"] == 0
    assert values(device)["gpu_observed_seconds_total"] == pytest.approx(19, abs=0.1)


def test_backward_clock_step_does_not_stop_busy_time(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=100)]
    machine.write()
    for second in range(60):
        if second == 20:
            machine.control.clock_offset = -3600
        machine.wait(1.0)
        (device,) = machine.driver.read()
    assert values(device)["gpu_observed_seconds_total"] > 55
    assert machine.driver.busy_sources == {uuid(0): BusySource.BUFFER}


def test_busy_time_survives_a_loss_and_is_monotonic(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=100)]
    machine.write()
    machine.driver.read()
    machine.wait(5.0)
    (before,) = machine.driver.read()
    machine.gpus[0].lost = True
    machine.wait(30.0)
    machine.driver.read()
    machine.gpus[0].lost = False
    machine.driver.close()
    machine.wait(1.0)
    (after,) = machine.driver.read()
    assert values(before)["gpu_busy_seconds_total"] == pytest.approx(5, abs=0.2)
    # The buffer has the last 17 s, the rest is unobserved.
    assert 5 < values(after)["gpu_observed_seconds_total"] < 5 + 31


# ---- absent families --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    nvidia_calls.LIVE_METRICS + nvidia_calls.SLOW_METRICS + nvidia_calls.STATIC_METRICS,
    ids=lambda line: line.family.name,
)
@pytest.mark.parametrize(
    ("code", "reason"), [(NOT_SUPPORTED, "unsupported"), (NO_PERMISSION, "no_permission"), (UNKNOWN, "error")]
)
def test_failed_call_is_an_absence_never_a_zero(
    machine: SimulatedMachine, line: nvidia_calls.CallMetric, code: int, reason: str
) -> None:
    device = read_single_gpu(machine, SimulatedGpu(fan=30, errors=dict.fromkeys(line.call.functions, code)))
    assert device.down is None
    assert absent(device)[line.family.name] == reason
    assert line.family not in {reading.family for reading in device.readings}


GARBAGE: list[tuple[MetricFamily, str, int]] = [
    (metrics.UTILIZATION, RATES, 101),
    (metrics.UTILIZATION, RATES, ALL_ONES_32),
    (metrics.MEMORY_USED, "nvmlDeviceGetMemoryInfo_v2", 81560 * MIB),
    (metrics.MEMORY_USED, "nvmlDeviceGetMemoryInfo_v2", ALL_ONES_64),
    (metrics.TEMPERATURE, "nvmlDeviceGetTemperature", ALL_ONES_32),
    (metrics.TEMPERATURE, "nvmlDeviceGetTemperature", ALL_ONES_32 - 4),  # -5 as an unsigned number
    (metrics.POWER, "nvmlDeviceGetPowerUsage", ALL_ONES_32),
    (metrics.POWER_LIMIT, "nvmlDeviceGetEnforcedPowerLimit", ALL_ONES_32),
    (metrics.ENERGY, "nvmlDeviceGetTotalEnergyConsumption", ALL_ONES_64),
    (metrics.SM_CLOCK, "nvmlDeviceGetClockInfo", ALL_ONES_32),
    (metrics.SM_CLOCK_MAX, "nvmlDeviceGetMaxClockInfo", ALL_ONES_32),
    (metrics.FAN_SPEED, "nvmlDeviceGetFanSpeed", ALL_ONES_32),
    (metrics.PERFORMANCE_STATE, "nvmlDeviceGetPerformanceState", 32),
    (metrics.ENCODER_UTILIZATION, "nvmlDeviceGetEncoderUtilization", 250),
    (metrics.PCIE_WIDTH, "nvmlDeviceGetCurrPcieLinkWidth", 0),
    (metrics.PCIE_REPLAYS, "nvmlDeviceGetPcieReplayCounter", ALL_ONES_32),
    (metrics.ECC_ERRORS, "nvmlDeviceGetTotalEccErrors", ALL_ONES_64),
    (metrics.REMAPPED_ROWS, "nvmlDeviceGetRemappedRows", ALL_ONES_32),
]


@pytest.mark.parametrize(("family", "function", "number"), GARBAGE)
def test_invalid_value_is_an_error_at_each_reading(
    machine: SimulatedMachine, family: MetricFamily, function: str, number: int
) -> None:
    machine.control.gpus = [SimulatedGpu(level=50, raw={function: number})]
    machine.write()
    for _ in range(2):
        (device,) = machine.driver.read()
        assert absent(device)[family.name] == "error"
        assert family not in {reading.family for reading in device.readings}
        assert device.down is None


def test_invalid_utilization_is_not_busy_time(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(raw={RATES: 255, "nvmlDeviceGetSamples": 255})]
    machine.write()
    machine.driver.read()
    machine.wait(10)
    (device,) = machine.driver.read()
    assert values(device)["gpu_observed_seconds_total"] == 0


def test_failed_static_call_is_retried(machine: SimulatedMachine) -> None:
    assert "gpu_sm_clock_max_hertz" in absent(
        read_single_gpu(machine, SimulatedGpu(errors={"nvmlDeviceGetMaxClockInfo": UNKNOWN}))
    )
    assert values(read_single_gpu(machine, SimulatedGpu()))["gpu_sm_clock_max_hertz"] == 1_980_000_000


def test_a_gpu_in_mig_mode_has_no_utilization(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=100, mig=True, memory_used=11125)]
    machine.write()
    machine.driver.read()
    machine.wait(3)
    (device,) = machine.driver.read()
    for family in (
        metrics.UTILIZATION,
        metrics.MEMORY_ACTIVITY,
        metrics.BUSY_SECONDS_TOTAL,
        metrics.OBSERVED_SECONDS_TOTAL,
        metrics.ENCODER_UTILIZATION,
    ):
        assert absent(device)[family.name] == "unsupported"
        assert family.name not in values(device)
    assert values(device)["gpu_memory_used_bytes"] == 11125 * MIB
    assert device.down is None


def test_buffer_is_ignored_if_the_gauge_is_unsupported(machine: SimulatedMachine) -> None:
    device = read_single_gpu(machine, SimulatedGpu(level=100, errors={RATES: NOT_SUPPORTED}))
    assert absent(device)["gpu_busy_seconds_total"] == "unsupported"
    assert machine.driver.busy_sources == {uuid(0): BusySource.NONE}


# ---- lost GPUs and unloaded drivers -----------------------------------------------------------------------------


def test_lost_gpu_keeps_identity_and_index_and_recovers(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=50) for _ in range(3)]
    machine.write()
    healthy = machine.driver.read()
    machine.gpus[1].lost = True
    machine.write()
    devices = machine.driver.read()
    assert down_reasons(devices) == [None, DownReason.LOST, None]
    assert [device.identity for device in devices] == [device.identity for device in healthy]
    assert devices[1].readings == ()
    for _ in range(3):
        machine.wait(LOST_GPU_RETRY_SECONDS + 1)  # long enough for a new session, which cannot open the GPU either
        assert down_reasons(machine.driver.read()) == [None, DownReason.LOST, None]
    machine.gpus[1].lost = False
    machine.wait(LOST_GPU_RETRY_SECONDS + 1)
    machine.driver.read()
    assert down_reasons(machine.driver.read()) == [None, None, None]


@pytest.mark.parametrize("code", [15, 16, 28], ids=["lost", "reset required", "not found"])
def test_errors_that_mean_lost(machine: SimulatedMachine, code: int) -> None:
    assert read_single_gpu(machine, SimulatedGpu(errors=every_call_fails(code))).down is DownReason.LOST


@pytest.mark.parametrize("code", [1, 9, 15, 16, 28])
@pytest.mark.parametrize("function", [RATES, "nvmlDeviceGetFanSpeed", "nvmlDeviceGetFieldValues", "nvmlGpmSampleGet"])
def test_a_single_call_does_not_take_a_gpu_down(machine: SimulatedMachine, function: str, code: int) -> None:
    """Each call of a lost GPU, and of a driver that was unloaded, fails: one that does is wrong."""
    device = read_single_gpu(machine, SimulatedGpu(fan=30, errors={function: code}))
    assert device.down is None
    assert "error" in absent(device).values()
    assert values(device)["gpu_power_watts"] > 0


def test_all_gpus_lost(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu() for _ in range(8)]
    machine.write()
    machine.driver.read()
    for gpu in machine.gpus:
        gpu.lost = True
    machine.write()
    devices = machine.driver.read()
    assert down_reasons(devices) == [DownReason.LOST] * 8
    assert [device.identity.uuid for device in devices] == [uuid(index) for index in range(8)]


def test_card_missing_from_the_enumeration_is_lost(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(level=10), SimulatedGpu(level=20), SimulatedGpu(level=30)]
    machine.write()
    machine.driver.read()
    machine.gpus[1].missing = True
    machine.write()
    devices = machine.driver.read()
    assert down_reasons(devices) == [None, DownReason.LOST, None]
    assert devices[1].identity.uuid == uuid(1)
    assert values(devices[2])["gpu_utilization_ratio"] == 0.3


def test_a_replaced_card_is_forgotten(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu())
    machine.control.loads = 2
    devices = [read_single_gpu(machine, SimulatedGpu(uuid="GPU-new")) for _ in range(2)][-1:]
    assert [(device.identity.uuid, device.down) for device in devices] == [("GPU-new", None)]


def test_a_gpu_that_was_lost_before_the_start_is_shown_by_its_index(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(), SimulatedGpu(lost=True)]
    machine.write()
    devices = machine.driver.read()
    assert [(device.identity.uuid, device.down) for device in devices] == [
        (uuid(0), None),
        ("NVIDIA-35971be6-1", DownReason.LOST),
    ]
    machine.gpus[1].lost = False
    machine.wait(LOST_GPU_RETRY_SECONDS + 1)
    machine.driver.read()
    assert [device.identity.uuid for device in machine.driver.read()] == [uuid(0), uuid(1)]


@pytest.mark.parametrize("code", [UNKNOWN, INVALID_ARGUMENT])
def test_gpu_that_could_not_be_opened_is_retried_at_once(machine: SimulatedMachine, code: int) -> None:
    """Also if its identity is called an invalid argument: its index was valid."""
    unidentified = dict.fromkeys(("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"), code)
    machine.control.gpus = [SimulatedGpu(), SimulatedGpu(errors=unidentified)]
    machine.write()
    assert down_reasons(machine.driver.read()) == [None, DownReason.ERROR]
    machine.gpus[1].errors = {}
    machine.write()
    devices = machine.driver.read()
    assert [(device.identity.uuid, device.down) for device in devices] == [(uuid(0), None), (uuid(1), None)]


def test_limits_links_and_error_counts_are_read_every_few_seconds(machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(temperature=50, power_limit=700, pcie_width=16)]
    machine.write()
    machine.driver.read()
    machine.control.gpus = [SimulatedGpu(temperature=60, power_limit=300, pcie_width=8)]
    names = ("gpu_temperature_celsius", "gpu_power_limit_watts", "gpu_pcie_link_width")
    seen = []
    for _ in range(int(SLOW_INTERVAL_SECONDS)):
        machine.wait(1)
        page = values(machine.driver.read()[0])
        seen.append(tuple(page[name] for name in names))
    assert seen == [(60, 700, 16)] * (len(seen) - 1) + [(60, 300, 8)]


def test_down_is_decided_by_all_calls(machine: SimulatedMachine) -> None:
    live = {function for line in nvidia_calls.LIVE_METRICS for function in line.call.functions}
    machine.control.gpus = [SimulatedGpu()]
    machine.write()
    machine.driver.read()
    machine.control.gpus = [SimulatedGpu(errors=dict.fromkeys(live, UNKNOWN))]
    machine.wait(1)
    (device,) = machine.driver.read()
    assert device.down is None
    machine.control.gpus = [SimulatedGpu(errors=every_call_fails(UNKNOWN))]
    machine.wait(1)
    assert machine.driver.read()[0].down is not None
    machine.control.gpus = [SimulatedGpu(power_limit=300)]
    machine.wait(LOST_GPU_RETRY_SECONDS)
    assert values(machine.driver.read()[0])["gpu_power_limit_watts"] == 300


def test_gpu_with_only_errors_is_down(machine: SimulatedMachine) -> None:
    functions = every_call_fails(UNKNOWN).keys() | {
        "nvmlDeviceGetSamples", "nvmlDeviceGetFieldValues", "nvmlDeviceGetComputeRunningProcesses_v3",
    }  # fmt: skip
    assert read_single_gpu(machine, SimulatedGpu(errors=dict.fromkeys(functions, UNKNOWN))).down is DownReason.ERROR


def test_reloaded_driver_is_reopened(machine: SimulatedMachine, caplog: pytest.LogCaptureFixture) -> None:
    machine.control.gpus = [SimulatedGpu(level=50), SimulatedGpu(level=50)]
    machine.write()
    before = machine.driver.read()
    machine.control.loaded = False
    machine.write()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # first the dead session, then failed attempts to open one
            devices = machine.driver.read()
            assert down_reasons(devices) == [DownReason.DRIVER_GONE] * 2
            assert [device.identity for device in devices] == [device.identity for device in before]
    first, second = [record.message for record in caplog.records]
    assert "was unloaded" in first
    assert "try `modprobe nvidia`" in second
    machine.control.loaded, machine.control.loads, machine.control.driver = True, 2, "595.80"
    machine.write()
    devices = machine.driver.read()
    assert down_reasons(devices) == [None, None]
    assert {device.identity.driver_version for device in devices} == {"595.80"}


def test_a_driver_reloaded_between_two_reads_costs_one_reading(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu())
    machine.control.loads = 2
    machine.write()
    assert down_reasons(machine.driver.read()) == [DownReason.DRIVER_GONE]
    assert down_reasons(machine.driver.read()) == [None]


@pytest.mark.parametrize(
    ("code", "state"),
    [(9, DriverState.FAILED), (4, DriverState.NO_PERMISSION), (18, DriverState.FAILED), (999, DriverState.FAILED)],
)
def test_driver_unavailable_from_the_start(machine: SimulatedMachine, code: int, state: DriverState) -> None:
    machine.control.errors = {"nvmlInitWithFlags": code}
    machine.write()
    for _ in range(2):
        with pytest.raises(DriverUnavailable) as refusal:
            machine.driver.read()
        assert refusal.value.state is state
    machine.control.errors = {}
    assert read_single_gpu(machine, SimulatedGpu()).down is None


def test_open_gpus_are_read_on_if_they_cannot_be_counted(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu())
    for code in (NO_PERMISSION, UNKNOWN, 1):
        machine.control.errors = {"nvmlDeviceGetCount_v2": code}
        machine.write()
        assert down_reasons(machine.driver.read()) == [None]


def test_permission_withdrawn_before_a_new_session_takes_the_gpus_down(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu())
    machine.driver.close()
    machine.control.errors = {"nvmlDeviceGetCount_v2": NO_PERMISSION}
    machine.write()
    assert down_reasons(machine.driver.read()) == [DownReason.ERROR]


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", not_there)
    with pytest.raises(DriverUnavailable, match="install the NVIDIA driver") as refusal:
        NvidiaDriver().read()
    assert refusal.value.state is DriverState.ABSENT


def test_close_and_read_again(machine: SimulatedMachine) -> None:
    read_single_gpu(machine, SimulatedGpu())
    machine.driver.close()
    machine.driver.close()
    assert pynvml.nvmlLib is None
    assert pynvml._nvmlGetFunctionPointer_cache == {}  # its entries point into the library that was unmapped
    assert down_reasons(machine.driver.read()) == [None]


def test_importing_loads_no_pynvml_and_closing_unmaps_the_library(nvml_library: Path, tmp_path: Path) -> None:
    """In a subprocess: here the fixture keeps the library mapped."""
    control = Control(tmp_path / "control", gpus=[SimulatedGpu(), SimulatedGpu()])
    control.write()
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from gpu_exporter.devices.nvidia import LOST_GPU_RETRY_SECONDS, NvidiaDriver
        mapped = lambda: "libnvidia-ml" in Path("/proc/self/maps").read_text()
        driver = NvidiaDriver()
        print("pynvml" in sys.modules, mapped())
        print(len(driver.read()), mapped())
        driver.close()
        print(mapped(), len(driver.read()), mapped())
        driver.close()
        Path(sys.argv[1]).write_text("loaded 0\\n")
        devices = driver.read()
        print(devices[0].down.value, mapped())
        """
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(nvml_library.parent), CONTROL_VARIABLE: str(control.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(control.path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["False False", "2 True", "False 2 True", "driver_gone False"]


def test_readings_are_immutable_and_the_old_ones_stay(machine: SimulatedMachine) -> None:
    first = read_single_gpu(machine, SimulatedGpu(power=100))
    read_single_gpu(machine, SimulatedGpu(power=200))
    assert values(first)["gpu_power_watts"] == 100
    assert AbsenceReason.ERROR.value not in absent(first).values()


def test_the_library_is_unmapped_by_the_name_that_windows_has(
    machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.delattr(_ctypes, "dlclose")
    monkeypatch.setattr(_ctypes, "FreeLibrary", closed.append, raising=False)
    read_single_gpu(machine, SimulatedGpu())
    machine.driver.close()
    assert closed


def test_why_a_gpu_cannot_be_opened_is_logged_once(machine: SimulatedMachine, caplog: pytest.LogCaptureFixture) -> None:
    gpus = [SimulatedGpu(), SimulatedGpu(errors={"nvmlDeviceGetHandleByIndex_v2": 8})]  # no power cable
    machine.control.gpus = gpus
    for _ in range(3):
        machine.wait(1)
        assert down_reasons(machine.driver.read()) == [None, "error"]
    messages = [record.message for record in caplog.records if "cannot be opened" in record.message]
    assert messages == ["GPU 1 cannot be opened: Insufficient External Power"]


def test_the_reason_of_a_container_that_lost_its_devices_has_the_fix(
    machine: SimulatedMachine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.control.gpus = [SimulatedGpu()]
    machine.write()
    machine.driver.read()
    machine.control.errors = {"nvmlInitWithFlags": UNKNOWN}
    machine.control.loads += 1
    for _ in range(4):
        machine.wait(1)
        assert down_reasons(machine.driver.read()) == ["driver_gone"]
    messages = [record.message for record in caplog.records if "cannot initialize NVML" in record.message]
    assert len(messages) == 1
    assert "systemctl daemon-reload`: restart it" in messages[0]
