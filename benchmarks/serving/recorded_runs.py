"""Simulated runs on disk: the simulator is frozen, so that a run is computed once and judged by every version."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

from benchmarks.serving.causes import causes_of
from benchmarks.serving.draw import CLASSES
from benchmarks.serving.records import append_record, drop_cut_off, read_records
from benchmarks.serving.simulator import Sample
from benchmarks.serving.situation import Run, Situation, run


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A situation of a class and seed, what was scraped of it, and its causes."""

    name: str
    seed: int
    situation: Situation
    samples: tuple[tuple[Sample, ...], ...]
    offered: float
    goodput: float
    causes: frozenset[str]

    @property
    def run(self) -> Run:
        return Run(self.samples, self.offered, self.goodput, 0.0)


def simulate(key: tuple[str, int]) -> bytes:
    name, seed = key
    situation = CLASSES[name](seed)
    found = run(situation)
    row = (name, seed, situation, found.samples, found.offered, found.goodput, causes_of(situation, found))
    return zlib.compress(pickle.dumps(row), 6)


def judged_runs(count: int, first_seed: int, path: Path | None, workers: int) -> Iterator[JudgedRun]:
    """As many situations of each class; those in the file are read from it, the others are added to it."""
    wanted = {(name, first_seed + number) for number in range(count) for name in CLASSES}
    for judged in map(_unpack, read_records(path)):
        if (judged.name, judged.seed) in wanted:
            wanted.remove((judged.name, judged.seed))
            yield judged
    missing = sorted(wanted, key=lambda key: (key[1], key[0]))
    if missing and path is not None:
        drop_cut_off(path)
    with Pool(workers) as pool:
        for packed in pool.imap(simulate, missing, chunksize=4):
            if path is not None:
                append_record(path, packed)
            yield _unpack(packed)


def _unpack(packed: bytes) -> JudgedRun:
    return JudgedRun(*pickle.loads(zlib.decompress(packed)))
