"""Lists that NVML fills: growing buffers and errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_exporter.devices.nvidia_buffers import ComputeProcesses, ProcessList, UtilizationBuffer
from gpu_exporter.devices.nvidia_drivers import (
    MPS_PROCESS_ENTRY_BYTES,
    PROCESS_ENTRY_BYTES,
    PROCESSES_V2,
    PROCESSES_V3,
    branch_of,
    process_functions,
)
from gpu_exporter.devices.nvml import NvmlSession, NvmlValueError
from gpu_exporter.snapshot import AbsenceReason

from tests.simulated_nvml.control import NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, SimulatedGpu
from tests.unit.devices.conftest import SimulatedMachine

FUNCTIONS = process_functions((590,))


@pytest.fixture
def nvml(machine: SimulatedMachine) -> Iterator[NvmlSession]:
    machine.control.gpus = [SimulatedGpu(level=35, pids=[1, 2, 3], memory_used=300)]
    machine.write()
    session = NvmlSession()
    yield session
    session.close()


def handle(nvml: NvmlSession) -> object:
    return nvml.call("nvmlDeviceGetHandleByIndex", 0)


def test_samples_match_pynvml(nvml: NvmlSession) -> None:
    buffer = UtilizationBuffer(nvml, handle(nvml))
    _, theirs = nvml.call("nvmlDeviceGetSamples", handle(nvml), 1, 0)
    ours = buffer.read_since(0)
    assert ours == [(sample.timeStamp, float(sample.sampleValue.uiVal)) for sample in theirs]
    assert len(ours or ()) == 100
    assert buffer.read_since(ours[-4][0]) == ours[-3:]
    assert buffer.read_since(ours[-1][0]) == []


def test_buffer_grows(nvml: NvmlSession) -> None:
    buffer = UtilizationBuffer(nvml, handle(nvml))
    buffer._list._allocate(10)
    assert len(buffer.read_since(0) or ()) == 100


def test_processes_match_pynvml(nvml: NvmlSession, machine: SimulatedMachine) -> None:
    processes = ProcessList(nvml, handle(nvml), FUNCTIONS)
    for count in (0, 3, 31, 33, 2000, 1):
        machine.control.gpus = [SimulatedGpu(processes=count, memory_used=count * 2)]
        machine.write()
        nvml.call("nvmlDeviceGetCount")  # the library looks at its file
        theirs = nvml.call("nvmlDeviceGetComputeRunningProcesses", handle(nvml))
        assert [(p.pid, p.used_bytes) for p in processes.read()] == [(p.pid, p.usedGpuMemory) for p in theirs]


def test_same_number_of_other_processes(nvml: NvmlSession, machine: SimulatedMachine) -> None:
    processes = ProcessList(nvml, handle(nvml), FUNCTIONS)
    assert [process.pid for process in processes.read()] == [1, 2, 3]
    machine.control.gpus = [SimulatedGpu(pids=[1, 7, 3], memory_used=300)]
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    assert [process.pid for process in processes.read()] == [1, 7, 3]


@pytest.mark.parametrize(
    ("sizes", "pids"),
    [
        ({}, [1, 2, 3]),
        ({PROCESSES_V3: 32}, [1, 2, 3]),
        ({PROCESSES_V3: 16}, [1, 2, 3]),
        ({PROCESSES_V3: 40}, None),  # a size that no driver has had
    ],
)
def test_size_of_entries_is_measured(
    nvml: NvmlSession, machine: SimulatedMachine, sizes: dict[str, int], pids: list[int] | None
) -> None:
    machine.control.entry_bytes = sizes
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    processes = ProcessList(nvml, handle(nvml), FUNCTIONS)
    if pids is None:
        with pytest.raises(NvmlValueError) as refusal:
            processes.read()
        assert refusal.value.reason is AbsenceReason.ERROR
    else:
        assert [process.pid for process in processes.read()] == pids


@pytest.mark.parametrize("count", [1, 33, 2**31, 2**32 - 1])
def test_a_wrong_number_of_processes_is_an_error(nvml: NvmlSession, machine: SimulatedMachine, count: int) -> None:
    machine.control.gpus[0].counts = dict.fromkeys(PROCESS_ENTRY_BYTES, count)
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    with pytest.raises(NvmlValueError):
        ProcessList(nvml, handle(nvml), FUNCTIONS).read()


def test_where_entries_are_longer_than_declared_another_function_comes_first() -> None:
    """And where the version is unknown: it may be such a driver."""
    for version, first in (
        ((535, 54), PROCESSES_V2),
        ((535, 104), PROCESSES_V3),
        ((), PROCESSES_V2),
        ((450,), PROCESSES_V2),
    ):
        assert process_functions(version)[0].name == first
    assert (PROCESSES_V3, 32) in process_functions((535, 86, 10))


def test_memory_above_the_gpus_own_is_unknown(nvml: NvmlSession) -> None:
    assert ProcessList(nvml, handle(nvml), FUNCTIONS).read(max_bytes=1000)[0].used_bytes is None


def test_unknown_memory_is_none(nvml: NvmlSession, machine: SimulatedMachine) -> None:
    machine.control.gpus = [SimulatedGpu(pids=[9], raw={"nvmlDeviceGetComputeRunningProcesses_v3": 2**64 - 1})]
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    assert ProcessList(nvml, handle(nvml), FUNCTIONS).read() == ((9, None),)


@pytest.mark.parametrize(
    ("code", "reason"), [(NO_PERMISSION, AbsenceReason.NO_PERMISSION), (UNKNOWN, AbsenceReason.ERROR)]
)
def test_error_codes(nvml: NvmlSession, machine: SimulatedMachine, code: int, reason: AbsenceReason) -> None:
    machine.control.gpus = [
        SimulatedGpu(errors={"nvmlDeviceGetComputeRunningProcesses_v3": code, "nvmlDeviceGetSamples": code})
    ]
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    with pytest.raises(NvmlValueError) as refusal:
        ProcessList(nvml, handle(nvml), FUNCTIONS).read()
    assert refusal.value.reason is reason
    assert UtilizationBuffer(nvml, handle(nvml)).read_since(0) is None


def test_lost_gpu(nvml: NvmlSession, machine: SimulatedMachine) -> None:
    found = handle(nvml)
    machine.control.gpus[0].lost = True
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    with pytest.raises(NvmlValueError):
        ProcessList(nvml, found, FUNCTIONS).read()
    assert UtilizationBuffer(nvml, found).read_since(0) is None


@pytest.mark.parametrize("version", [(470,), (535, 54), (535, 98), (590,), ()])
def test_clients_of_the_multi_process_service_are_listed_beside_their_server(
    nvml: NvmlSession, machine: SimulatedMachine, version: tuple[int, ...]
) -> None:
    """NVML has a list of their own for them; nvtop shows both (Syllo/nvtop#93)."""
    machine.control.gpus = [SimulatedGpu(pids=[7], mps_pids=[8, 9, 7])]
    branch = branch_of(version)
    machine.control.entry_bytes = dict(branch.entry_bytes) if branch else {}
    machine.write()
    nvml.call("nvmlDeviceGetCount")  # the library looks at its file
    processes = ComputeProcesses(nvml, handle(nvml), version)
    assert [process.pid for process in processes.read()] == [7, 8, 9]
    assert processes.read()[1].used_bytes == 64 * 2**20


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
def test_a_failing_list_of_clients_hides_no_other_process(
    nvml: NvmlSession, machine: SimulatedMachine, code: int
) -> None:
    errors = dict.fromkeys(MPS_PROCESS_ENTRY_BYTES, code)
    machine.control.gpus = [SimulatedGpu(pids=[7], mps_pids=[8], errors=errors)]
    machine.write()
    nvml.call("nvmlDeviceGetCount")
    assert [process.pid for process in ComputeProcesses(nvml, handle(nvml), (590,)).read()] == [7]
