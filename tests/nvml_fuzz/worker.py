"""Plays episodes: a random machine, steps with random faults, at the end a driver without any. Reports what is false.

A crash of this process is a finding as well: __main__ runs it, and names the seed of the episode.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pynvml
from gpu_exporter.devices import nvidia_xid
from gpu_exporter.devices.base import DriverSettings
from gpu_exporter.devices.nvidia import LOST_GPU_RETRY_SECONDS, NvidiaDriver
from gpu_exporter.devices.nvidia_drivers import BRANCHES, DriverBranch
from gpu_exporter.devices.nvidia_xid import XidListener
from gpu_exporter.sampling.drivers import DeviceCache, DriverTask
from gpu_exporter.snapshot import DeviceReading
from prometheus_client.parser import text_string_to_metric_families

from tests.nvml_fuzz import oracle
from tests.nvml_fuzz.machines import (
    LIST_FUNCTIONS,
    MEMORY_FUNCTIONS,
    REASON_FUNCTIONS,
    Faults,
    random_faults,
    random_gpu,
)
from tests.nvml_fuzz.oracle import MIB, Key
from tests.simulated_nvml.build import CONTROL_VARIABLE, build, compile_source
from tests.simulated_nvml.control import Control, SimulatedGpu, SimulatedMigInstance

HANG_SECONDS, TIMEOUT_SECONDS = 0.3, 0.05
RECOVERY_READINGS = 3
"""A lost GPU comes back at the second reading after the session has become old."""
LISTENER_STOP_SECONDS = 60.0
"""The clock of a machine stands while the listener for Xids ends, however late a busy computer lets it run. If it were
given up, its dead session would keep the driver's as well, as NVML has one for all of a process."""
START = 1_700_000_000.0
MPS_CLIENT_BYTES = 64 * 2**20
"""Of each client, in the simulated library."""

Rows = dict[str, dict[tuple[tuple[str, str], ...], float]]


class FalsePageError(Exception):
    """The page has what it must not have."""


@dataclass
class Figures:
    """What was played and checked."""

    episodes: int = 0
    readings: int = 0
    faults: int = 0
    samples: int = 0
    down: int = 0
    hangs: int = 0
    branches: Counter[str] = field(default_factory=Counter)


class Libraries:
    """The simulated driver, once as each branch has it, once with every symbol."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compiled = compile_source(folder)
        self._built: dict[str, Path] = {}

    def use(self, branch: DriverBranch, with_all_symbols: bool) -> None:
        """Let pynvml and the listener for Xids load this one: what is missing then returns FUNCTION_NOT_FOUND."""
        name = "all" if with_all_symbols else branch.name
        if name not in self._built:
            missing = frozenset() if with_all_symbols else branch.missing
            self._built[name] = build(self._folder / name, missing, self._compiled)
        path = str(self._built[name])

        def load(_: str) -> ctypes.CDLL:
            return ctypes.CDLL(path)

        for module in (pynvml, nvidia_xid):
            vars(module)["CDLL"] = load


class Episode:
    """One machine with its exporter."""

    def __init__(self, seed: int, folder: Path, libraries: Libraries, figures: Figures) -> None:
        self.random = random.Random(seed)
        self.figures = figures
        self.branch = self.random.choice(BRANCHES)
        libraries.use(self.branch, self.random.random() < 0.5)
        self.gpus = [random_gpu(self.random, index) for index in range(self.random.randint(1, 5))]
        version = ".".join(f"{part:02.0f}" for part in (*self.branch.since, 3)[:3])
        self.control = Control(folder / f"control-{seed}", self.gpus, driver=version, branch=self.branch, seed=seed)
        self.now = START
        self.xids: Counter[tuple[int, int]] = Counter()
        self.history = oracle.History()
        self.trouble = dict.fromkeys(range(len(self.gpus)), False)
        self.closed_at = dict.fromkeys(range(len(self.gpus)), -math.inf)
        self.late = dict.fromkeys(range(len(self.gpus)), RECOVERY_READINGS)
        self.seen: set[int] = set()
        self.log: list[str] = []
        os.environ[CONTROL_VARIABLE] = str(self.control.path)
        cache = DeviceCache("node")
        listener = XidListener(poll_seconds=0.005, retry_seconds=0.005, wall=lambda: self.now)
        settings = DriverSettings(folder / "sys", folder / "proc")
        self.driver = NvidiaDriver(clock=lambda: self.now, wall=lambda: self.now, xids=listener, settings=settings)
        self.cache = cache
        self.task = DriverTask("nvidia", self.driver, cache, 1.0, TIMEOUT_SECONDS)

    def play(self, steps: int) -> None:
        """Raises FalsePageError."""
        try:
            for _ in range(steps):
                self.step(random_faults(self.random, self.gpus))
            for _ in range(RECOVERY_READINGS + 1):
                self.step(Faults(), LOST_GPU_RETRY_SECONDS + 1)
            self.check_recovered()
        finally:
            self.driver.close()

    def step(self, faults: Faults, seconds: float | None = None) -> None:
        """One reading with these faults."""
        self.now += self.random.choice((0.05, 0.5, 1, 1, 1, 2, 6)) if seconds is None else seconds
        self.figures.readings += 1
        self.figures.faults += faults.count
        self._apply(faults)
        self._note_trouble(faults)
        self.log.append(f"{self.now - START:8.2f} s: {describe(faults)}")
        if faults.hang:
            self._read_hanging(*faults.hang)
        else:
            self.task.collect_once()
        if not self.task.health.success:
            raise FalsePageError(f"the collector failed: {self.task._last_error}")
        page = self.cache.page(frozenset())
        self._check(parse(page, thoroughly=self.figures.readings % 20 == 0), faults)
        for device in self.cache.devices():
            self._check_processes(device, faults)

    def _apply(self, faults: Faults) -> None:
        control = self.control
        control.gpus = [faults.gpus.get(index, gpu) for index, gpu in enumerate(self.gpus)]
        control.errors, control.raw, control.texts = faults.errors, faults.raw, faults.texts
        control.entry_bytes, control.loaded = faults.entry_bytes, faults.loaded
        control.loads += faults.reload
        if self.random.random() < 0.1:
            event = self.random.randrange(len(self.gpus)), self.random.choice((0, 13, 31, 79, 5000, 123_456))
            control.xids.append(event)
            self.xids[event] += 1
        control.now = self.now
        control.write()

    def _note_trouble(self, faults: Faults) -> None:
        """Remember which GPUs have a reason to be down: only now, or until they are opened again."""
        system = faults.reload or not faults.loaded or faults.hang is not None
        system |= bool({"nvmlInitWithFlags", "nvmlDeviceGetCount_v2"} & {*faults.errors, *faults.raw})
        for index, gpu in enumerate(self.gpus):
            played = faults.gpus.get(index, gpu)
            self.trouble[index] = (
                system or oracle.cannot_be_opened(played) or oracle.may_be_down(played, self.branch.missing)
            )
            if oracle.stays_closed(played):
                self.closed_at[index], self.late[index] = self.now, 0
            elif self.now - self.closed_at[index] > LOST_GPU_RETRY_SECONDS:
                self.late[index] += 1

    def _read_hanging(self, index: int, function: str) -> None:
        gpu = self.control.gpus[index] = replace(self.control.gpus[index], hang={function: HANG_SECONDS})
        self.control.write()
        thread = threading.Thread(target=self.task.collect_once, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
            overdue = self.task.is_overdue()
            parse(self.cache.page(frozenset({"nvidia"} if overdue else ())))
            self.figures.hangs += overdue
        if thread.is_alive():
            raise FalsePageError(f"a call that hangs for {HANG_SECONDS} s ({function}) does not return")
        gpu.hang = {}
        self.control.write()

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check(self, rows: Rows, faults: Faults) -> None:
        owners = {dict(labels)["uuid"]: dict(labels) for labels in rows.get("gpu_info", {})}
        if len(owners) != len(rows.get("gpu_info", {})):
            raise FalsePageError(f"one uuid twice in {list(rows['gpu_info'])}")
        up = {dict(labels)["uuid"]: value for labels, value in rows.get("gpu_up", {}).items()}
        self._check_up(owners, up)
        true_uuids = {gpu.uuid: index for index, gpu in enumerate(self.gpus)}
        for uuid, labels in owners.items():
            index, _, place = labels["index"].partition(":")
            if not place and true_uuids.get(uuid, int(index)) != int(index):
                raise FalsePageError(f"GPU {index} has the uuid of another: {uuid}")
        for name, family in rows.items():
            for row, value in family.items():
                self.figures.samples += 1
                row_labels = dict(row)
                owner = owners.get(row_labels.get("uuid", ""))
                if owner is None or name in ("gpu_info", "gpu_up", "gpu_down_info", "gpu_family_absent_info"):
                    continue
                if up.get(owner["uuid"]) != 1:
                    raise FalsePageError(f"{name} of a GPU that is down: {row_labels}")
                further = tuple(text for key, text in row_labels.items() if key != "uuid")
                self._check_value((name, *further), value, owner, faults)

    def _check_up(self, owners: dict[str, dict[str, str]], up: dict[str, float]) -> None:
        states: dict[int, list[float | None]] = {}
        for uuid, labels in owners.items():
            if not labels["parent_uuid"]:
                states.setdefault(int(labels["index"]), []).append(up.get(uuid))
        for index in range(len(self.gpus)):
            found = states.get(index, [])
            self.figures.down += 1 not in found
            if found:
                self.seen.add(index)
            excused = self.trouble[index] or self.late[index] < RECOVERY_READINGS
            if index in self.seen and 1 not in found and not excused:
                raise FalsePageError(f"GPU {index} is down without a reason: {found}")

    def _check_value(self, key: Key, value: float, owner: dict[str, str], faults: Faults) -> None:
        number, _, place = owner["index"].partition(":")
        index = int(number)
        gpu = self.gpus[index]
        played = faults.gpus.get(index, gpu)
        name = key[0]
        if name.startswith("gpu_xid"):
            self._check_xid(key, value, index)
        elif place:
            self._check_instance(key, value, owner, played)
        elif name in ("gpu_memory_used_bytes", "gpu_memory_reserved_bytes"):
            self._among(key, value, _memory(name, gpu, played, self.branch), index, 0)
        elif name == "gpu_throttle_active":
            self._among(key, value, _reasons(key[1], gpu, played, self.branch), index, 0)
        elif key in oracle.QUANTITIES:
            quantity = oracle.QUANTITIES[key]
            allowed = oracle.answers(quantity, gpu, played, self.branch.missing)
            if quantity.functions[0].startswith("field") and oracle.FIELD in played.errors:
                allowed = allowed if oracle.FIELD in played.chances else set()
            self._among(key, value, allowed or set(), index, quantity.cached)
        elif key in oracle.GPM_QUANTITIES:
            self._among(key, value, _activity(key, gpu, played), index, 0.2)
        elif not 0 <= value <= oracle.BOUNDS.get(name, 2**63):
            raise FalsePageError(f"{key} of GPU {index} is {value}")

    def _among(self, key: Key, value: float, allowed: set[float], index: int, cached: float) -> None:
        former = set(self.history.allowed(index, key, self.now, cached)) if cached else set()
        if not oracle.is_among(value, allowed | former):
            raise FalsePageError(f"{key} of GPU {index} is {value!r}, not one of {sorted(allowed | former)}")
        if cached:
            self.history.add(index, key, self.now, allowed)

    def _check_xid(self, key: Key, value: float, index: int) -> None:
        if key[0] == "gpu_xid_errors_total" and value > self.xids[index, int(key[1])]:
            raise FalsePageError(f"{value} times Xid {key[1]} of GPU {index}, {self.xids} were reported")

    def _check_instance(self, key: Key, value: float, owner: dict[str, str], played: SimulatedGpu) -> None:
        instance = self._instance(owner)
        if instance is None:
            raise FalsePageError(f"no such MIG instance: {owner}")
        name, total = key[0], (instance.memory_total or 0) * MIB
        expected = {"gpu_memory_total_bytes": total, "gpu_memory_used_bytes": (instance.memory_used or 0) * MIB}
        if name in expected and value != expected[name]:
            raise FalsePageError(f"{name} of {owner} is {value}, not {expected[name]}")
        if name.endswith("_ratio") and not 0 <= value <= 1:
            raise FalsePageError(f"{name} of {owner} is {value}")
        if name == "gpu_processes" and value > len(instance.pids):
            raise FalsePageError(f"{value} processes on {owner}, there are {len(instance.pids)}")
        if (
            played.errors.get("nvmlDeviceGetMemoryInfo_v2")
            and played.errors.get("nvmlDeviceGetMemoryInfo")
            and (name.startswith("gpu_memory") and not played.chances)
        ):
            raise FalsePageError(f"{name} of {owner} after an error")

    def _instance(self, owner: dict[str, str]) -> SimulatedMigInstance | None:
        number, _, place = owner["index"].partition(":")
        instances = self.gpus[int(number)].instances
        return next((instance for instance in instances if str(instance.place) == place), None)

    def _check_processes(self, device: DeviceReading, faults: Faults) -> None:
        identity = device.identity
        index, _, place = identity.index.partition(":")
        gpu = self.gpus[int(index)]
        pids, used = set(gpu.pids), (gpu.memory_used or 0) * MIB
        clients = set() if place else set(gpu.mps_pids)
        if place:
            instance = self._instance({"index": identity.index})
            pids, used = (set(instance.pids), (instance.memory_used or 0) * MIB) if instance else (set(), 0)
        numbers = self._process_numbers(int(index))
        for process in device.processes:
            share = int(used) // max(1, len(pids))
            if process.pid in clients:
                share = MPS_CLIENT_BYTES
            elif process.pid not in pids:
                raise FalsePageError(f"process {process} is not on {identity}: {sorted(pids)}")
            if process.used_bytes not in (None, share, *numbers):
                raise FalsePageError(f"{process} on {identity} has {share} bytes")
        if len({process.pid for process in device.processes}) != len(device.processes):
            raise FalsePageError(f"a process twice on {identity}: {device.processes}")

    def _process_numbers(self, index: int) -> set[int]:
        """The memory that the driver may have answered lately for processes of a GPU."""
        key = ("processes",)
        now = {
            int(raw) for raw in (self.control.gpus[index].raw.get(name) for name in LIST_FUNCTIONS) if raw is not None
        }
        self.history.add(index, key, self.now, {float(number) for number in now})
        return {int(number) for number in self.history.allowed(index, key, self.now, oracle.PROCESS_SECONDS)} | now

    def report(self) -> str:
        """The machine and its faults so far, to find the cause."""
        return "\n".join((self.control.text(), *self.log))

    def check_recovered(self) -> None:
        """After the faults each GPU is up again, with its own uuid, and nothing else is left."""
        rows = parse(self.cache.page(frozenset()))
        up = {dict(labels)["uuid"]: value for labels, value in rows.get("gpu_up", {}).items()}
        expected = {gpu.uuid or "": 1.0 for gpu in self.gpus}
        expected |= {instance.uuid or "": 1.0 for gpu in self.gpus for instance in gpu.instances}
        if up != expected:
            raise FalsePageError(f"without faults gpu_up is {up}, not {expected}")


def describe(faults: Faults) -> str:
    """The faults of a step in one line."""
    parts = [
        f"{key}={value}" for key, value in vars(faults).items() if value and key not in ("gpus", "loaded", "count")
    ]
    parts += [] if faults.loaded else ["not loaded"]
    for index, gpu in sorted(faults.gpus.items()):
        played = {key: getattr(gpu, key) for key in ("lost", "errors", "raw", "texts", "counts", "chances")}
        parts.append(f"GPU {index}: { ({key: value for key, value in played.items() if value}) }")
    return "; ".join(parts) or "no fault"


def _memory(name: str, gpu: SimulatedGpu, played: SimulatedGpu, branch: DriverBranch) -> set[float]:
    used, reserved, total = ((number or 0) * MIB for number in (gpu.memory_used, gpu.memory_reserved, gpu.memory_total))
    allowed: set[float] = set()
    for function, own in zip(MEMORY_FUNCTIONS, (used, used + reserved), strict=True):
        sometimes = function in played.chances
        if function in branch.missing or (played.errors.get(function) and not sometimes):
            continue
        raw = played.raw.get(function)
        if name == "gpu_memory_reserved_bytes":
            allowed |= {reserved} if function == MEMORY_FUNCTIONS[0] else set()
            continue
        if raw is None or sometimes:
            allowed.add(own)
        if raw is not None and raw <= total:
            allowed.add(float(raw))
    return allowed


def _reasons(name: str, gpu: SimulatedGpu, played: SimulatedGpu, branch: DriverBranch) -> set[float]:
    allowed: set[float] = set()
    for function in REASON_FUNCTIONS:
        sometimes = function in played.chances
        if function in branch.missing or (played.errors.get(function) and not sometimes):
            continue
        raw = played.raw.get(function)
        answers = {gpu.throttle or 0} if raw is None or sometimes else set()
        answers |= {raw} if raw is not None and raw <= oracle.MAX_REASONS else set()
        allowed |= {float(bool(answer & oracle.REASONS[name])) for answer in answers}
    return allowed


def _activity(key: Key, gpu: SimulatedGpu, played: SimulatedGpu) -> set[float]:
    metric, own = oracle.GPM_QUANTITIES[key]
    if any(
        played.errors.get(name) and name not in played.chances for name in ("nvmlGpmMetricsGet", "nvmlGpmSampleGet")
    ):
        return set()
    if played.errors.get(f"gpm{metric}"):
        return set()
    raw = played.raw.get(f"gpm{metric}")
    if raw is None:
        return {(own(gpu) or 0) * (gpu.level or 0) / 1e4}
    percent = ctypes.c_double.from_buffer(ctypes.c_uint64(raw)).value
    return {min(percent, 100) / 100} if 0 <= percent <= 101 else set()


_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in page.rstrip("\n").split("\n"):
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            labels = {
                name: _ESCAPE.sub(lambda found: {"n": "\n"}.get(found[1], found[1]), text)
                for name, text in _LABEL.findall(series)
            }
            yield series.partition("{")[0], labels, float(value)


def parse(page: bytes, thoroughly: bool = False) -> Rows:
    """The page by family and labels; with Prometheus' own parser, which takes ten times as long, if `thoroughly`.

    Raises FalsePageError if a server would refuse it.
    """
    rows: Rows = {}
    for name, labels, value in _samples(page.decode()):
        key = tuple(sorted(labels.items()))
        if key in rows.setdefault(name, {}):
            raise FalsePageError(f"twice: {name} {labels}")
        if not 0 <= value < float("inf"):
            raise FalsePageError(f"not a number of anything: {name} {labels} {value}")
        rows[name][key] = value
    if thoroughly:
        families = text_string_to_metric_families(page.decode())
        theirs = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
        if theirs != {(name, key): value for name, family in rows.items() for key, value in family.items()}:
            raise FalsePageError("a server reads another page")
    return rows


def seeds(first: int, episodes: int | None, minutes: float | None) -> Iterator[int]:
    """The seeds to play, for so many episodes or minutes."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    seed = first
    while (episodes is None or seed < first + episodes) and (end is None or time.monotonic() < end):
        yield seed
        seed += 1


def play_all(options: argparse.Namespace, folder: Path, figures: Figures) -> None:
    """Play the episodes of all seeds. Raises FalsePageError, or whatever the exporter does."""
    nvidia_xid.STOP_SECONDS = LISTENER_STOP_SECONDS
    (folder / "proc/sys/kernel").mkdir(parents=True)
    (folder / "proc/sys/kernel/hostname").write_text("fuzz\n")
    libraries = Libraries(folder)
    for seed in seeds(options.seed, options.episodes, options.minutes):
        print(f"seed {seed}", flush=True)
        episode = Episode(seed, folder, libraries, figures)
        try:
            episode.play(options.steps)
        except Exception:
            print(episode.report(), file=sys.stderr, flush=True)
            raise
        episode.control.path.unlink()
        figures.episodes += 1
        figures.branches[episode.branch.name] += 1
        if figures.episodes % 100 == 0:
            print(json.dumps(vars(figures)), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=15)
    figures = Figures()
    with tempfile.TemporaryDirectory() as name:
        try:
            play_all(parser.parse_args(), Path(name), figures)
        except FalsePageError as error:
            print(f"false: {error}", file=sys.stderr)
            return 1
    print(json.dumps(vars(figures)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
