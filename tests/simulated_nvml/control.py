"""Controls the simulated NVML: `Control` has the settings, `write()` applies them.

control = Control(tmp_path / "control", gpus=[Gpu(level=60), Gpu(lost=True)])
control.write()
...
control.gpus[1].lost = False
control.write()
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from gpu_exporter.devices.nvidia_drivers import DriverBranch

NOT_SUPPORTED = 3
NO_PERMISSION = 4
UNKNOWN = 999

ALL_ONES_32 = 0xFFFFFFFF
ALL_ONES_64 = 0xFFFFFFFFFFFFFFFF


@dataclass
class SimulatedMigInstance:
    """A MIG instance. `place` is its index in NVML's list, which may have gaps; None: the next."""

    profile: str | None = None
    uuid: str | None = None
    place: int | None = None
    gpu_instance: int | None = None
    placement: int | None = None  # first memory slice; None: the driver does not say
    compute_instance: int | None = None
    memory_total: int | None = None  # MiB
    memory_used: int | None = None  # MiB
    sm_activity: float | None = None  # percent of the instance
    processes: int | None = None  # made-up pids from 4100000 on
    pids: Sequence[int] = ()
    lists_others: int | None = None  # 1: its list has the processes of the whole GPU instance

    def settings(self) -> Iterator[str]:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = ",".join(map(str, value)) or None
            if value is not None:
                yield f"{item.name}={value}"


@dataclass
class SimulatedGpu:
    """One simulated GPU. None uses the default of the library, an H100 80GB with that load."""

    name: str | None = None
    uuid: str | None = None
    bus_id: str | None = None
    level: float | None = None  # percent of utilization while on
    period: float | None = None  # seconds of a square wave; None: always on
    duty: float | None = None  # share of the period that is on
    power: float | None = None  # watts
    power_limit: float | None = None  # watts
    temperature: float | None = None  # degrees Celsius
    memory_total: int | None = None  # MiB
    memory_reserved: int | None = None  # MiB
    memory_used: int | None = None  # MiB
    memory_activity: float | None = None  # percent
    encoder: float | None = None  # percent
    decoder: float | None = None  # percent
    sm_clock: float | None = None  # MHz
    sm_clock_max: float | None = None  # MHz
    memory_clock: float | None = None  # MHz
    fan: float | None = None  # percent; None: no fan
    pstate: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    rows_correctable: int | None = None
    rows_uncorrectable: int | None = None
    rows_pending: int | None = None
    rows_failed: int | None = None
    retired_single: int | None = None  # pages; None: rows are remapped instead
    retired_double: int | None = None
    retired_pending: int | None = None
    memory_temperature: float | None = None  # degrees Celsius; negative: no sensor
    pcie_sent: int | None = None  # bytes
    pcie_received: int | None = None
    pcie_bits: int | None = None  # of these counters: 64, or 32
    nvlink_sent: int | None = None  # bytes, counted in KiB
    nvlink_received: int | None = None
    nvlinks: int | None = None
    nvlinks_inactive: int | None = None
    nvlink_crc_flit: int | None = None
    nvlink_crc_data: int | None = None
    nvlink_replay: int | None = None
    nvlink_recovery: int | None = None
    throttled_power: float | None = None  # seconds
    throttled_boost: float | None = None
    throttled_sw_thermal: float | None = None
    throttled_hw_thermal: float | None = None
    throttled_brake: float | None = None
    gpm: int | None = None  # 0: older than Hopper
    sm_activity: float | None = None  # percent while on, through GPM, as the next six
    sm_occupancy: float | None = None
    tensor: float | None = None
    dram: float | None = None
    fp64: float | None = None
    fp32: float | None = None
    fp16: float | None = None
    pcie_rate: float | None = None  # bytes a second while on, each way, through GPM
    nvlink_rate: float | None = None
    addressing_mode: int | None = None  # 1: HMM, 2: ATS, as on Grace
    throttle: int | None = None  # bit mask, as NVML has it
    processes: int | None = None  # made-up pids from 4100000 on
    delay_us: float | None = None  # CPU time of each call
    lost: bool = False  # fell off the bus; once reported, only a new session can reopen it
    missing: bool = False  # not in the enumeration
    mig: bool = False
    dry_when_idle: bool = False  # samples of 0 % are not kept, as on some GPUs
    pids: Sequence[int] = ()  # real pids, at most 64
    mps_pids: Sequence[int] = ()  # clients of the multi-process service, whose server is in pids
    errors: Mapping[str, int] = field(default_factory=dict)  # NVML function -> error code
    raw: Mapping[str, int] = field(default_factory=dict)  # NVML function -> the number it returns instead
    hang: Mapping[str, float] = field(default_factory=dict)  # NVML function -> seconds that it sleeps
    texts: Mapping[str, bytes] = field(default_factory=dict)  # NVML function -> the bytes that it returns instead
    counts: Mapping[str, int] = field(default_factory=dict)  # NVML function -> the length of the list that it returns
    chances: Mapping[str, int] = field(default_factory=dict)  # NVML function -> percent of calls with a fault
    instances: Sequence[SimulatedMigInstance] = ()  # while mig is on

    def settings(self) -> Iterator[str]:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or value is False or item.name == "instances":
                continue
            if isinstance(value, Mapping):
                prefix = item.name.removesuffix("s")
                for function, answer in value.items():
                    yield f"{prefix}.{function}={answer.hex() if isinstance(answer, bytes) else answer}"
            elif isinstance(value, str):
                yield f"{item.name}={value.replace(' ', '_')}"
            elif isinstance(value, Sequence):
                if value:
                    yield f"{item.name}={','.join(map(str, value))}"
            else:
                yield f"{item.name}={int(value) if isinstance(value, bool) else value}"


_STAMPS = itertools.count(time.time_ns())


@dataclass
class Control:
    """The control file. `now` freezes the simulated clock (Unix time); None lets it run."""

    path: Path
    gpus: list[SimulatedGpu] = field(default_factory=list)
    driver: str = "590.48.01"
    loaded: bool = True
    loads: int = 1  # raise it to reload the driver: open sessions die
    now: float | None = None
    clock_offset: float = 0.0  # seconds: a step of the wall clock, visible in sample timestamps
    delay_us: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)  # for functions that have no GPU
    hang: Mapping[str, float] = field(default_factory=dict)  # the same -> seconds that they sleep
    raw: Mapping[str, int] = field(default_factory=dict)  # the same -> the number that they return instead
    texts: Mapping[str, bytes] = field(default_factory=dict)  # the same -> the bytes that they return instead
    entry_bytes: Mapping[str, int] = field(default_factory=dict)  # the same -> size of the entries of its list
    branch: DriverBranch | None = None  # None: a driver that has everything
    seed: int | None = None  # of the chances
    xids: list[tuple[int, int]] = field(default_factory=list)  # (GPU, code) of each event so far: append to it

    def text(self) -> str:
        lines = [
            f"driver {self.driver}",
            f"gpus {len(self.gpus)}",
            f"loaded {int(self.loaded)}",
            f"loads {self.loads}",
            f"clock_offset {self.clock_offset}",
            f"delay_us {self.delay_us}",
        ]
        if self.now is not None:
            lines.append(f"now {self.now:.6f}")
        lines += [f"error {function} {code}" for function, code in self.errors.items()]
        lines += [f"hang {function} {seconds}" for function, seconds in self.hang.items()]
        lines += [f"raw {function} {number}" for function, number in self.raw.items()]
        lines += [f"text {function} {answer.hex()}" for function, answer in self.texts.items()]
        lines += [f"seed {self.seed}"] if self.seed is not None else []
        if self.branch is not None:
            lines += [f"fields {self.branch.fields}", *(f"missing {name}" for name in sorted(self.branch.missing))]
            lines += [f"entry_bytes {name} {size}" for name, size in self.branch.entry_bytes.items()]
        lines += [f"entry_bytes {name} {size}" for name, size in self.entry_bytes.items()]
        lines += [f"gpu {index} {' '.join(gpu.settings())}" for index, gpu in enumerate(self.gpus)]
        lines += [
            f"slice {index} {' '.join(instance.settings())}"
            for index, gpu in enumerate(self.gpus)
            for instance in gpu.instances
        ]
        lines += [f"xid {gpu} {code}" for gpu, code in self.xids]
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        """Apply the settings. Replaces the file atomically: the library never reads half of it."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(self.text(), encoding="utf-8")
        stamp = next(_STAMPS)  # inodes are reused and the kernel's clock ticks in milliseconds: make each file differ
        os.utime(temporary, ns=(stamp, stamp))
        os.replace(temporary, self.path)
