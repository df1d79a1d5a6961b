"""Field values: throttle time, links, PCIe counters, retired pages, in one call per GPU."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, cast

import pynvml
import pytest
from gpu_exporter import metrics
from gpu_exporter.devices import nvidia_fields
from gpu_exporter.devices.nvidia_drivers import parse_version
from gpu_exporter.devices.nvidia_fields import (
    FIELD_METRICS,
    LINK_INTERVAL_SECONDS,
    FieldPlan,
    FieldValue,
)
from gpu_exporter.devices.nvidia_readings import NvmlReadings
from gpu_exporter.devices.nvml import NvmlSession

from tests.simulated_nvml.control import NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, SimulatedGpu
from tests.simulated_nvml.device_values import absent, values
from tests.unit.devices.conftest import SimulatedMachine

FIELDS = "nvmlDeviceGetFieldValues"


def read(
    machine: SimulatedMachine, gpu: SimulatedGpu, driver: str = "590.48.01"
) -> tuple[dict[object, float], dict[str, str]]:
    machine.control.gpus = [gpu]
    machine.control.driver = driver
    machine.write()
    machine.driver.close()
    (device,) = machine.driver.read()
    assert device.down is None
    return values(device), absent(device)


def throttle_values(observed: dict[object, float]) -> dict[str, float]:
    return {
        key[1]: value
        for key, value in observed.items()
        if isinstance(key, tuple) and "throttle_sec" in key[0] and value
    }


def test_field_numbers_match_pynvml() -> None:
    present = {
        line.labels[0]: line.number
        for line in FIELD_METRICS
        if line.family is metrics.THROTTLE_SECONDS and line.since >= (580, 82)
    }
    assert present == {
        "sw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        "hw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        "hw_power_brake": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
    }
    named = {line.number: line for line in FIELD_METRICS}
    for name, family in (
        ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP", metrics.THROTTLE_SECONDS),
        ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST", metrics.THROTTLE_SECONDS),
        ("NVML_FI_DEV_MEMORY_TEMP", metrics.MEMORY_TEMPERATURE),
        ("NVML_FI_DEV_RETIRED_SBE", metrics.RETIRED_PAGES),
        ("NVML_FI_DEV_RETIRED_DBE", metrics.RETIRED_PAGES),
        ("NVML_FI_DEV_RETIRED_PENDING", metrics.RETIRED_PAGES_PENDING),
        ("NVML_FI_DEV_PCIE_COUNT_TX_BYTES", metrics.PCIE_TRANSMIT),
        ("NVML_FI_DEV_PCIE_COUNT_RX_BYTES", metrics.PCIE_RECEIVE),
        ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", metrics.NVLINK_TRANSMIT),
        ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX", metrics.NVLINK_RECEIVE),
        ("NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES", metrics.NVLINK_TRANSMIT),
        ("NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES", metrics.NVLINK_RECEIVE),
        ("NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", metrics.NVLINK_ERRORS),
        ("NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", metrics.NVLINK_ERRORS),
        ("NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", metrics.NVLINK_ERRORS),
        ("NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", metrics.NVLINK_ERRORS),
        ("NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS", metrics.NVLINK_ERRORS),
    ):
        assert named[getattr(pynvml, name)].family is family
    assert nvidia_fields.LINK_COUNT == pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT
    assert nvidia_fields.LINK_STATE == pynvml.NVML_FI_DEV_NVLINK_GET_STATE
    assert pynvml.sizeof(pynvml.c_nvmlFieldValue_t) == nvidia_fields._ENTRY_BYTES


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("535.104.05", {"sw_power_cap": 9, "thermal": 5}),
        ("570.172.08", {"sw_power_cap": 9, "thermal": 5}),
        ("575.57.08", {"sw_power_cap": 9, "sw_thermal": 3, "hw_thermal": 2}),
        ("580.65.06", {"sw_power_cap": 9, "sw_thermal": 3, "hw_thermal": 2}),
        ("580.82.07", {"sw_power_cap": 9, "sw_thermal": 3, "hw_thermal": 2}),
        ("615.71", {"sw_power_cap": 9, "sw_thermal": 3, "hw_thermal": 2}),
    ],
)
def test_throttle_time_with_the_field_numbers_of_each_driver(
    machine: SimulatedMachine, driver: str, expected: dict[str, float]
) -> None:
    """The wrong number is a setting, for which the simulated driver returns 1."""
    observed, _ = read(machine, SimulatedGpu(throttled_power=9, throttled_sw_thermal=3, throttled_hw_thermal=2), driver)
    assert throttle_values(observed) == expected


def test_throttle_time_grows(machine: SimulatedMachine) -> None:
    read(machine, SimulatedGpu(throttled_power=9))
    machine.gpus[0].throttled_power = 10.5
    machine.wait(1)
    assert throttle_values(values(machine.driver.read()[0])) == {"sw_power_cap": 10.5}


def test_an_older_gpu_retires_pages(machine: SimulatedMachine) -> None:
    observed, why = read(machine, SimulatedGpu(retired_single=3, retired_double=1, retired_pending=1, nvlinks=0))
    assert observed["gpu_retired_pages", "single_bit"] == 3
    assert observed["gpu_retired_pages", "double_bit"] == 1
    assert observed["gpu_retired_pages_pending"] == 1
    for family in ("gpu_nvlink_links", "gpu_nvlink_errors_total", "gpu_nvlink_transmit_bytes_total"):
        assert why[family] == "unsupported"


def test_links_that_go_down_are_noticed_within_seconds(machine: SimulatedMachine) -> None:
    observed, _ = read(machine, SimulatedGpu())
    assert (observed["gpu_nvlink_links", "active"], observed["gpu_nvlink_links", "inactive"]) == (18, 0)
    machine.gpus[0].nvlinks_inactive = 1
    machine.wait(LINK_INTERVAL_SECONDS)
    observed = values(machine.driver.read()[0])
    assert (observed["gpu_nvlink_links", "active"], observed["gpu_nvlink_links", "inactive"]) == (17, 1)


def test_a_counter_that_wraps_between_two_readings_is_not_reported(machine: SimulatedMachine) -> None:
    """Without GPM there is no alternative: the family is unsupported."""
    observed, why = read(machine, SimulatedGpu(pcie_sent=5, pcie_received=5, pcie_bits=32, gpm=0))
    assert why["gpu_pcie_transmit_bytes_total"] == why["gpu_pcie_receive_bytes_total"] == "unsupported"
    assert "gpu_pcie_transmit_bytes_total" not in observed


@pytest.mark.parametrize(
    ("code", "reason"), [(NOT_SUPPORTED, "unsupported"), (NO_PERMISSION, "no_permission"), (UNKNOWN, "error")]
)
def test_failed_fields_are_absent(machine: SimulatedMachine, code: int, reason: str) -> None:
    one, why = read(machine, SimulatedGpu(errors={"field82": code}))
    assert why["gpu_memory_temperature_celsius"] == reason
    assert "gpu_memory_temperature_celsius" not in one
    assert "gpu_pcie_transmit_bytes_total" in one
    none, why = read(machine, SimulatedGpu(gpm=0, errors={FIELDS: code}))
    for family in nvidia_fields.FIELD_FAMILIES:
        assert why[family.name] == reason
        assert not any(family.name == (key[0] if isinstance(key, tuple) else key) for key in none)


def test_one_failed_row_makes_its_family_absent(machine: SimulatedMachine) -> None:
    observed, why = read(machine, SimulatedGpu(errors={"field52": UNKNOWN}))
    assert why["gpu_nvlink_errors_total"] == "error"
    assert ("gpu_nvlink_errors_total", "crc_flit") not in observed


@pytest.mark.parametrize(
    ("field", "number", "family"),
    [
        (74, 2**64 - 1, "gpu_throttle_seconds_total"),
        (82, 2**32 - 1, "gpu_memory_temperature_celsius"),
        (82, 0, "gpu_memory_temperature_celsius"),
        (197, 2**64 - 1, "gpu_pcie_transmit_bytes_total"),
        (138, 2**64 - 1, "gpu_nvlink_transmit_bytes_total"),
    ],
)
def test_invalid_field_is_an_error_at_each_reading(
    machine: SimulatedMachine, field: int, number: int, family: str
) -> None:
    observed, why = read(machine, SimulatedGpu(raw={f"field{field}": number}))
    for _ in range(2):
        assert why[family] == "error"
        assert family not in observed
        (device,) = machine.driver.read()
        observed, why = values(device), absent(device)


def test_failed_field_is_retried(machine: SimulatedMachine) -> None:
    read(machine, SimulatedGpu(errors={"field82": UNKNOWN}))
    machine.gpus[0] = SimulatedGpu(memory_temperature=71)
    machine.wait(1)
    assert values(machine.driver.read()[0])["gpu_memory_temperature_celsius"] == 71


@pytest.mark.parametrize(
    ("kind", "bits", "value"),
    [
        (0, 0x3FF8000000000000, 1.5),
        (1, 0xFF00000007, 7),
        (3, 2**63, 2**63),
        (4, 2**64 - 2, -2),
        (5, 2**32 - 1, -1),
        (6, 0x10005, 5),
    ],
)
def test_value_types(kind: int, bits: int, value: float) -> None:
    assert FieldValue(0, kind, bits).value() == value


def test_of_two_fields_for_one_row_the_first_is_used() -> None:
    """If a GPU has the counters of both NVLink generations, adding them would double the traffic."""

    class HasEverything:
        def function(self, *_: str) -> Callable[[object, ctypes.c_int, Any], int]:
            def fill(_: object, count: ctypes.c_int, entries: Any) -> int:
                for i in range(count.value):
                    number = struct.unpack_from("=I", entries._obj, 40 * i)[0]
                    struct.pack_into("=IIQ", entries._obj, 40 * i + 24, 3, 0, number)
                return 0

            return fill

    plan, read = FieldPlan(cast(NvmlSession, HasEverything()), None, (590, 48)), NvmlReadings()
    plan.execute(read)
    sent = [reading.value for reading in read.readings if reading.family is metrics.NVLINK_TRANSMIT]
    assert sent == [138 * 1024]
    assert len({(r.family, r.labels) for r in read.readings}) == len(read.readings)


def test_driver_versions_compare_as_numbers() -> None:
    assert (
        parse_version("580.100.01") > parse_version("580.82.07") > parse_version("575.57.08") > parse_version("") == ()
    )
