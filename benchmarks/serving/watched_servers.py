"""Healthy servers on disk, hour after hour: the simulator is frozen, so that each is watched once and every version of
the advisor decides on it.

    python -m benchmarks.serving.watched_servers FILE [--servers 100] [--hours 4] [--first-seed 0] [--workers 1]

Kept is what the advisor reads: gauges at each scrape, counters and histograms at each step of its history. The file
grows server by server; to stop at any time loses the last one at most. The simulated server takes nearly all of the
time. Compiled it is three times as fast, and gives the same numbers: in a copy of this repository,
mypyc benchmarks/serving/{server_model,simulator,situation,windows}.py
"""

from __future__ import annotations

import argparse
import pickle
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from multiprocessing import Pool
from pathlib import Path

from benchmarks.serving.causes import SERVED_RATIO, causes_of
from benchmarks.serving.draw import healthy
from benchmarks.serving.records import append_record, drop_cut_off, read_records
from benchmarks.serving.simulator import Sample
from benchmarks.serving.situation import SCRAPE_SECONDS, WINDOW_SECONDS, Run, Situation, run
from benchmarks.serving.windows import watch

#: Steps of the advisor's history (seconds), and scrapes of one.
STEP_SECONDS = 60.0
STEP_SCRAPES = int(STEP_SECONDS / SCRAPE_SECONDS)

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")

#: Growths of the load that are tried, up to where headroom for what is to come ends.
GROWTHS = (1.1, 1.2, 1.3, 1.4, 1.5)

#: A drawn seed, and for how many hours its server is watched.
Key = tuple[int, float]
#: Names of counters, of histograms with how many buckets each has, and the compressed columns of all.
Columns = tuple[tuple[str, ...], tuple[tuple[str, int], ...], bytes]


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """A healthy server, what was read of it, and the largest of GROWTHS with which its replicas keep the objectives (1
    if none). Its samples between two steps have gauges alone."""

    key: Key
    situation: Situation
    watched: Run
    bears: float

    @property
    def windows(self) -> int:
        return windows_in(self.key[1])


def windows_in(hours: float) -> int:
    return int(hours * 3600 / WINDOW_SECONDS)


def simulate(key: Key) -> bytes:
    """The packed server of a seed; of one that is not healthy, the key alone."""
    seed, hours = key
    situation = healthy(seed)
    judged = run(situation)
    if judged.attainment < SERVED_RATIO or causes_of(situation, judged):
        return pickle.dumps((key,))
    watched = watch(situation, windows_in(hours))
    columns = tuple(map(_columns, watched.samples))
    times = tuple(each.at for each in watched.samples[0])
    return pickle.dumps((key, situation, times, columns, growth_borne(situation)))


def growth_borne(situation: Situation) -> float:
    """The largest of GROWTHS with which a server keeps its objectives as it is; 1 if none."""
    borne = 1.0
    for growth in GROWTHS:
        load = replace(situation.load, rate=growth * situation.load.rate)
        if run(replace(situation, load=load)).attainment < SERVED_RATIO:
            break
        borne = growth
    return borne


def packed_servers(wanted: Sequence[Key] | None, path: Path | None, workers: int) -> Iterator[bytes]:
    """The servers of these keys: those in the file are read from it, the others are added to it. Without keys, those in
    the file."""
    missing = dict.fromkeys(wanted or ())
    for packed in read_records(path):
        key = _key_of(packed)
        if wanted is None or key in missing:
            missing.pop(key, None)
            yield packed
    if missing and path is not None:
        drop_cut_off(path)
    with Pool(workers) as pool:
        for packed in pool.imap(simulate, missing):
            if path is not None:
                append_record(path, packed)
            yield packed


def unpack(packed: bytes) -> WatchedServer | None:
    """None of a seed whose server is not healthy."""
    key, *rest = pickle.loads(packed)
    if not rest:
        return None
    situation, times, replicas, bears = rest
    samples = tuple(tuple(_samples(times, columns)) for columns in replicas)
    return WatchedServer(key, situation, Run(samples, 0.0, 0.0, 0.0), bears)


def _key_of(packed: bytes) -> Key:
    key: Key = pickle.loads(packed)[0]
    return key


def _columns(samples: Sequence[Sample]) -> Columns:
    steps = samples[::STEP_SCRAPES]
    counters = tuple(name for name in samples[0].values if name not in GAUGES)
    histograms = tuple((name, len(counts)) for name, (counts, _) in samples[0].histograms.items())
    rows = [
        [
            *(each.values[name] for name in counters),
            *(value for counts, total in each.histograms.values() for value in (*counts, total)),
        ]
        for each in steps
    ]
    gauges = zip(*([each.values[name] for name in GAUGES] for each in samples), strict=True)
    return counters, histograms, _compressed((*gauges, *zip(*rows, strict=True)))


def _compressed(columns: Iterable[Sequence[float]]) -> bytes:
    """Columns of whole numbers as their differences, which are small; the others as they are."""
    found = []
    for column in columns:
        whole = all(map(float.is_integer, column))
        values = [column[0], *(after - before for before, after in pairwise(column))] if whole else column
        found.append((whole, array("d", values).tobytes()))
    return zlib.compress(pickle.dumps(found), 6)


def _restored(compressed: bytes) -> Iterator[list[float]]:
    for whole, content in pickle.loads(zlib.decompress(compressed)):
        values = array("d", content).tolist()
        yield list(accumulate(values)) if whole else values


def _samples(times: Sequence[float], columns: Columns) -> Iterator[Sample]:
    counters, histograms, compressed = columns
    restored = list(_restored(compressed))
    steps = list(zip(*restored[len(GAUGES) :], strict=True))
    for number, (at, *gauges) in enumerate(zip(times, *restored[: len(GAUGES)], strict=True)):
        values = dict(zip(GAUGES, gauges, strict=True))
        if number % STEP_SCRAPES:
            yield Sample(at, values, {})
            continue
        row = steps[number // STEP_SCRAPES]
        values |= zip(counters, row, strict=False)
        found, start = {}, len(counters)
        for name, buckets in histograms:
            found[name] = (row[start : start + buckets], row[start + buckets])
            start += buckets + 1
        yield Sample(at, values, found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--servers", type=int, default=100, help="servers drawn; those that are healthy are watched")
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()

    wanted = [(options.first_seed + number, options.hours) for number in range(options.servers)]
    servers = replica_hours = 0.0
    for packed in packed_servers(wanted, options.file, options.workers):
        found = unpack(packed)
        if found is not None:
            servers += 1
            replica_hours += len(found.situation.delays) * found.key[1]
    print(f"{servers:.0f} healthy servers of {len(wanted)}, {replica_hours / 24:.1f} replica-days")
    return 0


if __name__ == "__main__":
    sys.exit(main())
