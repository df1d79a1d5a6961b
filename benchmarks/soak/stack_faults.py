"""Faults around the programs: a killed Prometheus, a flapping Alertmanager, a full disk, slow clients.

One at a time, in rounds of random order.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.slow_clients import Load, attack
from benchmarks.soak.stack import Stack

CALM_SECONDS = 8.0
SLOW_CLIENTS = Load(idle=100, slow_readers=50, one_byte_writers=50, seconds=0)


@dataclass(frozen=True)
class StackFault:
    name: str
    seconds: float
    during: Callable[[Stack, threading.Event, float], None]
    """Causes the fault, and ends it after the seconds, or sooner once the event is set."""


def _kill_prometheus(stack: Stack, stop: threading.Event, seconds: float) -> None:
    stack.prometheus.kill()
    stop.wait(seconds)
    stack.prometheus.start()


def _flap_alertmanager(stack: Stack, stop: threading.Event, seconds: float) -> None:
    for _ in range(4):
        stack.alertmanager.kill()
        stop.wait(seconds / 8)
        stack.alertmanager.start()
        stop.wait(seconds / 8)


def _fill_disk(stack: Stack, stop: threading.Event, seconds: float) -> None:
    with _full(stack.disk):
        stop.wait(seconds)


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """The disk has no byte left."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        yield
    finally:
        filler.unlink(missing_ok=True)


def _crowd(stack: Stack, stop: threading.Event, seconds: float) -> None:
    context = multiprocessing.get_context("fork")
    crowds = []
    for program in stack.under_test.values():
        here, there = context.Pipe()
        process = context.Process(target=attack, args=(program.address[1], SLOW_CLIENTS, False, there), daemon=True)
        process.start()
        crowds.append((process, here))
    stop.wait(seconds)
    for process, _ in crowds:
        process.kill()
        process.join()


STACK_FAULTS = (
    StackFault("Prometheus killed", 20, _kill_prometheus),
    StackFault("Alertmanager flaps", 24, _flap_alertmanager),
    StackFault("disk full", 20, _fill_disk),
    StackFault("slow clients", 20, _crowd),
)


def stack_faults(stack: Stack, seed: int, caused: Counter[str]) -> Iterator[StackFault]:
    """Faults without end, counted in `caused` as they are drawn."""
    chance = random.Random(seed)
    possible = [fault for fault in STACK_FAULTS if stack.disk_is_small or fault.name != "disk full"]
    while True:
        for fault in chance.sample(possible, len(possible)):
            caused[fault.name] += 1
            yield fault
