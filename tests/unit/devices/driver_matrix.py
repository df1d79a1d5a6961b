"""Generations of drivers and situations that machines are in: each pair is a cell of the matrix in test_driver_matrix.

A generation is played by a library that does not export what the driver lacks. A situation is a machine, and what its
page must have in every generation.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_exporter.devices import nvidia_calls
from gpu_exporter.devices.nvidia_drivers import (
    BRANCHES,
    PROCESS_ENTRY_BYTES,
    DriverBranch,
    branch_of,
    parse_version,
)

from tests.simulated_nvml.control import (
    ALL_ONES_32,
    ALL_ONES_64,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    SimulatedGpu,
    SimulatedMigInstance,
)

VERSIONS: Mapping[str, str] = {
    "470": "470.256.02", "510": "510.108.03", "525": "525.147.05", "535.43": "535.54.03", "535.98": "535.98",
    "535.104": "535.183.06", "550": "550.127.08", "570": "570.172.08", "575": "575.57.08", "580": "580.95.05",
    "590": "590.48.01",
}  # fmt: skip
"""A version that was released, of each branch."""


def _platforms() -> tuple[Any, ...]:
    sys.path.append(str(Path(__file__).parents[3] / "docs"))
    return tuple(importlib.import_module("nvidia_platforms").PLATFORMS)


PLATFORMS = _platforms()


@dataclass(frozen=True)
class Generation:
    """A driver on a platform. `refused` are the calls that it does not support, with their codes."""

    name: str
    version: str
    branch: DriverBranch
    refused: Mapping[str, int] = field(default_factory=dict)
    gpu_name: str | None = None


def _branch(version: str) -> DriverBranch:
    found = branch_of(parse_version(version))
    if found is None:
        raise ValueError(f"{version} is older than all branches")
    return found


GENERATIONS: Mapping[str, Generation] = {
    **{branch.name: Generation(branch.name, VERSIONS[branch.name], branch) for branch in BRANCHES},
    **{
        platform.name: Generation(
            platform.name, platform.version, _branch(platform.version), platform.refused, platform.gpu_name or None
        )
        for platform in PLATFORMS
    },
}

MIB = 1024 * 1024
PIDS = tuple(range(301, 341))
"""More than 24: where entries are longer than declared, a buffer for 32 entries is too small for these."""


def busy_gpu(number: int = 0) -> SimulatedGpu:
    """Values that differ between GPUs, so that one in the place of another is noticed."""
    return SimulatedGpu(
        level=60, power=300 + number, temperature=50 + number, memory_used=40_000 + 400 * number,
        sm_clock=1500 + number, pids=[pid + 100 * number for pid in PIDS], throttled_power=9, throttled_sw_thermal=3,
        throttled_hw_thermal=2, ecc_corrected=number, pcie_sent=10**9, pcie_received=10**8, nvlink_sent=2**30,
        nvlink_received=2**29, pcie_rate=2**20, sm_activity=40, tensor=20,
    )  # fmt: skip


def _live_functions() -> list[str]:
    table = (*nvidia_calls.LIVE_METRICS, *nvidia_calls.SLOW_METRICS, *nvidia_calls.STATIC_METRICS)
    return [function for line in table for function in line.call.functions]


OPTIONAL_FUNCTIONS: Sequence[str] = tuple(
    dict.fromkeys(
        (
            *_live_functions(), *PROCESS_ENTRY_BYTES, "nvmlDeviceGetSamples", "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetMigMode", "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleGet", "nvmlGpmMetricsGet",
            "nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3",
        )
    )
)  # fmt: skip
"""All that a reading calls, but for the count, the handle and the uuid."""


def _healthy() -> list[SimulatedGpu]:
    return [busy_gpu()]


def _mig() -> list[SimulatedGpu]:
    """Two compute instances of one GPU instance, and another GPU instance."""
    gpu = busy_gpu()
    gpu.mig, gpu.pids = True, (301, 302, 303)
    gpu.instances = [
        SimulatedMigInstance(
            "1c.3g.40gb", uuid="MIG-a", place=0, gpu_instance=2, compute_instance=0, memory_total=40448,
            memory_used=600, sm_activity=75, pids=[301]
        ),
        SimulatedMigInstance(
            "2c.3g.40gb", uuid="MIG-b", place=1, gpu_instance=2, compute_instance=1, memory_total=40448,
            memory_used=600, sm_activity=75, pids=[302]
        ),
        SimulatedMigInstance(
            "1g.10gb", uuid="MIG-c", place=4, gpu_instance=9, compute_instance=0, memory_total=9984,
            memory_used=300, sm_activity=10, pids=[303]
        ),
    ]  # fmt: skip
    return [gpu]


def _not_utf_8() -> list[SimulatedGpu]:
    gpus = [busy_gpu(0), busy_gpu(1)]
    gpus[0].texts = {"nvmlDeviceGetName": b"\xf8\x95\xa0", "nvmlDeviceGetUUID": b"GPU-\xc3\x28-0"}
    gpus[1].texts = {"nvmlDeviceGetName": b"\xf8\x95\xa1", "nvmlDeviceGetUUID": b"GPU-\xc3\x28-1"}
    return gpus


def _all_fail(code: int, but: Sequence[str] = ()) -> Callable[[], list[SimulatedGpu]]:
    def gpus() -> list[SimulatedGpu]:
        gpu = busy_gpu()
        gpu.errors = {function: code for function in OPTIONAL_FUNCTIONS if function not in but}
        return [gpu]

    return gpus


def _nonsense() -> list[SimulatedGpu]:
    gpu = busy_gpu()
    gpu.raw = {
        "nvmlDeviceGetUtilizationRates": 101, "nvmlDeviceGetTemperature": ALL_ONES_32 - 5,
        "nvmlDeviceGetPowerUsage": 5_000_000, "nvmlDeviceGetEnforcedPowerLimit": ALL_ONES_32 - 1,
        "nvmlDeviceGetTotalEnergyConsumption": ALL_ONES_64, "nvmlDeviceGetClockInfo": 21_000,
        "nvmlDeviceGetMaxClockInfo": 0, "nvmlDeviceGetFanSpeed": 900, "nvmlDeviceGetPerformanceState": 32,
        "nvmlDeviceGetEncoderUtilization": 250, "nvmlDeviceGetDecoderUtilization": ALL_ONES_32,
        "nvmlDeviceGetCurrPcieLinkGeneration": 77, "nvmlDeviceGetCurrPcieLinkWidth": 0,
        "nvmlDeviceGetTotalEccErrors": ALL_ONES_64 - 1, "nvmlDeviceGetRemappedRows": ALL_ONES_32 - 1,
        "nvmlDeviceGetMemoryInfo_v2": ALL_ONES_64, "nvmlDeviceGetMemoryInfo": ALL_ONES_64, "field74": ALL_ONES_64,
        "field82": ALL_ONES_32, "nvmlDeviceGetSamples": 255,
    }  # fmt: skip
    gpu.counts = dict.fromkeys(PROCESS_ENTRY_BYTES, ALL_ONES_32)
    return [gpu]


def _twins() -> list[SimulatedGpu]:
    """Two GPUs of one uuid, one that a device cgroup forbids, and one that is lost."""
    gpus = [busy_gpu(number) for number in range(4)]
    gpus[0].uuid = gpus[1].uuid = "GPU-twin"
    gpus[2].errors = {"nvmlDeviceGetHandleByIndex_v2": NO_PERMISSION}
    gpus[3].lost = True
    return gpus


def _no_identity() -> list[SimulatedGpu]:
    gpus = [busy_gpu(number) for number in range(2)]
    gpus[0].errors = {"nvmlDeviceGetUUID": NOT_SUPPORTED, "nvmlDeviceGetPciInfo_v3": NOT_SUPPORTED}
    gpus[1].uuid = "GPU-00000000-0000-0000-0000-000000000000"
    return gpus


@dataclass(frozen=True)
class Situation:
    """`gpus` makes the machine; `up` are the values of gpu_up by uuid, MIG instances included.

    `tegra_up` are those on Tegra, where GPUs have no PCI address, no MIG mode and hardly any call.
    """

    gpus: Callable[[], list[SimulatedGpu]]
    up: Mapping[str, float]
    tegra_up: Mapping[str, float] | None = None


UUID = "GPU-5e000000-0000-4000-8000-{:012x}"

SITUATIONS: Mapping[str, Situation] = {
    "healthy": Situation(_healthy, {UUID.format(0): 1}),
    "MIG": Situation(_mig, {UUID.format(0): 1, "MIG-a": 1, "MIG-b": 1, "MIG-c": 1}, {UUID.format(0): 1}),
    "texts that are not UTF-8": Situation(
        _not_utf_8,
        {"NVIDIA-35971be6-00000000:10:00.0": 1, "NVIDIA-35971be6-00000000:11:00.0": 1},
        {"NVIDIA-35971be6-0": 1, "NVIDIA-35971be6-1": 1},
    ),
    "every optional call unsupported": Situation(_all_fail(NOT_SUPPORTED), {UUID.format(0): 1}),
    "every optional call fails": Situation(_all_fail(UNKNOWN), {UUID.format(0): 0}),
    "every optional call but memory fails": Situation(
        _all_fail(UNKNOWN, but=nvidia_calls.MEMORY_INFO.functions), {UUID.format(0): 1}, {UUID.format(0): 0}
    ),
    "nonsense": Situation(_nonsense, {UUID.format(0): 1}),
    "one uuid twice, forbidden and lost": Situation(
        _twins,
        {"GPU-twin-00000000:10:00.0": 1, "GPU-twin-00000000:11:00.0": 1, "NVIDIA-35971be6-3": 0},
        {"GPU-twin-0": 1, "GPU-twin-1": 1, "NVIDIA-35971be6-3": 0},
    ),
    "no uuid": Situation(
        _no_identity,
        {"NVIDIA-35971be6-0": 1, "NVIDIA-35971be6-00000000:11:00.0": 1},
        {"NVIDIA-35971be6-0": 1, "NVIDIA-35971be6-1": 1},
    ),
}
