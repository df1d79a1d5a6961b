"""False advice on healthy inference servers, hour after hour.

    python -m benchmarks.serving_healthy [--servers 100] [--hours 2] [--first-seed 0] [--workers 2] [--runs FILE]

Servers are drawn as the class `healthy` of benchmarks/serving, and kept if they keep their objectives and no cause is
true of them (causes.py). Every five minutes the advisor decides as it does live: on the last window and the one before,
with the step times and the demand of the hours before, for a pool with the server's objectives. Advice on a cause is
false here; a number of replicas with headroom for the demand to come is not, and is counted apart, by the growth of
load that the server bears as it is.

The simulated server takes nearly all of the time: with --runs it is read from a file that watched_servers.py writes,
and --runs without --servers decides on all that the file has.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from threading import Semaphore

from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingFacts
from gpu_advisor.observation.serving import HISTORY_WINDOW_STEPS, with_window_before
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.serving.facts_adapter import points_of, replicas_of
from benchmarks.serving.situation import WINDOW_SECONDS, Run, Situation
from benchmarks.serving.watched_servers import STEP_SCRAPES, STEP_SECONDS, packed_servers, unpack
from benchmarks.serving.windows import SCRAPES_PER_WINDOW, window_of

SECONDS_PER_DAY = 86_400

#: Servers that are read before a worker is free (each is some 50 kB).
SERVERS_AHEAD = 8

#: Advice on a number of replicas by demand, not by a cause.
SIZE_KINDS = ("scale_up", "scale_down")


@dataclass(frozen=True, slots=True)
class Decided:
    """A server's windows: what was recommended in each, as pairs of kind and cause. `bears` is the growth of its load
    with which it still keeps its objectives."""

    seed: int
    replicas: int
    found: tuple[frozenset[tuple[str, str]], ...]
    bears: float

    @property
    def sized(self) -> int:
        """The windows with another number of replicas for the demand."""
        return sum(any(kind in SIZE_KINDS for kind, _ in each) for each in self.found)

    @property
    def advised(self) -> int:
        """The windows with advice on a cause."""
        return sum(any(kind not in SIZE_KINDS for kind, _ in each) for each in self.found)


def within(ahead: Semaphore, servers: Iterable[bytes]) -> Iterator[bytes]:
    """The servers, each when the semaphore has room: a pool reads all that it is given at once."""
    for each in servers:
        ahead.acquire()
        yield each


def decide_server(packed: bytes) -> Decided | None:
    """The windows of one server; None if it is not healthy."""
    server = unpack(packed)
    if server is None:
        return None
    advice = decide_windows(server.situation, server.watched, server.windows)
    found = tuple(frozenset((each.kind, each.diagnosis) for each in one) for one in advice)
    return Decided(server.key[0], len(server.situation.delays), found, server.bears)


def decide_windows(situation: Situation, watched: Run, windows: int) -> Iterator[tuple[Recommendation, ...]]:
    """The recommendations at the end of each window but the first, before which nothing was read."""
    slo = {"ttft_p95": f"{situation.ttft}s", "itl_p95": f"{situation.itl}s"}
    pool = {"name": situation.model.name, "kind": "serving", "slo": slo}
    settings = Settings.model_validate({"pools": [pool]})
    key = ("vllm", situation.model.name)
    points: list[CurvePoint] = []
    demand: list[DemandSample] = []
    steps = int(settings.evaluation.history_seconds / STEP_SECONDS)
    for number in range(windows):
        window = window_of(watched, number)
        points += points_of(Run(tuple(each[::STEP_SCRAPES] for each in window.samples), 0, 0, 0))
        demand += demand_of(watched, number)
        del points[: -steps * len(situation.delays)], demand[:-steps]
        if not number:
            continue
        now, before = replicas_of(situation, window), replicas_of(situation, window_of(watched, number - 1))
        serving = ServingFacts(
            with_window_before(now, before), histories={key: tuple(points)}, demand={key: tuple(demand)}
        )
        at = demand[-1].at
        yield decide(Facts(at, (), (), {}, {}, settings.evaluation, serving=serving), settings).recommendations


def demand_of(watched: Run, number: int) -> Iterator[DemandSample]:
    """All replicas together, by the steps of a window; tokens over as long as the advisor reads them for."""
    size = STEP_SCRAPES
    columns = list(zip(*watched.samples, strict=True))
    for end in range(number * SCRAPES_PER_WINDOW + size, (number + 1) * SCRAPES_PER_WINDOW + 1, size):
        first, last = columns[max(0, end - HISTORY_WINDOW_STEPS * size)], columns[end]
        tokens = sum(
            b.values["generation_tokens"] - a.values["generation_tokens"] for a, b in zip(first, last, strict=True)
        )
        waiting = sum(each.values["num_requests_waiting"] for each in last)
        yield DemandSample(last[0].at, len(last), tokens / (last[0].at - first[0].at), waiting)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, help="servers drawn; those that are healthy are watched")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="a file of watched servers: read, and grown by those that it lacks")
    options = parser.parse_args()

    servers = windows = advised = 0
    sized = Counter[float]()
    replica_seconds = 0.0
    named = Counter[str]()
    wanted = None
    if options.servers is not None or options.runs is None:
        count = 100 if options.servers is None else options.servers
        wanted = [(options.first_seed + number, options.hours) for number in range(count)]
    ahead = Semaphore(SERVERS_AHEAD * options.workers)
    with Pool(options.workers) as pool:
        servers_read = within(ahead, packed_servers(wanted, options.runs, options.workers))
        for decided in pool.imap_unordered(decide_server, servers_read):
            ahead.release()
            if decided is None:
                continue
            servers += 1
            windows += len(decided.found)
            replica_seconds += len(decided.found) * WINDOW_SECONDS * decided.replicas
            if decided.sized:
                sized[decided.bears] += decided.sized
            advised += decided.advised
            found = Counter(f"{kind}: {cause}" for each in decided.found for kind, cause in each)
            named.update(found)
            if found:
                bears = f", bears {decided.bears:g} times its load" if decided.sized else ""
                print(f"seed {decided.seed}, {decided.replicas} replicas{bears}: {dict(found)}", flush=True)
    days = replica_seconds / SECONDS_PER_DAY
    print(f"{servers} healthy servers, {windows} windows, {days:.1f} replica-days: {advised} windows with advice")
    print(f"by kind and cause: {dict(named)}; {sized.total()} windows with a number of replicas for the demand")
    print(f"of these, by how many times its load the server bears: {dict(sorted(sized.items()))}")
    if not advised:
        print(f"none in {days:.1f} replica-days: at most {3 / days:.2g} a replica-day (95 %, rule of three)")
    common.write("serving_healthy", {
        "servers": servers, "windows": windows, "replica_days": round(days, 2), "windows_with_advice": advised,
        "windows_with_replicas_for_demand": sized.total(),
        "windows_by_growth_borne": {f"{growth:g}": count for growth, count in sorted(sized.items())},
        "advice": dict(named),
    })  # fmt: skip
    return 1 if advised else 0


if __name__ == "__main__":
    sys.exit(main())
