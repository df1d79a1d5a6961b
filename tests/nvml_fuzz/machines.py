"""Random machines, and random faults of their driver. A machine lasts for an episode, its faults for a step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulated_nvml.control import SimulatedGpu, SimulatedMigInstance

ERROR_CODES = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    999,
    12345,
)
REFUSING_CODES = frozenset({3, 4, 13, 22, 25, 26})
LOST_CODES = frozenset({1, 9, 15, 16, 28})
GARBAGE = (
    0, 1, 2, 15, 32, 50, 99, 100, 101, 255, 1000, 7000, 20_000, 1_000_000, 5_000_000, 2**31, 2**32 - 2, 2**32 - 1,
    2**40, 2**53 + 2, 2**63, 2**64 - 1,
)  # fmt: skip
LENGTHS = (0, 1, 5, 33, 4097, 65_537, 2**31, 2**32 - 1)
ENTRY_BYTES = (8, 16, 24, 32, 40)
"""No more than twice what the header declares: for a driver that writes more there is no remedy."""

PROCESSES_V3 = "nvmlDeviceGetComputeRunningProcesses_v3"
PROCESSES_V2 = "nvmlDeviceGetComputeRunningProcesses_v2"
PROCESSES_V1 = "nvmlDeviceGetComputeRunningProcesses"
PROCESS_FUNCTIONS = (PROCESSES_V3, PROCESSES_V2, PROCESSES_V1)
MPS_FUNCTIONS = tuple(name.replace("GetCompute", "GetMPSCompute") for name in PROCESS_FUNCTIONS)
LIST_FUNCTIONS = (*PROCESS_FUNCTIONS, *MPS_FUNCTIONS)
MEMORY_FUNCTIONS = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")
REASON_FUNCTIONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
LIVE_FUNCTIONS = (
    "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetFanSpeed", "nvmlDeviceGetPerformanceState", "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetPcieReplayCounter", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows",
)  # fmt: skip
OTHER_FUNCTIONS = (
    "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetSamples", "nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleGet", "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet", "nvmlDeviceRegisterEvents", "nvmlDeviceGetAttributes_v2",
)  # fmt: skip
UUID, ADDRESS = "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"
IDENTITY_FUNCTIONS = ("nvmlDeviceGetName", UUID, ADDRESS)
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
SYSTEM_FUNCTIONS = ("nvmlDeviceGetCount_v2", "nvmlSystemGetDriverVersion", "nvmlGpmSampleAlloc", "nvmlEventSetWait_v2")
FIELDS = (29, 30, 31, 38, 45, 52, 59, 74, 75, 76, 77, 79, 82, 91, 138, 139, 165, 197, 198, 251, 252, 253, 269, 270, 271)
GPM_METRICS = (1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 60, 61)

GPU_FUNCTIONS: Sequence[str] = (
    *LIVE_FUNCTIONS, *OTHER_FUNCTIONS, *MEMORY_FUNCTIONS, *REASON_FUNCTIONS, *LIST_FUNCTIONS, *IDENTITY_FUNCTIONS,
    HANDLE, *(f"field{number}" for number in FIELDS), *(f"gpm{number}" for number in GPM_METRICS),
)  # fmt: skip
"""What a rule of a GPU can apply to."""


def random_gpu(random_: random.Random, index: int) -> SimulatedGpu:
    """A GPU whose values are those of no other GPU of the machine."""
    gpu = SimulatedGpu(
        uuid=f"GPU-{index}a1b2c3d-0000-4000-8000-{random_.getrandbits(48):012x}", level=7 + 11 * index,
        power=101 + 13 * index, power_limit=650 + index, temperature=31 + 3 * index, memory_total=81559 + index,
        memory_reserved=479 + index, memory_used=20_000 + 1000 * index, memory_activity=3 + 5 * index,
        encoder=2 + index, decoder=12 + index, sm_clock=1200 + 7 * index, sm_clock_max=1900 + 7 * index,
        memory_clock=2500 + 7 * index, fan=20 + index, pstate=index, pcie_generation=1 + index % 6,
        pcie_width=4 + index, pcie_replays=40 + index, ecc_corrected=70 + index, ecc_uncorrected=80 + index,
        rows_correctable=10 + index, rows_uncorrectable=20 + index, rows_pending=index % 2, rows_failed=(index + 1) % 2,
        memory_temperature=60 + index, pcie_sent=10**9 + index, pcie_received=2 * 10**9 + index,
        nvlink_sent=(3 + index) * 2**30, nvlink_received=(4 + index) * 2**30, nvlinks=10 + index,
        nvlinks_inactive=index, nvlink_crc_flit=100 + index, nvlink_crc_data=110 + index, nvlink_replay=120 + index,
        nvlink_recovery=130 + index, throttled_power=200 + index, throttled_boost=210 + index,
        throttled_sw_thermal=220 + index, throttled_hw_thermal=230 + index, throttled_brake=240 + index,
        gpm=random_.random() < 0.8, sm_activity=40 + index, sm_occupancy=30 + index, tensor=20 + index, dram=10 + index,
        fp64=1 + index, fp32=50 + index, fp16=60 + index, throttle=[0, 4, 8, 0x44, 0x82, 0x1FE][index % 6],
        pids=[1000 * (index + 1) + n for n in range(random_.choice((0, 1, 3, 30, 60)))],
        mps_pids=[1000 * (index + 1) + 500 + n for n in range(random_.choice((0, 0, 1, 40)))],
    )  # fmt: skip
    if random_.random() < 0.3:
        gpu.mig, gpu.instances = True, _mig_instances(index)
    return gpu


def _mig_instances(index: int) -> list[SimulatedMigInstance]:
    """Two compute instances of one GPU instance, and another GPU instance."""
    pid = 500_000 + 1000 * index
    return [
        SimulatedMigInstance(
            "1c.3g.40gb", uuid=f"MIG-{index}-a", place=0, gpu_instance=2, compute_instance=0, memory_total=40_448,
            memory_used=600 + index, sm_activity=75, pids=[pid]
        ),
        SimulatedMigInstance(
            "2c.3g.40gb", uuid=f"MIG-{index}-b", place=1, gpu_instance=2, compute_instance=1, memory_total=40_448,
            memory_used=600 + index, sm_activity=75, pids=[pid + 1, pid + 2]
        ),
        SimulatedMigInstance(
            "1g.10gb", uuid=f"MIG-{index}-c", place=4, gpu_instance=9, compute_instance=0, memory_total=9984,
            memory_used=300 + index, sm_activity=10, pids=[pid + 3]
        ),
    ]  # fmt: skip


@dataclass
class Faults:
    """The faults of one step. Keys of `gpus` are the indices of GPUs; `hang` is a GPU and a function, or None."""

    gpus: dict[int, SimulatedGpu] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    raw: dict[str, int] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    entry_bytes: dict[str, int] = field(default_factory=dict)
    loaded: bool = True
    reload: bool = False
    hang: tuple[int, str] | None = None
    count: int = 0


def random_faults(random_: random.Random, gpus: Sequence[SimulatedGpu]) -> Faults:
    """None in a fifth of the steps, else from one to a hundred."""
    faults = Faults()
    if random_.random() < 0.2:
        return faults
    for _ in range(min(100, int(random_.expovariate(0.12)) + 1)):
        kind = random_.choices(list(_KINDS), list(_WEIGHTS))[0]
        _KINDS[kind](random_, gpus, faults)
        faults.count += 1
    return faults


def _faulty(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> SimulatedGpu:
    """A GPU to have a fault: its copy in `faults`."""
    index = random_.randrange(len(gpus))
    if index not in faults.gpus:
        faults.gpus[index] = replace(gpus[index], errors={}, raw={}, texts={}, counts={}, chances={}, hang={})
    return faults.gpus[index]


def _function(random_: random.Random) -> str:
    return random_.choice(GPU_FUNCTIONS)


def _set(mapping: Any, key: str, value: object) -> None:
    mapping[key] = value


def _error(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    gpu, function = _faulty(random_, gpus, faults), _function(random_)
    _set(gpu.errors, function, random_.choice(ERROR_CODES))
    if random_.random() < 0.3 and not function.startswith(("field", "gpm")):
        _set(gpu.chances, function, random_.randint(1, 99))


def _garbage(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    number = random_.choice(GARBAGE) if random_.random() < 0.8 else random_.getrandbits(random_.randint(1, 64))
    _set(_faulty(random_, gpus, faults).raw, _function(random_), number)


def _text(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    _set(_faulty(random_, gpus, faults).texts, random_.choice(IDENTITY_FUNCTIONS), random_bytes(random_))


def random_bytes(random_: random.Random) -> bytes:
    """Bytes that are no text, or a text that is no uuid, address or version."""
    if random_.random() < 0.3:
        return random_.choice((b"", b"N/A", b"GPU-00000000-0000-0000-0000-000000000000", b'GPU-"\\\n{}', b"535.54.03"))
    return bytes(random_.randrange(1, 256) for _ in range(random_.randint(1, 100)))


def _length(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    function = random_.choice((*LIST_FUNCTIONS, "nvmlDeviceGetSamples"))
    _set(_faulty(random_, gpus, faults).counts, function, random_.choice(LENGTHS))


def _entry_bytes(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    function = random_.choice(LIST_FUNCTIONS)
    sizes = [size for size in ENTRY_BYTES if size <= (40 if function.endswith(("_v2", "_v3")) else 32)]
    faults.entry_bytes[function] = random_.choice(sizes)


def _many_errors(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    gpu, code = _faulty(random_, gpus, faults), random_.choice(ERROR_CODES)
    for function in random_.sample(GPU_FUNCTIONS, random_.randint(5, len(GPU_FUNCTIONS))):
        _set(gpu.errors, function, code)


def _lost(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    _faulty(random_, gpus, faults).lost = True


def _system(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    function = random_.choice((*SYSTEM_FUNCTIONS, *SYSTEM_FUNCTIONS, "nvmlInitWithFlags"))
    if function == "nvmlSystemGetDriverVersion" and random_.random() < 0.5:
        faults.texts[function] = random_bytes(random_)
    elif function == "nvmlDeviceGetCount_v2" and random_.random() < 0.5:
        faults.raw[function] = random_.choice(GARBAGE)
    else:
        faults.errors[function] = random_.choice(ERROR_CODES)


def _reload(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    faults.loaded, faults.reload = random_.random() < 0.5, True


def _hang(random_: random.Random, gpus: Sequence[SimulatedGpu], faults: Faults) -> None:
    faults.hang = (random_.randrange(len(gpus)), random_.choice((*LIVE_FUNCTIONS, *LIST_FUNCTIONS)))


_Kind = Callable[[random.Random, Sequence[SimulatedGpu], Faults], None]
_KINDS: dict[str, _Kind] = {
    "error": _error, "garbage": _garbage, "text": _text, "length": _length, "entry size": _entry_bytes,
    "many errors": _many_errors, "lost": _lost, "system": _system, "reload": _reload, "hang": _hang,
}  # fmt: skip
_WEIGHTS = (40, 30, 4, 4, 2, 2, 1, 2, 0.5, 0.3)


def kinds() -> Iterator[str]:
    """The kinds of faults."""
    yield from _KINDS
