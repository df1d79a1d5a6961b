"""Drawn days of single GPUs whose owners are known: who forgot a GPU, and who only looks as if. Pure.

Written before the rules of idle reclaim that it tests, and not changed with them. Each class says what a person who
knows the owner would do at the end of the day: take the GPU back, report the owner's job, or leave it alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from tests.telemetry_histories import GIB, Sample

MINUTE, HOUR = 60.0, 3600.0
STEP = 60.0

Verdict = Literal["reclaim", "report", "leave"]


@dataclass(frozen=True)
class Owner:
    """A pod, a Slurm job or a user's processes on the GPU; `started` is when its first process did."""

    kind: str
    labels: dict[str, str]
    begin: float
    end: float
    started: float


@dataclass(frozen=True)
class OwnerDay:
    """`busy` are spans (start, end, utilization), `host` spans of a busy host (start, end, CPU, I/O pressure)."""

    seed: int
    kind: str
    verdict: Verdict
    start: float
    end: float
    busy: tuple[tuple[float, float, float], ...]
    host: tuple[tuple[float, float, float, float], ...]
    owners: tuple[Owner, ...]
    memory: tuple[tuple[float, float], ...]  # from when on, how much
    steps_until: float | None = None  # a training job reports steps up to this time

    @property
    def uuid(self) -> str:
        return f"GPU-{self.seed:08x}"

    def samples(self) -> Iterator[Sample]:
        target = {"job": "gpu-exporter", "instance": f"n{self.seed}:9816"}
        device = {**target, "uuid": self.uuid}
        node = f"n{self.seed}"
        busy = idle_cpu = user_cpu = pressure = steps = 0.0
        count = int((self.end - self.start) / STEP)
        for number in range(count + 1):
            at = self.start + number * STEP
            before = at - STEP
            busy += sum(level * _overlap(before, at, start, end) for start, end, level in self.busy)
            cpu = sum(level * _overlap(before, at, s, e) for s, e, level, _ in self.host) / STEP
            cpu = min(1.0, cpu + 0.03)
            user_cpu, idle_cpu = user_cpu + 32 * cpu * STEP, idle_cpu + 32 * (1 - cpu) * STEP
            pressure += sum(level * _overlap(before, at, s, e) for s, e, _, level in self.host)
            held = next((level for since, level in reversed(self.memory) if since <= at), 0.0)
            yield "up", target, 1.0, at
            yield "node_uname_info", {**target, "nodename": node}, 1.0, at
            yield "node_cpu_seconds_total", {**target, "cpu": "0", "mode": "idle"}, idle_cpu, at
            yield "node_cpu_seconds_total", {**target, "cpu": "0", "mode": "user"}, user_cpu, at
            yield "node_pressure_io_waiting_seconds_total", target, pressure, at
            yield "node_memory_MemTotal_bytes", target, 512.0 * GIB, at
            yield "node_memory_MemAvailable_bytes", target, 300.0 * GIB, at
            info = {"index": "0", "name": "NVIDIA H100 80GB HBM3", "vendor": "nvidia", "nodename": node}
            yield "gpu_info", {**device, **info}, 1.0, at
            yield "gpu_up", device, 1.0, at
            yield "gpu_busy_seconds_total", device, busy, at
            yield "gpu_observed_seconds_total", device, at - self.start, at
            yield "gpu_memory_total_bytes", device, 80.0 * GIB, at
            yield "gpu_memory_used_bytes", device, held * 80 * GIB, at
            present = [owner for owner in self.owners if owner.begin <= at < owner.end]
            yield "gpu_processes", device, float(len(present)), at
            for owner in present:
                labels = {**device, "owner_kind": owner.kind, **owner.labels}
                yield "gpu_owner_info", labels, 1.0, at
                yield "gpu_owner_start_time_seconds", labels, owner.started, at
            if self.steps_until is not None and present:
                steps += _overlap(before, at, self.start, self.steps_until)
                yield "training_step_seconds_total", {**device, "training_job": "llm"}, steps, at
                yield "training_batch_size", {**device, "training_job": "llm"}, 32.0, at


def _overlap(start: float, end: float, first: float, last: float) -> float:
    return max(0.0, min(end, last) - max(start, first))


def pod(random: Random, begin: float, end: float, **more: str) -> Owner:
    name = f"work-{random.getrandbits(20):05x}"
    return Owner("pod", {"owner_namespace": "team-a", "owner_pod": name, **more}, begin, end, begin)


def user(random: Random, begin: float, end: float) -> Owner:
    return Owner("user", {"owner_user": random.choice(("ada", "grace", "kurt"))}, begin, end, begin)


def _bursts(
    random: Random, start: float, end: float, length: tuple[float, float], gap: tuple[float, float]
) -> tuple[tuple[float, float, float], ...]:
    """Busy spans with gaps between them."""
    found: list[tuple[float, float, float]] = []
    at = start
    while at < end:
        stop = min(end, at + random.uniform(*length))
        found.append((at, stop, random.uniform(0.3, 1.0)))
        at = stop + random.uniform(*gap)
    return tuple(found)


def draw_day(kind: str, seed: int, at: float) -> OwnerDay:
    """A day of this class that ends at `at`."""
    random = Random(f"owner {kind} {seed}")
    start = at - random.uniform(20, 26) * HOUR
    return _CLASSES[kind][1](random, kind, seed, start, at)


def _day(kind: str, seed: int, start: float, at: float, **more: Any) -> OwnerDay:
    given: dict[str, Any] = {
        "busy": (), "host": (), "owners": (), "memory": ((start, 0.5),), "steps_until": None, **more
    }  # fmt: skip
    return OwnerDay(seed, kind, _CLASSES[kind][0], start, at, **given)


def _forgotten(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """Work with short pauses, and then nothing for one to ten hours."""
    stopped = at - random.uniform(1, 10) * HOUR
    owner = random.choice((pod, user))(random, start - HOUR, at + 1)
    busy = _bursts(random, start, stopped, (5 * MINUTE, 2 * HOUR), (MINUTE, 10 * MINUTE))
    return _day(kind, seed, start, at, busy=tuple(b for b in busy if b[1] <= stopped + 1), owners=(owner,))


def _never_used(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """A pod that asked for a GPU and does not use it."""
    return _day(kind, seed, start, at, owners=(pod(random, at - random.uniform(2, 20) * HOUR, at + 1),),
                memory=((start, random.choice((0.0, 0.01, 0.4))),))  # fmt: skip


def _hung(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """A training job that makes no step any more; its processes are there, its GPU does nothing."""
    stopped = at - random.uniform(0.75, 6) * HOUR
    owner = pod(random, start - HOUR, at + 1, training_job="llm")
    return _day(kind, seed, start, at, busy=((start, stopped, random.uniform(0.7, 1.0)),), owners=(owner,),
                steps_until=stopped)  # fmt: skip


def _fresh(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """Free for hours; a pod came less than half an hour ago, and loads its weights."""
    came = at - random.uniform(0.5, 25) * MINUTE
    return _day(kind, seed, start, at, owners=(pod(random, came, at + 1),), memory=((start, 0.0), (came, 0.4)),
                host=((came, at, random.uniform(0.05, 0.4), random.uniform(0, 0.3)),))  # fmt: skip


def _staging(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """A job reads and prepares data on the host for 35 minutes to 3 hours."""
    since = at - random.uniform(35, 180) * MINUTE
    by_cpu = random.random() < 0.6
    host = (since, at, random.uniform(0.5, 1.0) if by_cpu else 0.1, 0.05 if by_cpu else random.uniform(0.25, 0.6))
    owner = pod(random, start - HOUR, at + 1, training_job=random.choice(("", "llm")))
    return _day(kind, seed, start, at, busy=((start, since, 0.9),), host=(host,), owners=(owner,))


def _alternating(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """Training, then evaluation on the CPU, in turns; now in the middle of an evaluation."""
    on, off = random.uniform(5, 90) * MINUTE, random.uniform(32, 110) * MINUTE
    since = at - random.uniform(0.2, 0.98) * off
    turns = int((since - start) / (on + off)) + 1
    busy = tuple((since - turn * (on + off) - on, since - turn * (on + off), 0.9) for turn in range(turns))
    return _day(kind, seed, start, at, busy=busy[::-1], owners=(pod(random, start - HOUR, at + 1),))


def _notebook(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """Somebody at work: cells run for seconds to minutes, with pauses up to an hour, of which the present is one."""
    gaps = (2 * MINUTE, 60 * MINUTE)
    busy = [b for b in _bursts(random, start, at, (10.0, 6 * MINUTE), gaps) if b[1] < at]
    longest = max((later[0] - earlier[1] for earlier, later in itertools.pairwise(busy)), default=0.0)
    pause = min(random.uniform(0.6, 1.0) * longest, at - start)
    shift = at - pause - busy[-1][1]
    moved = tuple((first + shift, last + shift, level) for first, last, level in busy)
    return _day(kind, seed, start, at, busy=moved, owners=(user(random, start - HOUR, at + 1),))


def _night_service(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """An inference server: much by day, a request now and then at night; now it is night."""
    night = at - random.uniform(3, 6) * HOUR
    by_day = _bursts(random, start, night, (10 * MINUTE, HOUR), (30.0, 3 * MINUTE))
    every = random.uniform(10, 50) * MINUTE
    last = at - random.uniform(0.1, 0.95) * every
    calls = tuple(
        (last - n * every, last - n * every + random.uniform(1, 8), 1.0) for n in range(int(3 * HOUR / every))
    )
    owner = pod(random, start - 24 * HOUR, at + 1, owner_container="vllm")
    return _day(kind, seed, start, at, busy=(*by_day, *(call for call in calls[::-1] if call[0] > night)),
                owners=(owner,), memory=((start, 0.9),))  # fmt: skip


def _debugger(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """A process under a debugger: single kernels of a second, some minutes apart, for hours."""
    calls = _bursts(random, at - random.uniform(2, 6) * HOUR, at, (0.2, 2.0), (3 * MINUTE, 25 * MINUTE))
    owner = user(random, calls[0][0] - 5 * MINUTE, at + 1)
    return _day(kind, seed, start, at, busy=calls, owners=(owner,))


def _shared(random: Random, kind: str, seed: int, start: float, at: float) -> OwnerDay:
    """Two owners; one has stopped for hours, the other works with pauses of up to 20 minutes."""
    busy = _bursts(random, start, at - random.uniform(1, 19) * MINUTE, (MINUTE, 20 * MINUTE), (MINUTE, 20 * MINUTE))
    return _day(kind, seed, start, at, busy=busy, owners=(pod(random, start, at + 1), pod(random, start, at + 1)))


_CLASSES: dict[str, tuple[Verdict, Callable[[Random, str, int, float, float], OwnerDay]]] = {
    "forgotten": ("reclaim", _forgotten),
    "never used": ("reclaim", _never_used),
    "hung job": ("report", _hung),
    "fresh pod": ("leave", _fresh),
    "staging": ("leave", _staging),
    "alternating": ("leave", _alternating),
    "notebook": ("leave", _notebook),
    "night service": ("leave", _night_service),
    "debugger": ("leave", _debugger),
    "shared": ("leave", _shared),
}

CLASSES = tuple(_CLASSES)
