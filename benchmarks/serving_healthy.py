"""False advice on healthy inference servers, hour after hour.

    python -m benchmarks.serving_healthy [--servers 100] [--hours 2] [--first-seed 0] [--workers 2] [--runs FILE]

Servers are drawn as the class `healthy` of benchmarks/serving, and kept if they keep their objectives and no cause is
true of them (causes.py). Every five minutes the advisor decides as it does live: on the last window and the one before,
with the step times and the demand of the hours before, for a pool with the server's objectives. Advice on a cause is
false here. Fewer replicas for the demand are false if those left do not keep the objectives, which are 95th
percentiles, at the load as it is. Advice is counted apart in a window whose own time to first token is above the
objective, or after one: no server is healthy for ever at random arrivals. One more replica, with headroom for the
demand to come, is counted apart, by the growth of load that the server bears as it is.

The simulated server takes nearly all of the time: with --runs it is read from a file that watched_servers.py writes,
and --runs without --servers decides on all that the file has.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import Pool
from pathlib import Path
from threading import Semaphore
from typing import Any

from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts
from gpu_advisor.observation.serving import HISTORY_WINDOW_STEPS, with_window_before
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.serving.facts_adapter import points_of, replicas_of
from benchmarks.serving.situation import SCRAPE_SECONDS, WINDOW_SECONDS, Run, Situation, run
from benchmarks.serving.watched_servers import STEP_SCRAPES, STEP_SECONDS, WatchedServer, packed_servers, unpack
from benchmarks.serving.windows import SCRAPES_PER_WINDOW, window_of

SECONDS_PER_DAY = 86_400

#: When servers are watched from (Unix time): a step of the history begins.
EPOCH = 1_000_020.0
assert EPOCH % STEP_SECONDS == 0

#: Servers that are read before a worker is free (each is some 50 kB).
SERVERS_AHEAD = 8

#: Advice on a number of replicas by demand, not by a cause.
SIZE_KINDS = ("scale_up", "scale_down")

#: The totals so far are printed and written after as many servers: a long run may be stopped.
PROGRESS_SERVERS = 100

#: The share of requests that an objective of a 95th percentile is for.
KEPT_RATIO = 0.95


#: Kind, cause, and the number recommended.
Found = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class Decided:
    """A server's windows: what was recommended in each. `bears` is the growth of its load with which it still keeps its
    objectives; `kept` is, by fewer replicas recommended, the share of requests that they keep the objectives for;
    `late` are the windows in which, or in the one before which, first tokens were."""

    seed: int
    replicas: int
    windows: tuple[frozenset[Found], ...]
    bears: float
    kept: Mapping[float, float]
    late: frozenset[int]

    def is_false(self, found: Found) -> bool:
        kind, _, number = found
        return kind not in SIZE_KINDS or (kind == "scale_down" and self.kept[number] < KEPT_RATIO)

    def false(self, late: bool = False) -> list[frozenset[Found]]:
        """The windows with false advice, in healthy ones or in late ones."""
        return [
            each
            for number, each in enumerate(self.windows)
            if (number in self.late) is late and any(map(self.is_false, each))
        ]

    def with_kind(self, kind: str) -> int:
        return sum(any(found[0] == kind for found in each) for each in self.windows)


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
    found = tuple(frozenset((each.kind, each.diagnosis, each.recommended) for each in one) for one in advice)
    fewer = {number for each in found for kind, _, number in each if kind == "scale_down"}
    kept = {number: attainment(server.situation, round(number)) for number in fewer}
    late = frozenset(number for number, each in enumerate(found) if each and _is_late(server, number))
    return Decided(server.key[0], len(server.situation.delays), found, server.bears, kept, late)


def _is_late(server: WatchedServer, number: int) -> bool:
    """Whether first tokens of the decision's window, or of the one before, are above the objective."""
    replicas = (
        each
        for window in (number, number + 1)  # the first decision is on the second window
        for each in replicas_of(server.situation, window_of(server.watched, window))
    )
    return any((each.value("ttft_p95") or 0.0) > server.situation.ttft for each in replicas)


def attainment(situation: Situation, replicas: int) -> float:
    """The share of the requests for which so many replicas keep the objectives."""
    return run(replace(situation, delays=(0.0,) * replicas)).attainment


def decide_windows(situation: Situation, watched: Run, windows: int) -> Iterator[tuple[Recommendation, ...]]:
    """The recommendations at the end of each window but the first, before which nothing was read."""
    slo = {"ttft_p95": f"{situation.ttft}s", "itl_p95": f"{situation.itl}s"}
    pool = {"name": situation.model.name, "kind": "serving", "slo": slo}
    settings = Settings.model_validate({"pools": [pool]})
    key = GroupKey("vllm", situation.model.name)
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
    """All replicas together, by the steps of a window; tokens over as long as the advisor reads them for.

    Steps are whole multiples of their length in Unix time, as a range query's are.
    """
    size = STEP_SCRAPES
    columns = list(zip(*watched.samples, strict=True))
    for end in range(number * SCRAPES_PER_WINDOW + size, (number + 1) * SCRAPES_PER_WINDOW + 1, size):
        first, last = columns[max(0, end - HISTORY_WINDOW_STEPS * size)], columns[end]
        tokens = sum(
            b.values["generation_tokens"] - a.values["generation_tokens"] for a, b in zip(first, last, strict=True)
        )
        waiting = sum(each.values["num_requests_waiting"] for each in last)
        at = EPOCH + end * SCRAPE_SECONDS
        yield DemandSample(at, len(last), tokens / (last[0].at - first[0].at), waiting)


@dataclass
class Totals:
    """Over all servers. `bears` and `kept` are windows with more and with fewer replicas for the demand: by the growth
    of load that the server bears, and by the share of requests that those left keep the objectives for (percent)."""

    servers: int = 0
    windows: int = 0
    replica_days: float = 0.0
    false: int = 0
    late: int = 0
    named: Counter[str] = field(default_factory=Counter)
    bears: Counter[float] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)

    def add(self, decided: Decided) -> None:
        self.servers += 1
        self.windows += len(decided.windows)
        self.replica_days += len(decided.windows) * WINDOW_SECONDS * decided.replicas / SECONDS_PER_DAY
        false, late = decided.false(), decided.false(late=True)
        self.false += len(false)
        self.late += len(late)
        self.named.update(f"{kind}: {cause}" for each in decided.windows for kind, cause, _ in each)
        if more := decided.with_kind("scale_up"):
            self.bears[decided.bears] += more
        for each in decided.windows:
            self.kept.update(math.floor(100 * decided.kept[number]) for kind, _, number in each if kind == "scale_down")
        for name, windows in (("false", false), ("late", late)):
            if windows:
                found = dict(Counter(each for one in windows for each in one))
                print(
                    f"{name}: seed {decided.seed}, {decided.replicas} replicas: {found}, kept {decided.kept}",
                    flush=True,
                )

    def summary(self) -> Iterator[str]:
        days = self.replica_days
        yield f"{self.servers} healthy servers, {self.windows} windows, {days:.1f} replica-days: {self.false} false"
        yield f"{self.late} more with advice in windows whose first tokens were late"
        yield f"by kind and cause: {dict(self.named)}"
        yield f"more replicas, by how many times its load the server bears: {dict(sorted(self.bears.items()))}"
        yield f"fewer, by the percentage of requests whose objectives they keep: {dict(sorted(self.kept.items()))}"
        if not self.false:
            yield f"none in {days:.1f} replica-days: at most {3 / days:.2g} a replica-day (95 %, rule of three)"

    def as_json(self) -> dict[str, Any]:
        return {
            "servers": self.servers, "windows": self.windows, "replica_days": round(self.replica_days, 2),
            "windows_with_false_advice": self.false, "late_windows_with_advice": self.late, "advice": dict(self.named),
            "windows_with_more_replicas_by_growth_borne": {
                f"{growth:g}": count for growth, count in sorted(self.bears.items())
            },
            "windows_with_fewer_replicas_by_percentage_kept": dict(sorted(self.kept.items())),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, help="servers drawn; those that are healthy are watched")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="a file of watched servers: read, and grown by those that it lacks")
    options = parser.parse_args()

    wanted = None
    if options.servers is not None or options.runs is None:
        count = 100 if options.servers is None else options.servers
        wanted = [(options.first_seed + number, options.hours) for number in range(count)]
    ahead = Semaphore(SERVERS_AHEAD * options.workers)
    totals = Totals()
    with Pool(options.workers) as pool:
        servers_read = within(ahead, packed_servers(wanted, options.runs, options.workers))
        for decided in pool.imap_unordered(decide_server, servers_read):
            ahead.release()
            if decided is not None:
                totals.add(decided)
                if totals.servers % PROGRESS_SERVERS == 0:
                    print(next(totals.summary()), flush=True)
                    common.write("serving_healthy", totals.as_json())
    common.write("serving_healthy", totals.as_json())
    print("\n".join(totals.summary()))
    return 1 if totals.false else 0


if __name__ == "__main__":
    sys.exit(main())
