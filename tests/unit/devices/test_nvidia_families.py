"""What depends on the family of a GPU: plausible power, and where its memory is."""

from __future__ import annotations

import pytest
from gpu_exporter.devices.nvidia_families import FAMILIES, UNKNOWN_FAMILY, MemoryKind, family_of
from gpu_exporter.snapshot import AbsenceReason, DeviceReading, GpuProcess

from tests.simulated_nvml.control import NOT_SUPPORTED, SimulatedGpu
from tests.simulated_nvml.device_values import absent, values
from tests.unit.devices.conftest import SimulatedMachine
from tests.unit.devices.driver_matrix import PLATFORMS

MIB = 1024 * 1024
GIB = 1024 * MIB
MEMORY_CALLS = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")


def read(machine: SimulatedMachine, gpu: SimulatedGpu) -> DeviceReading:
    machine.control.gpus = [gpu]
    machine.write()
    (device,) = machine.driver.read()
    return device


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("NVIDIA H100 80GB HBM3", 700), ("NVIDIA H200 NVL", 700), ("NVIDIA H20", 700), ("NVIDIA A100-SXM4-80GB", 500),
        ("GRID A100-10C", 500), ("Tesla V100-SXM2-32GB", 450), ("Tesla T4", 75), ("NVIDIA L4", 75),
        ("NVIDIA L40S", 350), ("NVIDIA A10G", 350), ("NVIDIA A2", 75), ("NVIDIA RTX A2000", 600),
        ("NVIDIA GeForce RTX 4090", 600), ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 600), ("NVIDIA B200", 1400),
        ("NVIDIA GB200", 1400), ("NVIDIA GH200 480GB", 1000), ("NVIDIA GB10", 140), ("NVIDIA Thor", 130),
        ("Orin (nvgpu)", 75), ("Quadro P4000", 600), ("NVIDIA Something New", UNKNOWN_FAMILY.max_watts),
        ("", UNKNOWN_FAMILY.max_watts),
    ],
)  # fmt: skip
def test_power_of_each_family(name: str, watts: float) -> None:
    assert family_of(name).max_watts == watts


def test_no_family_is_hidden_by_another() -> None:
    for family in FAMILIES:
        first = family.pattern.split("|")[-1].replace("[23]", "2").replace(r"\d", "4")
        assert family_of(f"NVIDIA {first}") is family


@pytest.mark.parametrize(
    ("name", "watts", "plausible"),
    [
        ("Tesla T4", 69, True),
        ("Tesla T4", 90, True),  # above its limit for a moment
        ("Tesla T4", 400, False),
        ("NVIDIA H100 80GB HBM3", 400, True),
        ("NVIDIA H100 80GB HBM3", 1100, False),
        ("NVIDIA B200", 1100, True),
    ],
)
def test_power_that_a_board_cannot_draw_is_an_error(
    machine: SimulatedMachine, name: str, watts: float, plausible: bool
) -> None:
    device = read(machine, SimulatedGpu(name=name, power=watts, power_limit=watts))
    for family in ("gpu_power_watts", "gpu_power_limit_watts"):
        if plausible:
            assert values(device)[family] == watts
        else:
            assert absent(device)[family] == "error"
            assert family not in values(device)
    assert device.down is None


# ---- unified memory ---------------------------------------------------------------------------------------------


def gb10(**more: object) -> SimulatedGpu:
    gpu = SimulatedGpu(
        name="NVIDIA GB10", power=40, gpm=0, nvlinks=0, memory_used=60_000, pids=[11, 12],
        errors=dict.fromkeys((*MEMORY_CALLS, "nvmlDeviceGetEnforcedPowerLimit"), NOT_SUPPORTED),
    )  # fmt: skip
    for key, value in more.items():
        setattr(gpu, key, value)
    return gpu


def test_a_gpu_without_memory_of_its_own_has_the_machines(machine: SimulatedMachine) -> None:
    machine.set_host_memory(total_kib=120 * 1024**2, available_kib=50 * 1024**2)
    device = read(machine, gb10())
    assert device.identity.unified == "true"
    assert values(device)["gpu_memory_total_bytes"] == 120 * GIB
    assert values(device)["gpu_memory_used_bytes"] == 70 * GIB
    assert absent(device)["gpu_memory_reserved_bytes"] == "unsupported"
    assert device.processes == (GpuProcess(11, 30_000 * MIB), GpuProcess(12, 30_000 * MIB))


def test_its_memory_by_nvml_does_not_count(machine: SimulatedMachine) -> None:
    """Some drivers report all memory of the machine, none of it used (Syllo/nvtop#463)."""
    device = read(machine, gb10(errors={}, memory_total=122_000, memory_used=0))
    assert values(device)["gpu_memory_used_bytes"] == 32 * GIB


def test_the_use_is_read_each_time(machine: SimulatedMachine) -> None:
    read(machine, gb10())
    machine.set_host_memory(total_kib=128 * 1024**2, available_kib=1024**2)
    machine.wait(1)
    assert values(machine.driver.read()[0])["gpu_memory_used_bytes"] == 127 * GIB


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, AbsenceReason.UNSUPPORTED),
        ("", AbsenceReason.ERROR),
        ("MemTotal: 100 kB\n", AbsenceReason.ERROR),
        ("MemTotal: 100 kB\nMemAvailable: 101 kB\n", AbsenceReason.ERROR),
        ("MemTotal: 1e3 kB\nMemAvailable: 1 kB\n", AbsenceReason.ERROR),
    ],
)
def test_memory_of_a_machine_that_does_not_report_it(
    machine: SimulatedMachine, text: str | None, reason: AbsenceReason
) -> None:
    path = machine.paths.procfs / "meminfo"
    path.unlink()
    if text is not None:
        path.write_text(text)
    device = read(machine, gb10())
    assert device.down is None
    assert absent(device)["gpu_memory_total_bytes"] == absent(device)["gpu_memory_used_bytes"] == reason.value


def orin(machine: SimulatedMachine, **files: str) -> SimulatedGpu:
    """A Jetson: NVML knows hardly anything. `files` of devfreq, with the directories' slashes as double underscores."""
    (tegra,) = [platform for platform in PLATFORMS if platform.name == "tegra"]
    for device, node, contents in (("13e10000.dla", "nvdla0", {"cur_freq": "1"}), ("17000000.gpu", "ga10b", files)):
        folder = machine.paths.sysfs / "class/devfreq" / device
        written = {"device__of_node__name": f"{node}\0", **contents}
        for name, text in written.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return SimulatedGpu(name=tegra.gpu_name, errors=dict(tegra.refused), gpm=0, nvlinks=0)


def test_utilization_of_a_jetson_is_the_kernels(machine: SimulatedMachine) -> None:
    files = {"device__load": "640\n", "cur_freq": "612000000\n", "max_freq": "1300500000\n"}
    device = read(machine, orin(machine, **files))
    assert values(device)["gpu_utilization_ratio"] == 0.64
    assert values(device)["gpu_sm_clock_hertz"] == 612_000_000
    assert values(device)["gpu_sm_clock_max_hertz"] == 1_300_500_000
    for _ in range(10):  # between two readings, as uses_gauge says
        machine.time += 0.1
        machine.driver.sample()
    observed = values(machine.driver.read()[0])
    assert observed["gpu_busy_seconds_total"] == pytest.approx(0.64)
    assert observed["gpu_observed_seconds_total"] == pytest.approx(1)
    assert observed["gpu_busy_source_info", "gauge"] == 1


@pytest.mark.parametrize("load", [None, "", "1001", "-1", "busy", "N/A"])
def test_a_load_that_is_none_is_unsupported(machine: SimulatedMachine, load: str | None) -> None:
    device = read(machine, orin(machine, **({} if load is None else {"device__load": load})))
    assert device.down is None
    assert absent(device)["gpu_utilization_ratio"] == absent(device)["gpu_busy_seconds_total"] == "unsupported"
    assert "gpu_utilization_ratio" not in values(device)


def test_nvmls_utilization_comes_first(machine: SimulatedMachine) -> None:
    gpu = orin(machine, device__load="640", cur_freq="5")
    gpu.errors, gpu.level = {}, 20.0
    assert values(read(machine, gpu))["gpu_utilization_ratio"] == 0.2


def test_memory_of_the_cpu_is_not_held_by_the_gpu(machine: SimulatedMachine) -> None:
    """Idle time counts as held only if a process has a context."""
    for pids, held in (([], 0), ([5], 6)):
        machine.restart()
        read(machine, gb10(level=0, pids=pids))
        for _ in range(6):
            machine.wait(1)
            (device,) = machine.driver.read()
        assert values(device)["gpu_idle_held_seconds_total"] == pytest.approx(held, abs=0.2)
        machine.driver.close()


@pytest.mark.parametrize(
    ("gpu", "unified"),
    [
        (SimulatedGpu(name="NVIDIA GH200 480GB"), "true"),
        (SimulatedGpu(name="NVIDIA Grace Successor", addressing_mode=2), "true"),
        (SimulatedGpu(name="NVIDIA H100 80GB HBM3", addressing_mode=1), ""),  # HMM: by page faults, not by hardware
        (SimulatedGpu(name="NVIDIA H100 80GB HBM3"), ""),
    ],
)
def test_memory_of_its_own_is_reported_by_the_driver(
    machine: SimulatedMachine, gpu: SimulatedGpu, unified: str
) -> None:
    """Also of a Grace superchip, as in nvidia-smi."""
    gpu.memory_total, gpu.memory_used = 97_871, 500
    device = read(machine, gpu)
    assert device.identity.unified == unified
    assert values(device)["gpu_memory_total_bytes"] == 97_871 * MIB
    assert values(device)["gpu_memory_used_bytes"] == 500 * MIB


def test_kinds_of_memory() -> None:
    assert {kind: kind.unified for kind in MemoryKind} == {
        MemoryKind.OWN: "",
        MemoryKind.COHERENT: "true",
        MemoryKind.SHARED: "true",
    }
