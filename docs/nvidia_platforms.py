"""What NVIDIA drivers refuse by where they run: for docs/nvidia.md, and for the simulated drivers of the tests.

The exporter does not look here: what a platform refuses is found out by calling it. Sources: nvidia-smi of JetPack 6
(ultralytics/ultralytics#20680); NVIDIA's vGPU user guide, "Monitoring GPU Performance from a Guest VM"; NVIDIA's user
guide of CUDA on WSL, "Known Limitations".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpu_exporter.devices.nvidia_drivers import PROCESSES_V1, PROCESSES_V2, PROCESSES_V3


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a driver runs, if that changes what it answers. `refused` maps functions to the code that they return."""

    name: str
    version: str
    refused: Mapping[str, int] = field(default_factory=dict)
    gpu_name: str = ""
    note: str = ""


_NOT_SUPPORTED = 3

_BOARD_CALLS = (
    "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetComputeMode", "nvmlDeviceGetGpuFabricInfo",
    "nvmlDeviceGetFanSpeed", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetTotalEccErrors",
)  # fmt: skip
_TEGRA_CALLS = (
    *_BOARD_CALLS, "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetSamples", "nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetPerformanceState", "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMigMode", "nvmlGpmQueryDeviceSupport", "nvmlDeviceRegisterEvents", PROCESSES_V3, PROCESSES_V2,
    PROCESSES_V1,
)  # fmt: skip
_GUEST_CALLS = (
    *_BOARD_CALLS, "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetFieldValues",
    "nvmlGpmQueryDeviceSupport", "nvmlDeviceRegisterEvents",
)  # fmt: skip
_WSL_CALLS = ("nvmlDeviceRegisterEvents", "nvmlDeviceGetSamples", "nvmlDeviceGetTotalEnergyConsumption")


def _refused(functions: tuple[str, ...]) -> dict[str, int]:
    return dict.fromkeys(functions, _NOT_SUPPORTED)


PLATFORMS: tuple[Platform, ...] = (
    Platform("wsl2", "555.85", _refused(_WSL_CALLS), note="Names may not be UTF-8 (gpuopenanalytics/pynvml#53)."),
    Platform(
        "tegra", "540.4.0", _refused(_TEGRA_CALLS), "Orin (nvgpu)", "NVML lists the GPU and knows little else of it."
    ),
    Platform("vgpu", "550.90.07", _refused(_GUEST_CALLS), "GRID A100-10C", "The hypervisor has the board's sensors."),
)
